//! Cookies: HTTP/2 may cut the field into crumbs that HTTP/1.1 does not know.

use std::time::Duration;

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

/// The value of a request's cookie, without the quotes that RFC 6265 §4.1.1 allows; the first, if there are several.
#[must_use]
pub fn value<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let fields = headers.get_all(COOKIE).into_iter();
    let pairs = fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    let value = pairs.into_iter().find_map(|pair| {
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.trim_ascii_start();
        value.strip_prefix(b"=").map(<[u8]>::trim_ascii)
    })?;
    let inside = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
    Some(inside.unwrap_or(value))
}

/// A `Set-Cookie` for every path of the host, that scripts do not see; `ttl` is how long a browser keeps it, `None` until
/// it is closed. `None` if the name is no cookie's.
#[must_use]
pub fn set(name: &str, value: &str, ttl: Option<Duration>) -> Option<HeaderValue> {
    let age = ttl.map(|ttl| format!("; Max-Age={}", ttl.as_secs())).unwrap_or_default();
    HeaderValue::try_from(format!("{name}={value}; Path=/; HttpOnly{age}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(fields: &[&'static str], name: &str) -> Option<String> {
        let fields = fields.iter().map(|field| (COOKIE, HeaderValue::from_static(field)));
        let mut headers = HeaderMap::new();
        headers.extend(fields);
        value(&headers, name).map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_in_whichever_crumb_it_is() {
        let fields = ["other=1; xstick=2; stick2=3;stick=4; stick=5", "last=6"];
        assert_eq!(found(&fields, "stick").as_deref(), Some("4"));
        assert_eq!(found(&fields, "last").as_deref(), Some("6"));
        assert_eq!(found(&fields, "tick"), None);
        assert_eq!(found(&["stick=\"a b\"; x"], "stick").as_deref(), Some("a b"));
        assert_eq!(found(&["stick="], "stick").as_deref(), Some(""));
        assert_eq!(found(&["stick", ";;=;"], "stick"), None);
        assert_eq!(found(&[], "stick"), None);
    }

    #[test]
    fn a_cookie_says_how_long_it_is_kept() {
        assert_eq!(set("a", "1", None).unwrap(), "a=1; Path=/; HttpOnly");
        let hour = Duration::from_secs(3600);
        assert_eq!(set("a", "1", Some(hour)).unwrap(), "a=1; Path=/; HttpOnly; Max-Age=3600");
    }

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
