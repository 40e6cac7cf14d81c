//! Framing: is this head one message, for one host?
//!
//! hyper reads and re-frames every message, so bytes cannot be smuggled past it; but where hyper repairs, the next
//! reader might repair differently. What could be read in two ways is refused here instead (RFC 9112 §11.2).
//!
//! What is ruled out below us is not checked again: `HeaderValue` holds no control character but the tab (a test pins
//! it), and the `h2` crate resets streams whose heads have connection-specific fields.

use http::{
    HeaderMap, Method, StatusCode, Version,
    header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING},
    request, response,
};

/// What could be read in two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FramingError {
    /// `Content-Length` is there twice, or not a plain number.
    #[error("content-length is repeated or not a number")]
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
    // RFC 9110 §8.6: 1*DIGIT. Rust's parser takes a sign too.
    let is_number = length.as_bytes().iter().all(u8::is_ascii_digit)
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
