//! Paths in one spelling.

use std::borrow::Cow;

/// How much is at stake with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// No rule about who may call looks at it: what only some readers take for something else passes as it is.
    Plain,
    /// Some rule does: what is not clear to every reader is refused, or made clear.
    Judged,
}

/// Why a path has no one spelling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ambiguous {
    /// It does not begin with `/`.
    #[error("a path that does not begin with /")]
    Rootless,
    /// `%` without two hexadecimal digits behind it.
    #[error("a % in the path that begins no escape")]
    Escape,
    /// A control character, NUL among them, plain or escaped.
    #[error("a control character in the path")]
    Control,
    /// A backslash, plain or escaped: some readers take it for a slash.
    #[error("a backslash in the path")]
    Backslash,
    /// Bytes that are no UTF-8: some readers make other characters of them.
    #[error("a path that is not UTF-8")]
    Encoding,
    /// `..` that leads above the root.
    #[error("a path that leads above its root")]
    AboveRoot,
    /// `..` or `.` with parameters, or beside an empty segment or an escaped slash: where it leads depends on the reader.
    #[error("a path with dots whose meaning depends on the reader")]
    Dots,
    /// An escaped slash in a path that rules look at.
    #[error("an escaped slash in a path that rules look at")]
    EncodedSlash,
    /// `;` in a path that rules look at: some readers cut a segment there.
    #[error("a ; in a path that rules look at")]
    Parameters,
    /// An escaped escape in a path that rules look at: some readers decode twice.
    #[error("an escaped escape in a path that rules look at")]
    TwiceEscaped,
}

/// The one spelling of a request's path (the target's, without the query).
///
/// Escapes of unreserved characters are decoded, other escapes have upper-case digits, characters that a URI cannot have are
/// escaped (RFC 3986 §6.2.2.1, §6.2.2.2), and `.` and `..` are resolved (§6.2.2.3). With [`Care::Judged`] empty segments go,
/// too: `//` is `/`. Reserved characters stay as they are sent, escaped or not. `*` (of OPTIONS) is itself. Borrows if
/// `text` is spelled so already; one pass then.
///
/// # Errors
/// What has no spelling that every reader would take alike; with [`Care::Judged`], escaped slashes, escaped escapes and `;`
/// as well.
pub fn path(text: &str, care: Care) -> Result<Cow<'_, str>, Ambiguous> {
    if text == "*" {
        return Ok(Cow::Borrowed(text));
    }
    if !text.starts_with('/') {
        return Err(Ambiguous::Rootless);
    }
    if is_spelled_so(text.as_bytes(), care) {
        return Ok(Cow::Borrowed(text));
    }
    let spelled = escapes(text.as_bytes())?;
    // To who cuts at `;`, a segment that begins with it is empty.
    let is_unclear =
        care == Care::Plain && ["//", "%2F", "/;", "/%3B"].iter().any(|part| spelled.contains(part));
    if care == Care::Judged {
        if spelled.contains("%2F") {
            return Err(Ambiguous::EncodedSlash);
        }
        if spelled.contains(';') || spelled.contains("%3B") {
            return Err(Ambiguous::Parameters);
        }
        let is_escape = |behind: &str| behind.as_bytes().get(..2).is_some_and(|digits| hex(digits).is_some());
        if spelled.split("%25").skip(1).any(is_escape) {
            return Err(Ambiguous::TwiceEscaped);
        }
    }
    segments(&spelled, care, is_unclear).map(Cow::Owned)
}

/// Whether there is nothing to do. It may say no where there is nothing either.
fn is_spelled_so(bytes: &[u8], care: Care) -> bool {
    let is_plain = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || b"/-._~!$&'()*+,=:@".contains(byte)
            || (care == Care::Plain && *byte == b';')
    };
    // A segment that begins with a dot may be one of dots; an empty one may have to go, or make dots unclear.
    bytes.iter().all(is_plain)
        && !bytes.windows(2).any(|two| two == b"/." || (care == Care::Judged && two == b"//"))
}

/// Every escape, and every character that needs one, in its one spelling.
fn escapes(bytes: &[u8]) -> Result<String, Ambiguous> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut out = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let (byte, is_escaped) = if first == b'%' {
            let (digits, after) = after.split_at_checked(2).ok_or(Ambiguous::Escape)?;
            rest = after;
            (hex(digits).ok_or(Ambiguous::Escape)?, true)
        } else {
            rest = after;
            (first, false)
        };
        decoded.push(byte);
        match byte {
            0..=0x1f | 0x7f => return Err(Ambiguous::Control),
            b'\\' => return Err(Ambiguous::Backslash),
            _ if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => out.push(char::from(byte)),
            _ if !is_escaped && b"/!$&'()*+,;=:@".contains(&byte) => out.push(char::from(byte)),
            _ => {
                const DIGITS: [char; 16] =
                    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
                out.push('%');
                out.extend([byte >> 4, byte & 15].iter().filter_map(|digit| DIGITS.get(usize::from(*digit))));
            }
        }
    }
    std::str::from_utf8(&decoded).map(|_| out).map_err(|_| Ambiguous::Encoding)
}

