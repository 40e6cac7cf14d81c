//! Where a request is sent on to, or its caller, by a route that says so.
//!
//! Paths are changed in their canonical form, and what comes out is in it as well: whoever judges the request behind us
//! reads one text in one way, as we do.

use std::borrow::Cow;

use http::{HeaderValue, Uri};

use crate::{
    canonical::{self, Ambiguous, Care},
    model::edits::{PathEdit, Redirect},
};

/// A path cannot be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unchangeable {
    /// It has no one spelling.
    #[error(transparent)]
    Ambiguous(#[from] Ambiguous),
    /// In its one spelling it is not below the prefix by which it was found.
    #[error("a path that is not below the route's prefix when its dots and escapes are resolved")]
    Outside,
    /// It makes no field's value.
    #[error("a target that cannot be written into a field")]
    Target,
}

/// What a caller asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Whom: a canonical authority that is not empty.
    pub authority: &'a str,
    /// What.
    pub uri: &'a Uri,
    /// The prefix of the path by which the route was found, without a `/` at its end; `None`: by something else.
    pub prefix: Option<&'a str>,
}

/// The target (path and query) that a request goes on with. `*` (of OPTIONS) is no path, and stays.
///
/// # Errors
/// [`Unchangeable`]: its path cannot be changed without a doubt.
pub fn target(edit: &PathEdit, uri: &Uri, prefix: Option<&str>) -> Result<String, Unchangeable> {
    Ok(with_query(path(Some(edit), uri.path(), prefix)?, uri))
}

/// Where a caller is sent: the whole URL, so that no reader takes the beginning of a path for a host.
///
/// # Errors
/// As [`target`].
pub fn location(redirect: &Redirect, asked: Asked<'_>) -> Result<HeaderValue, Unchangeable> {
    let path = match path(redirect.path.as_ref(), asked.uri.path(), asked.prefix)? {
        // The whole server is meant (RFC 9110 §9.3.7).
        path if path == "*" => Cow::Borrowed("/"),
        path => path,
    };
    let asked_scheme = if asked.uri.scheme_str() == Some("https") { "https" } else { "http" };
    let scheme = redirect.scheme.unwrap_or(asked_scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| canonical::host(asked.authority));
    let is_elsewhere = redirect.host.is_some() || redirect.scheme.is_some();
    let asked_port = canonical::port(asked.authority).filter(|_| !is_elsewhere);
    let well_known = if scheme == "https" { 443 } else { 80 };
    let port = redirect.port.or(asked_port).filter(|port| *port != well_known);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let location = [scheme, "://", host, &port, &with_query(path, asked.uri)].concat();
    HeaderValue::try_from(location).map_err(|_| Unchangeable::Target)
}

/// The path after a change, in canonical form.
fn path<'a>(
    edit: Option<&PathEdit>,
    sent: &'a str,
    prefix: Option<&str>,
) -> Result<Cow<'a, str>, Unchangeable> {
    let asked = canonical::path(sent, Care::Plain)?;
    if asked == "*" {
        return Ok(asked);
    }
    let changed = match edit {
        None => return Ok(asked),
        Some(PathEdit::Whole(path)) => path.to_string(),
        Some(PathEdit::Prefix(by)) => {
            let rest = asked.strip_prefix(prefix.unwrap_or_default());
            let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
            match [by, rest.ok_or(Unchangeable::Outside)?].concat() {
                path if path.is_empty() => "/".to_owned(),
                path => path,
            }
        }
    };
    Ok(Cow::Owned(canonical::path(&changed, Care::Plain)?.into_owned()))
}

