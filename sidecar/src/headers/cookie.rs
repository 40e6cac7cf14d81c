//! Cookies: HTTP/2 may cut the field into crumbs that HTTP/1.1 does not know.

use http::{HeaderMap, HeaderValue, header::COOKIE};

/// Joins several `Cookie` fields into one. For a request that came as HTTP/2 and goes on as HTTP/1.1.
///
/// RFC 9113 §8.2.3: they "MUST be concatenated into a single octet string using the two-octet delimiter of 0x3b, 0x20
/// (the ASCII string "; ") before being passed into a non-HTTP/2 context". No cost if there are fewer than two.
pub fn join(headers: &mut HeaderMap) {
    if headers.get_all(COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Field values joined by "; " are a field value again: an error cannot happen, and would leave the crumbs.
    if let Ok(cookie) = HeaderValue::try_from(crumbs.join(b"; ".as_slice())) {
        headers.insert(COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crumbs_become_one_field_in_their_order() {
        let mut headers = HeaderMap::new();
        for crumb in ["a=b", "c=d", "e=f"] {
            headers.append(COOKIE, HeaderValue::from_static(crumb));
        }
        join(&mut headers);
        assert_eq!(headers.get_all(COOKIE).iter().collect::<Vec<_>>(), ["a=b; c=d; e=f"]);
    }

    #[test]
    fn a_single_cookie_stays_as_it_is() {
        let mut headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("a=b; c=d"))]);
        let before = headers.clone();
        join(&mut headers);
        assert_eq!(headers, before);
    }
}
