//! The request line of HTTP/1 (RFC 9112 §3), as far as it has come.
//!
//! ```text
//! *4( [CR] LF )  method SP request-target SP "HTTP/1." DIGIT [CR] LF
//! ```
//! Only the shape is judged, not whether a server would take it. The target has one of the four forms of §3.2: of the
//! text protocols that also have lines of three words, none puts such a one in the middle and `HTTP/1.x` at the end.

/// Empty lines taken before a request line. RFC 9112 §2.2 asks for at least one; clients that end a body with a line
/// too many send one or two.
const MAX_EMPTY_LINES: usize = 4;
/// Longest method, in bytes: three times what is registered with IANA. It bounds how long a line without spaces is
/// taken for one.
const MAX_METHOD_BYTES: usize = 64;
/// Longest scheme of an absolute URI, in bytes: those that a request line has are `http` and `https`.
const MAX_SCHEME_BYTES: usize = 16;
/// Longest target of CONNECT, in bytes: a name of 255, a colon and a port.
const MAX_AUTHORITY_BYTES: usize = 255 + 1 + 5;
/// Up to the digit of the minor version, of which any will do (§2.3).
const VERSION: &[u8] = b"HTTP/1.";

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
    let Some(line) = skip_empty_lines(bytes) else { return Shape::Other };
    let (method, rest) = match first_word(line, is_method_byte) {
        Word::Whole(method, rest) => (method, rest),
        Word::Part => return part_if(line.len() <= MAX_METHOD_BYTES),
        // The return of an empty line whose feed is still to come.
        Word::Other => return part_if(line == b"\r"),
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
/// method is in capitals and the target is a path or an absolute URI.
pub(super) fn is_clear_start(bytes: &[u8]) -> bool {
    let line = skip_empty_lines(bytes).unwrap_or_default();
    let Word::Whole(method, target) = first_word(line, is_method_byte) else { return false };
    let is_in_capitals = method.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'-');
    is_in_capitals
        && (target.starts_with(b"/") || target.starts_with(b"* ") || absolute(target) == Form::Whole)
}

/// What is left behind leading empty lines; `None` if they are too many.
fn skip_empty_lines(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    for _ in 0..=MAX_EMPTY_LINES {
        match rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")) {
            Some(behind) => rest = behind,
            None => return Some(rest),
        }
    }
    None
}

/// What a line begins with.
enum Word<'a> {
    /// A word and its space, and what is behind them.
    Whole(&'a [u8], &'a [u8]),
    /// A word that may go on.
    Part,
    /// Something else.
    Other,
}

fn first_word(line: &[u8], is_of_it: impl Fn(u8) -> bool) -> Word<'_> {
    let Some(end) = line.iter().position(|byte| !is_of_it(*byte)) else { return Word::Part };
    match line.split_at_checked(end) {
        Some((word, [b' ', rest @ ..])) => Word::Whole(word, rest),
        _ => Word::Other,
    }
}

/// The last word, and the end of the line.
fn ending(version: &[u8]) -> Shape {
    let Some(behind) = version.strip_prefix(VERSION) else { return part_if(VERSION.starts_with(version)) };
    match behind {
        [] => Shape::Part,
        [digit, rest @ ..] if digit.is_ascii_digit() => match rest {
            [b'\n', ..] | [b'\r', b'\n', ..] => Shape::Whole,
            [] | [b'\r'] => Shape::Part,
            _ => Shape::Other,
        },
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

/// RFC 9112 §3.2: `/path`, `*`, and `scheme://…`; of CONNECT only, `host:port`. Constant time.
fn form(method: &[u8], target: &[u8]) -> Form {
    match target {
        [] => Form::Part,
        [b'/', ..] | [b'*'] => Form::Whole,
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

/// Everything but controls and the space: clients send more than RFC 3986 has, and servers take it.
fn is_target_byte(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f
}

fn part_if(is_part: bool) -> Shape {
    if is_part { Shape::Part } else { Shape::Other }
}
