//! The request line of HTTP/1 (RFC 9112 §3), as far as it has come.
//!
//! ```text
//! *( CR / LF )  method 1*WS request-target 1*WS "HTTP/" 1*DIGIT "." 1*DIGIT *WS LF        WS = SP / HTAB / VT / FF / CR
//! ```
//! That is as widely as a recipient may read one (§2.2, §3), and not only what a sender may write: servers do read it so, and a
//! request that is not known for one passes everything that judges requests. Only the shape is judged; what is not
//! well-formed is refused when it is read. The target has one of the four forms of §3.2: of the text protocols that also have
//! lines of three words, none puts such a one in the middle and `HTTP/1.x` at the end.

/// Longest method, in bytes: three times what is registered with IANA. It bounds how long a line without spaces is
/// taken for one.
const MAX_METHOD_BYTES: usize = 64;
/// Longest scheme of an absolute URI, in bytes: those that a request line has are `http` and `https`.
const MAX_SCHEME_BYTES: usize = 16;
/// Longest target of CONNECT, in bytes: a name of 255, a colon and a port.
const MAX_AUTHORITY_BYTES: usize = 255 + 1 + 5;
/// Up to the digits of the version, of which any will do: there are servers that take `HTTP/1.10`, and `HTTP/2.0`.
const VERSION: &[u8] = b"HTTP/";

/// What bytes are to a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// They begin with one.
    Whole,
    /// They are the beginning of one.
    Part,
    /// They are not, whatever follows.
    Other,
}

/// What `bytes` are to a request line. One pass over the line.
pub(super) fn shape(bytes: &[u8]) -> Shape {
    let line = begin(bytes);
    let (method, rest) = match first_word(line, is_method_byte) {
        Word::Whole(method, rest) => (method, rest),
        Word::Part => return part_if(line.len() <= MAX_METHOD_BYTES),
        Word::Other => return Shape::Other,
    };
    if method.is_empty() || method.len() > MAX_METHOD_BYTES {
        return Shape::Other;
    }
    let (target, version) = match first_word(rest, is_target_byte) {
        Word::Whole(target, version) => (target, version),
        Word::Part => return part_if(form(method, rest) != Form::None),
        Word::Other => return Shape::Other,
    };
    if form(method, target) != Form::Whole {
        return Shape::Other;
    }
    ending(version)
}

/// Whether `bytes`, which are the beginning of a request line, are so clearly one that its end need not be seen: the
/// method is in capitals and what follows can be a target; or there were empty lines and no whole method behind them, for
/// servers skip as many as there are.
pub(super) fn is_clear_start(bytes: &[u8]) -> bool {
    let line = begin(bytes);
    match first_word(line, is_method_byte) {
        Word::Whole(method, target) => {
            let is_in_capitals = method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
            is_in_capitals && form(method, target) != Form::None
        }
        Word::Part => line.len() < bytes.len(),
        Word::Other => false,
    }
}

/// What is left behind empty lines.
fn begin(bytes: &[u8]) -> &[u8] {
    skip(bytes, |byte| matches!(byte, b'\r' | b'\n'))
}

/// What is left behind all such bytes.
fn skip(bytes: &[u8], is_skipped: impl Fn(u8) -> bool) -> &[u8] {
    let end = bytes.iter().position(|byte| !is_skipped(*byte)).unwrap_or(bytes.len());
    bytes.get(end..).unwrap_or_default()
}

/// What a line begins with.
enum Word<'a> {
    /// A word, and what is behind it and its white space.
    Whole(&'a [u8], &'a [u8]),
    /// A word that may go on.
    Part,
    /// Something else.
    Other,
}

fn first_word(line: &[u8], is_of_it: impl Fn(u8) -> bool) -> Word<'_> {
    let Some(end) = line.iter().position(|byte| !is_of_it(*byte)) else { return Word::Part };
    match line.split_at_checked(end) {
        Some((word, rest @ [first, ..])) if is_space(*first) => Word::Whole(word, skip(rest, is_space)),
        _ => Word::Other,
    }
}

/// The last word, and the end of the line.
fn ending(version: &[u8]) -> Shape {
    let Some(major) = version.strip_prefix(VERSION) else { return part_if(VERSION.starts_with(version)) };
    let minor = match skip(major, |byte| byte.is_ascii_digit()) {
        [] => return Shape::Part,
        [b'.', minor @ ..] if major.first() != Some(&b'.') => minor,
        _ => return Shape::Other,
    };
    let behind = skip(minor, |byte| byte.is_ascii_digit());
    match skip(behind, is_space) {
        [] if minor.is_empty() || minor.len() > behind.len() => Shape::Part,
        [b'\n', ..] if minor.len() > behind.len() => Shape::Whole,
        _ => Shape::Other,
    }
}

/// What bytes are to the forms of a request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// They are of one.
    Whole,
    /// They may become of one.
    Part,
    /// They are of none.
    None,
}

/// RFC 9112 §3.2: `/path`, `*` (and what some servers take for it), and `scheme://…`; of CONNECT only, `host:port`. Constant time.
fn form(method: &[u8], target: &[u8]) -> Form {
    match target {
        [] => Form::Part,
        [b'/' | b'*', ..] => Form::Whole,
        _ if method == b"CONNECT" => authority(target),
        _ => absolute(target),
    }
}

/// A scheme and `://` (RFC 3986 §3.1).
fn absolute(target: &[u8]) -> Form {
    let is_scheme_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let length = target.iter().take(MAX_SCHEME_BYTES + 1).take_while(|byte| is_scheme_byte(byte)).count();
    let behind = target.get(length..).unwrap_or_default();
    let is_scheme = target.first().is_some_and(u8::is_ascii_alphabetic) && length <= MAX_SCHEME_BYTES;
    match (is_scheme, behind.starts_with(b"://")) {
        (true, true) => Form::Whole,
        (true, false) if b"://".starts_with(behind) => Form::Part,
        _ => Form::None,
    }
}

/// Bytes of a host, and a colon among them (RFC 3986 §3.2).
fn authority(target: &[u8]) -> Form {
    let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    match (target.len() <= MAX_AUTHORITY_BYTES && target.iter().all(is_of_it), target.contains(&b':')) {
        (true, true) => Form::Whole,
        (true, false) => Form::Part,
        (false, _) => Form::None,
    }
}

/// RFC 9110 §5.6.2 `tchar`.
fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~')
}

/// White space within a line (RFC 9112 §3).
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// Everything but controls and the space: clients send more than RFC 3986 has, and servers take it.
fn is_target_byte(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

fn part_if(is_part: bool) -> Shape {
    if is_part { Shape::Part } else { Shape::Other }
}