/// The value of two hexadecimal digits. (`from_str_radix` takes a sign, too.)
fn hex(digits: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let [high, low] = digits else { return None };
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// Resolves `.` and `..`. `is_unclear`: some readers see other segments than we do, so there must be neither.
fn segments(path: &str, care: Care, is_unclear: bool) -> Result<String, Ambiguous> {
    let mut kept: Vec<&str> = Vec::new();
    let mut is_folder = false;
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        is_folder = false;
        let is_dots = segment.split("%2F").any(|part| matches!(name(part), "." | ".."));
        if is_dots && (is_unclear || !matches!(segment, "." | "..")) {
            return Err(Ambiguous::Dots);
        }
        match segment {
            "." => is_folder = true,
            ".." => {
                kept.pop().ok_or(Ambiguous::AboveRoot)?;
                is_folder = true;
            }
            "" if care == Care::Judged => is_folder = true,
            _ => kept.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in &kept {
        out.push('/');
        out.push_str(segment);
    }
    if is_folder || kept.is_empty() {
        out.push('/');
    }
    Ok(out)
}

/// A part of a segment as readers see it who cut at `;`, decode before they look for the query, or drop spaces.
fn name(part: &str) -> &str {
    let cut = ["%3B", "%3F", "%23"].iter().filter_map(|escape| part.find(escape)).chain(part.find(';')).min();
    let name = cut.and_then(|end| part.get(..end)).unwrap_or(part);
    name.trim_start_matches("%20").trim_end_matches("%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_path_has_one_spelling() {
        for (sent, plain, judged) in [
            ("/", Ok("/"), Ok("/")),
            ("*", Ok("*"), Ok("*")),
            ("/a/b", Ok("/a/b"), Ok("/a/b")),
            ("/%61/b%2dc", Ok("/a/b-c"), Ok("/a/b-c")),
            ("/a%3ab", Ok("/a%3Ab"), Ok("/a%3Ab")),
            ("/\u{e4}", Ok("/%C3%A4"), Ok("/%C3%A4")),
            ("/a/./b/../c", Ok("/a/c"), Ok("/a/c")),
            ("/a/%2e%2E/c/.", Ok("/c/"), Ok("/c/")),
            ("/a/..", Ok("/"), Ok("/")),
            ("/.well-known", Ok("/.well-known"), Ok("/.well-known")),
            ("/a//b", Ok("/a//b"), Ok("/a/b")),
            ("//", Ok("//"), Ok("/")),
            ("/a//../b", Err(Ambiguous::Dots), Ok("/b")),
            ("/a%2fb", Ok("/a%2Fb"), Err(Ambiguous::EncodedSlash)),
            ("/a;x=1/b", Ok("/a;x=1/b"), Err(Ambiguous::Parameters)),
            ("/a/..;/b", Err(Ambiguous::Dots), Err(Ambiguous::Parameters)),
            ("/a%2f..%2fb", Err(Ambiguous::Dots), Err(Ambiguous::EncodedSlash)),
            ("/a%2f../b", Err(Ambiguous::Dots), Err(Ambiguous::EncodedSlash)),
            ("/a/;/../b", Err(Ambiguous::Dots), Err(Ambiguous::Parameters)),
            ("/a/..%3bx/b", Err(Ambiguous::Dots), Err(Ambiguous::Parameters)),
            ("/a/..%3fx/b", Err(Ambiguous::Dots), Err(Ambiguous::Dots)),
            ("/a/..%23/b", Err(Ambiguous::Dots), Err(Ambiguous::Dots)),
            ("/a/..%20/b", Err(Ambiguous::Dots), Err(Ambiguous::Dots)),
            ("/a%3fb/c%20", Ok("/a%3Fb/c%20"), Ok("/a%3Fb/c%20")),
            ("/a/%252e%252e/b", Ok("/a/%252e%252e/b"), Err(Ambiguous::TwiceEscaped)),
            ("/a/%25%32e/b", Ok("/a/%252e/b"), Err(Ambiguous::TwiceEscaped)),
            ("/100%25", Ok("/100%25"), Ok("/100%25")),
            ("/..", Err(Ambiguous::AboveRoot), Err(Ambiguous::AboveRoot)),
            ("/a%", Err(Ambiguous::Escape), Err(Ambiguous::Escape)),
            ("/a%+1", Err(Ambiguous::Escape), Err(Ambiguous::Escape)),
            ("/a%00", Err(Ambiguous::Control), Err(Ambiguous::Control)),
            ("/a%5cb", Err(Ambiguous::Backslash), Err(Ambiguous::Backslash)),
            ("/%c0%af", Err(Ambiguous::Encoding), Err(Ambiguous::Encoding)),
            ("a", Err(Ambiguous::Rootless), Err(Ambiguous::Rootless)),
            ("", Err(Ambiguous::Rootless), Err(Ambiguous::Rootless)),
        ] {
            assert_eq!(path(sent, Care::Plain).as_deref(), plain.as_deref(), "{sent}");
            assert_eq!(path(sent, Care::Judged).as_deref(), judged.as_deref(), "{sent}, judged");
        }
    }
}