fn with_query(path: Cow<'_, str>, uri: &Uri) -> String {
    match uri.query() {
        Some(query) => [&path, "?", query].concat(),
        None => path.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use proptest::prelude::*;

    use super::*;

    fn prefix(by: &str) -> PathEdit {
        PathEdit::Prefix(by.into())
    }

    fn changed(edit: &PathEdit, uri: &str, by: Option<&str>) -> Result<String, Unchangeable> {
        target(edit, &uri.parse().unwrap(), by)
    }

    #[test]
    fn a_prefix_is_replaced_on_a_segments_border_as_the_gateway_api_has_it() {
        for (by, new, sent, expected) in [
            ("/foo", "/xyz", "/foo/bar", "/xyz/bar"),
            ("/foo", "/xyz", "/foo/", "/xyz/"),
            ("/foo", "/xyz", "/foo", "/xyz"),
            ("/foo", "", "/foo/bar", "/bar"),
            ("/foo", "", "/foo/", "/"),
            ("/foo", "", "/foo", "/"),
            ("", "/v2", "/", "/v2/"),
            ("", "/v2", "/a?b=c", "/v2/a?b=c"),
            ("/foo", "/xyz", "/foo?a=/foo", "/xyz?a=/foo"),
        ] {
            assert_eq!(changed(&prefix(new), sent, Some(by)).unwrap(), expected, "{by} {new} {sent}");
        }
    }

    #[test]
    fn a_path_is_changed_as_it_is_read_and_not_as_it_is_spelled() {
        let edit = prefix("/v2");
        assert_eq!(changed(&edit, "/%61pi/./x", Some("/api")).unwrap(), "/v2/x");
        // As it was sent it begins with the prefix, and means something else.
        assert_eq!(changed(&edit, "/api/../admin", Some("/api")), Err(Unchangeable::Outside));
        assert_eq!(changed(&edit, "/apis", Some("/api")), Err(Unchangeable::Outside));
        let ambiguous = changed(&edit, "/api/..%2fadmin", Some("/api"));
        assert_eq!(ambiguous, Err(Unchangeable::Ambiguous(Ambiguous::Dots)));
    }

    #[test]
    fn a_whole_path_takes_the_place_of_any_and_the_query_stays() {
        let edit = PathEdit::Whole("/one".into());
        assert_eq!(changed(&edit, "/a/b?c=d", None).unwrap(), "/one?c=d");
        assert_eq!(changed(&edit, "*", None).unwrap(), "*");
    }

    fn sent_to(redirect: &Redirect, authority: &str, uri: &str) -> String {
        let uri = uri.parse().unwrap();
        let location = location(redirect, Asked { authority, uri: &uri, prefix: Some("/a") }).unwrap();
        location.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_location_is_the_asked_one_but_for_what_the_redirect_says() {
        let none = Redirect { scheme: None, host: None, port: None, path: None, status: StatusCode::FOUND };
        let https = Redirect { scheme: Some("https"), ..none.clone() };
        let host = Redirect { host: Some("b.example".into()), ..none.clone() };
        let port = Redirect { port: Some(8443), ..https.clone() };
        let path = Redirect { path: Some(prefix("/b")), ..none.clone() };
        for (redirect, authority, uri, expected) in [
            (&https, "a.example", "/a/x?q=1", "https://a.example/a/x?q=1"),
            (&https, "a.example:8080", "/a", "https://a.example/a"),
            (&host, "a.example:8080", "/a", "http://b.example/a"),
            (&port, "a.example:8080", "/a", "https://a.example:8443/a"),
            (&Redirect { port: Some(443), ..https.clone() }, "a.example", "/a", "https://a.example/a"),
            (&Redirect { port: Some(81), ..none.clone() }, "a.example", "/a", "http://a.example:81/a"),
            (&path, "a.example:8080", "/a/c?q", "http://a.example:8080/b/c?q"),
            (&path, "[2001:db8::1]:81", "/a", "http://[2001:db8::1]:81/b"),
            (&path, "a.example", "https://a.example/a", "https://a.example/b"),
            (&path, "a.example", "*", "http://a.example/"),
        ] {
            assert_eq!(sent_to(redirect, authority, uri), expected);
        }
    }

    #[test]
    fn a_path_cannot_lead_to_another_host() {
        let strip = Redirect {
            scheme: None,
            host: None,
            port: None,
            path: Some(prefix("")),
            status: StatusCode::FOUND,
        };
        assert_eq!(sent_to(&strip, "a.example", "/a//evil.example"), "http://a.example//evil.example");
    }

    proptest! {
        #[test]
        fn what_comes_out_is_canonical_and_below_the_new_prefix(sent in "(/[a-z.%2f;]{0,6}){0,5}", by in "(/[a-z]{1,2}){0,2}") {
            let Ok(uri) = format!("/p{sent}").parse::<Uri>() else { return Ok(()) };
            if let Ok(path) = target(&prefix(&by), &uri, Some("/p")) {
                let spelled = canonical::path(&path, Care::Plain);
                prop_assert_eq!(spelled.as_deref(), Ok(&*path));
                let rest = path.strip_prefix(&*by);
                prop_assert!(rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')), "{}", path);
            }
        }
    }
}
