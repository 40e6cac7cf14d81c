//! Framing: is this head one message, for one host?
//!
//! hyper reads and re-frames every message, so bytes cannot be smuggled past it; but where hyper repairs, the next
//! reader might repair differently. What could be read in two ways is refused here instead (RFC 9112 §11.2).
//!
//! What is ruled out below us is not checked again: `HeaderValue` holds no control character but the tab (a test pins
//! it), and the `h2` crate resets streams whose heads have connection-specific fields.

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
    request, response,
};

/// Fields of a request that have one value (RFC 9110 §5.3), and that much is decided by. Others of that kind are replaced where
/// they are repeated (`x-forwarded-…`, `x-request-id`) or looked at by nobody between the caller and the app.
static SINGLE: [HeaderName; 3] = [AUTHORIZATION, CONTENT_TYPE, ORIGIN];

/// What could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// `Content-Length` is there twice, or not a plain number in its one spelling.
    #[error("content-length is repeated or not a plain number")]
    ContentLength,
    /// `Transfer-Encoding` is not exactly `chunked`, or the version has no such field.
    #[error("transfer-encoding is not exactly \"chunked\" in HTTP/1.1")]
    TransferEncoding,
    /// `Content-Length` and `Transfer-Encoding`.
    #[error("both content-length and transfer-encoding")]
    LengthAndEncoding,
    /// The target does not start with `/`, nor is it `*` with `OPTIONS`.
    #[error("the request target is not a path")]
    Target,
    /// A method that is one of HTTP's but for letter case: some readers take it for that one (RFC 9110 §9.1: it is not).
    #[error("a method in other letters than HTTP's")]
    MethodCase,
    /// No authority, where the version demands one.
    #[error("no host")]
    HostMissing,
    /// `Host` is there twice.
    #[error("host is repeated")]
    HostRepeated,
    /// Host or target's authority is not `host` or `host:port`.
    #[error("the host is not \"host\" or \"host:port\"")]
    HostMalformed,
    /// A 101 to a request that asked for no other protocol: what follows is no HTTP that we could carry.
    #[error("a switch of protocols that nobody asked for")]
    Switch,
    /// The switch of protocols is another than the one asked for, or its proof is wrong.
    #[error("not the switch of protocols that was asked for")]
    WrongSwitch,
    /// A success to an HTTP/2 caller's wish to switch protocols, from an app that did not switch.
    #[error("a success, but no switch of protocols")]
    NoSwitch,
    /// A field that has one value is there twice, and readers take different ones.
    #[error("authorization, content-type or origin is repeated")]
    Repeated,
    /// `:authority` and `Host` name different hosts.
    #[error(":authority and host differ")]
    HostMismatch,
}

/// Whether a header block has at most `count` fields and `bytes` bytes, counted as HTTP/2 does: names, values, and 32 for
/// each field (RFC 9113 §6.5.2). `line_bytes` are those of the request's target.
#[must_use]
pub fn fits(headers: &HeaderMap, line_bytes: usize, count: usize, bytes: usize) -> bool {
    const FIELD_BYTES: usize = 32;
    headers.len() <= count
        && headers.iter().fold(line_bytes, |sum, (name, value)| {
            sum.saturating_add(FIELD_BYTES + name.as_str().len() + value.len())
        }) <= bytes
}

/// Takes spaces and tabs off both ends of every value: they are no part of it (RFC 9110 §5.5). HTTP/1 cannot carry them,
/// so that its parsers leave them out; HTTP/2 could, and must not (RFC 9113 §8.2.1), but there nobody looks. Without this a
/// value would be judged that the next reader does not see.
pub fn trim(headers: &mut HeaderMap) {
    for value in headers.values_mut() {
        let bytes = value.as_bytes();
        let trimmed = bytes.trim_ascii();
        if trimmed.len() < bytes.len()
            && let Ok(mut trimmed) = HeaderValue::from_bytes(trimmed)
        {
            trimmed.set_sensitive(value.is_sensitive());
            *value = trimmed;
        }
    }
}

/// Checks a request's head: framing and target. [`authority`] checks its host.
///
/// # Errors
/// The first rule it breaks. The connection must not be used on: the two sides may disagree about what comes next.
pub fn check_request(request: &request::Parts) -> Result<(), FramingError> {
    check_fields(&request.headers, request.version)?;
    let path = request.uri.path();
    // The target of a CONNECT is an authority; what becomes of that method is not decided here.
    let is_target = path.starts_with('/')
        || (path == "*" && request.method == Method::OPTIONS)
        || request.method == Method::CONNECT;
    if is_target { Ok(()) } else { Err(FramingError::Target) }
}

/// Checks the method of a request to an app that stands behind rules: its readers and the rules must see the same one.
///
/// # Errors
/// [`FramingError::MethodCase`].
pub fn check_method(method: &Method) -> Result<(), FramingError> {
    const STANDARD: [Method; 9] = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
        Method::CONNECT,
        Method::OPTIONS,
        Method::TRACE,
        Method::PATCH,
    ];
    let is_alike = |known: &Method| known != method && known.as_str().eq_ignore_ascii_case(method.as_str());
    if STANDARD.iter().any(is_alike) { Err(FramingError::MethodCase) } else { Ok(()) }
}

/// Checks that what says who asks and what is sent says it once. Of two lines some readers take the first (Node, NGINX, Go),
/// some the last, and some join them (CGI): a rule or a token would be checked on one, and used of the other.
///
/// # Errors
/// [`FramingError::Repeated`].
pub fn check_single(headers: &HeaderMap) -> Result<(), FramingError> {
    let is_repeated = |name| headers.get_all(name).iter().nth(1).is_some();
    if SINGLE.iter().any(is_repeated) { Err(FramingError::Repeated) } else { Ok(()) }
}

