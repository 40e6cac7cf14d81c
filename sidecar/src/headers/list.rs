//! Fields that are lists: of several lines, and with quoted texts in their elements.

use http::{HeaderMap, HeaderName};

/// The elements of a list, from all of its lines, without the empty ones. A comma between double quotes separates nothing, and
/// a backslash there takes the next byte as it is (RFC 9110 §5.6.1, §5.6.4). `None`: a quoted text has no end in its line, and
/// what is written behind it would become a part of it.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<Vec<&'a [u8]>> {
    let mut elements = Vec::new();
    for line in headers.get_all(name) {
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let end = end(rest)?;
            let (element, after) = rest.split_at_checked(end)?;
            elements.push(element.trim_ascii());
            rest = after.get(1..).unwrap_or_default();
        }
    }
    elements.retain(|element| !element.is_empty());
    Some(elements)
}

/// Where the first element ends: at its comma, or with the line.
fn end(line: &[u8]) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, byte) in line.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    (!is_quoted).then_some(line.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headers::fixture::headers;

    fn read(lines: &[&str]) -> Option<Vec<String>> {
        let lines: Vec<_> = lines.iter().map(|line| ("forwarded", *line)).collect();
        let map = headers(&lines);
        let found = elements(&map, &HeaderName::from_static("forwarded"))?;
        Some(found.into_iter().map(|element| String::from_utf8(element.to_vec()).unwrap()).collect())
    }

    #[test]
    fn a_comma_between_quotes_separates_nothing() {
        for (lines, expected) in [
            (vec!["for=a, for=b"], vec!["for=a", "for=b"]),
            (vec!["for=\"a, b\";x=1,for=c"], vec!["for=\"a, b\";x=1", "for=c"]),
            (vec!["for=\"a\\\", b\"", " ,, for=c ,"], vec!["for=\"a\\\", b\"", "for=c"]),
            (vec!["a\\,b"], vec!["a\\", "b"]),
            (vec![""], vec![]),
        ] {
            assert_eq!(read(&lines).unwrap(), expected, "{lines:?}");
        }
    }

    #[test]
    fn a_quoted_text_without_an_end_spoils_the_list() {
        for lines in [vec!["for=\"a"], vec!["for=\"a, for=b"], vec!["for=\"a\\\""], vec!["for=\"a", "b\""]] {
            assert_eq!(read(&lines), None, "{lines:?}");
        }
    }
}
