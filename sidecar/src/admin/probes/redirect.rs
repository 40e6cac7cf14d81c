//! Where a redirect leads, and whether a probe follows it: as the kubelet, on the same host only.

use std::net::IpAddr;

use http::{HeaderValue, Uri, uri::PathAndQuery};

/// What is asked next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) is_tls: bool,
    /// As URLs have it, without a port and without brackets.
    pub(super) host: IpAddr,
    pub(super) port: u16,
    pub(super) path: String,
}

impl Place {
    /// `host` or `host:port`, as the request's `Host` has it where the probe does not say.
    pub(super) fn authority(&self) -> String {
        std::net::SocketAddr::new(self.host, self.port).to_string()
    }
}

/// What a redirect is for a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// Followed. Whether it named a host of its own.
    Here(Place, bool),
    /// To somebody else: taken for an answer.
    Elsewhere,
    /// No URL.
    Unreadable,
}

/// What `location` means as seen from `from` (RFC 3986 §5.2, as far as it leads to a place that is asked).
pub(super) fn follow(from: &Place, location: &HeaderValue) -> Redirect {
    let Ok(text) = location.to_str() else { return Redirect::Unreadable };
    let text = text.split('#').next().unwrap_or_default();
    let absolute = if text.starts_with("//") {
        let scheme = if from.is_tls { "https:" } else { "http:" };
        Some([scheme, text].concat())
    } else {
        text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)).then(|| text.to_owned())
    };
    let Some(absolute) = absolute else {
        return match resolve(&from.path, text) {
            Some(path) => Redirect::Here(Place { path, ..from.clone() }, false),
            None => Redirect::Unreadable,
        };
    };
    let Ok(uri) = absolute.parse::<Uri>() else { return Redirect::Unreadable };
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => return Redirect::Elsewhere,
    };
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    if host.parse() != Ok(from.host) {
        return Redirect::Elsewhere;
    }
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str).to_owned();
    Redirect::Here(Place { is_tls, host: from.host, port, path }, true)
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// A path, or what is relative to one.
fn resolve(from: &str, text: &str) -> Option<String> {
    let path = from.split('?').next().unwrap_or_default();
    let joined = match text.bytes().next() {
        None => return Some(from.to_owned()),
        Some(b'/') => text.to_owned(),
        Some(b'?') => [path, text].concat(),
        Some(_) => [path.rsplit_once('/').map_or("", |(folder, _)| folder), "/", text].concat(),
    };
    let (path, query) =
        joined.split_once('?').map_or((joined.as_str(), None), |(path, query)| (path, Some(query)));
    let mut segments: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        match part {
            "." | ".." => {
                if part == ".." {
                    segments.pop();
                }
                if parts.peek().is_none() {
                    segments.push("");
                }
            }
            part => segments.push(part),
        }
    }
    let mut whole = ["/", &segments.join("/")].concat();
    if let Some(query) = query {
        whole = [&whole, "?", query].concat();
    }
    whole.parse::<PathAndQuery>().is_ok().then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from() -> Place {
        Place { is_tls: false, host: "10.1.2.3".parse().unwrap(), port: 8080, path: "/a/b?c=d".to_owned() }
    }

    fn followed(location: &str) -> Redirect {
        follow(&from(), &HeaderValue::from_str(location).unwrap())
    }

    #[test]
    fn redirects_stay_on_the_host() {
        let here = |path: &str| Redirect::Here(Place { path: path.to_owned(), ..from() }, false);
        for (location, path) in [
            ("/x", "/x"),
            ("/x?y=1#z", "/x?y=1"),
            ("x", "/a/x"),
            ("../x", "/x"),
            ("../../../x/./y", "/x/y"),
            ("?e", "/a/b?e"),
            ("", "/a/b?c=d"),
            (".", "/a/"),
            ("/x?to=http://elsewhere/", "/x?to=http://elsewhere/"),
        ] {
            assert_eq!(followed(location), here(path), "{location}");
        }
        let there = |is_tls, port, path: &str| {
            Redirect::Here(Place { is_tls, port, path: path.to_owned(), ..from() }, true)
        };
        assert_eq!(followed("http://10.1.2.3:9090/x"), there(false, 9090, "/x"));
        assert_eq!(followed("https://10.1.2.3"), there(true, 443, "/"));
        assert_eq!(followed("//10.1.2.3/x"), there(false, 80, "/x"));
        for location in [
            "http://10.1.2.4/",
            "https://example.com/x",
            "//example.com",
            "ftp://10.1.2.3/",
            "http://10.1.2.3.example/",
        ] {
            assert_eq!(followed(location), Redirect::Elsewhere, "{location}");
        }
        assert_eq!(followed("http://[::/"), Redirect::Unreadable);
    }

    #[test]
    fn a_host_of_ipv6_has_brackets() {
        let place = Place { host: "::1".parse().unwrap(), ..from() };
        assert_eq!(place.authority(), "[::1]:8080");
        let location = HeaderValue::from_static("http://[::1]:1/");
        let expected = Place { port: 1, path: "/".to_owned(), ..place.clone() };
        assert_eq!(follow(&place, &location), Redirect::Here(expected, true));
    }
}