/// Whether a request that has this field twice is refused ([`check_single`]).
#[must_use]
pub fn is_single(name: &HeaderName) -> bool {
    SINGLE.contains(name)
}

/// Checks a response's head: framing.
///
/// # Errors
/// The first rule it breaks. The connection must not be used on.
pub fn check_response(response: &response::Parts) -> Result<(), FramingError> {
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(FramingError::Switch);
    }
    check_fields(&response.headers, response.version)
}

/// Checks the head of a 101 that was asked for, as [`check_response`] checks others.
///
/// # Errors
/// The first rule it breaks. The connection must not be used on.
pub fn check_switch(response: &response::Parts) -> Result<(), FramingError> {
    check_fields(&response.headers, response.version)
}

/// The authority a request is for, as it was sent: that of the target (`:authority`, absolute form) before `Host`.
///
/// RFC 9112 §3.2.2: with an absolute target the "received Host header field (if any)" is ignored, so on HTTP/1 the two
/// may differ, and what is sent on must carry this one only. On HTTP/2 they may not (RFC 9113 §8.3.1), letter case apart. Empty if an
/// HTTP/1 request names no host and may do so: an empty `Host` (RFC 9112 §3.2), or HTTP/1.0 without one.
///
/// # Errors
/// [`FramingError::HostMissing`], `HostRepeated`, `HostMismatch`, or `HostMalformed`: not `host[:port]`, or with user
/// information, percent-encoding or an IPv6 zone, which readers take differently.
pub fn authority(request: &request::Parts) -> Result<&str, FramingError> {
    let host = host(&request.headers)?;
    let target = request.uri.authority().map(http::uri::Authority::as_str);
    let is_http1 = request.version <= Version::HTTP_11;
    let authority = match (target, host) {
        (Some(target), Some(host)) if !is_http1 && !target.eq_ignore_ascii_case(host) => {
            return Err(FramingError::HostMismatch);
        }
        // RFC 9112 §3.2: a client must send Host in HTTP/1.1, whatever the form of the target.
        (_, None) if request.version == Version::HTTP_11 => return Err(FramingError::HostMissing),
        (Some(target), _) => target,
        (None, Some(host)) => host,
        (None, None) if is_http1 => "",
        (None, None) => return Err(FramingError::HostMissing),
    };
    let is_empty_allowed = is_http1 && target.is_none();
    if is_authority(authority) || (authority.is_empty() && is_empty_allowed) {
        Ok(authority)
    } else {
        Err(FramingError::HostMalformed)
    }
}

fn check_fields(headers: &HeaderMap, version: Version) -> Result<(), FramingError> {
    let has_encoding = check_transfer_encoding(headers, version)?;
    let has_length = check_content_length(headers)?;
    // RFC 9112 §6.3: this may be an attempt at request smuggling or response splitting, and "ought to be handled as an
    // error".
    if has_encoding && has_length { Err(FramingError::LengthAndEncoding) } else { Ok(()) }
}

/// Whether there is a `Content-Length`, and then a single number.
fn check_content_length(headers: &HeaderMap) -> Result<bool, FramingError> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return Ok(false) };
    // RFC 9110 §8.6: 1*DIGIT. Rust's parser takes a sign too. Zeros before a number make it octal to some, and too long for
    // readers of HTTP/2, which would reset the stream as if we had broken a rule.
    let is_spelled_so = length == "0" || !length.as_bytes().starts_with(b"0");
    let is_number = is_spelled_so
        && length.as_bytes().iter().all(u8::is_ascii_digit)
        && length.to_str().is_ok_and(|digits| digits.parse::<u64>().is_ok());
    if is_number && lengths.next().is_none() { Ok(true) } else { Err(FramingError::ContentLength) }
}

/// Whether there is a `Transfer-Encoding`, and then a single `chunked`. Other codings are refused: we would have to
/// decode them, or pass them on to somebody who reads the list differently.
fn check_transfer_encoding(headers: &HeaderMap, version: Version) -> Result<bool, FramingError> {
    let mut encodings = headers.get_all(TRANSFER_ENCODING).iter();
    let Some(encoding) = encodings.next() else { return Ok(false) };
    let is_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked") && encodings.next().is_none();
    if is_chunked && version == Version::HTTP_11 { Ok(true) } else { Err(FramingError::TransferEncoding) }
}

fn host(headers: &HeaderMap) -> Result<Option<&str>, FramingError> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else { return Ok(None) };
    if hosts.next().is_some() {
        return Err(FramingError::HostRepeated);
    }
    host.to_str().map(Some).map_err(|_not_ascii| FramingError::HostMalformed)
}

/// Whether a text is `host` or `host:port` in characters that every reader takes alike: those of RFC 3986 §3.2.2, but no
/// percent-encoding, and no comma, which is also how repeated fields are joined.
fn is_authority(text: &str) -> bool {
    let (host, rest) = match text.strip_prefix('[').and_then(|literal| literal.split_once(']')) {
        Some((address, rest)) => {
            let is_address =
                address.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.'));
            (if is_address { address } else { "" }, rest)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let is_port = match rest.strip_prefix(':') {
        Some(port) => port.bytes().all(|byte| byte.is_ascii_digit()) && port.len() <= 5,
        None => rest.is_empty(),
    };
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=:".contains(&byte);
    !host.is_empty() && host.bytes().all(is_name_byte) && is_port
}

#[cfg(test)]
mod tests;
