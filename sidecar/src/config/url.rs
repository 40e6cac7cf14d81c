//! Where a collector is, or a bundle endpoint, as a URL.

use std::net::Ipv6Addr;

use http::Uri;

use super::value::{is_host, is_port};
use crate::model::{
    federation::BundleUrl,
    telemetry::{Endpoint, ExportProtocol},
};

/// Longest URL, in bytes.
const MAX_BYTES: usize = 2048;

/// A URL that a collector may have. What it says is never repeated in a message: it may hold a password.
///
/// # Errors
/// What is wrong with it, in words that follow "is".
pub fn endpoint(text: &str) -> Result<Endpoint, &'static str> {
    let uri = parse(text)?;
    let is_tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) | None => return Err("not a URL with http:// or https://"),
    };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("a URL with a user or password, which belong into headers");
    }
    if uri.query().is_some() {
        return Err("a URL with a query");
    }
    let (host, port) = server(&uri, if is_tls { 443 } else { 80 })?;
    let path = if text.ends_with(uri.path()) || uri.path() != "/" { uri.path() } else { "" };
    Ok(Endpoint { is_tls, host, port, path: path.into() })
}

/// The URL of a SPIFFE bundle endpoint (SPIFFE Federation §5.2.1.1): `https://`, without a user.
///
/// # Errors
/// As [`endpoint`].
pub(super) fn bundle_endpoint(text: &str) -> Result<BundleUrl, &'static str> {
    let uri = parse(text)?;
    if uri.scheme_str() != Some("https") {
        return Err("not a URL with https://");
    }
    let (host, port) = server(&uri, 443)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(BundleUrl { host, port, path: path.into() })
}

fn parse(text: &str) -> Result<Uri, &'static str> {
    if text.len() > MAX_BYTES {
        return Err("longer than 2048 bytes");
    }
    if text.contains('#') {
        return Err("a URL with a fragment");
    }
    text.parse().map_err(|_invalid| "not a URL")
}

/// Host and port of a URL.
fn server(uri: &Uri, default_port: u16) -> Result<(Box<str>, u16), &'static str> {
    let authority = uri.authority().ok_or("a URL without a host")?;
    if authority.as_str().contains('@') {
        return Err("a URL with a user or password");
    }
    let host = uri.host().filter(|host| is_host(host)).ok_or("a URL without a host that can be asked for")?;
    let port = match authority.as_str().strip_prefix(host).map(|rest| rest.strip_prefix(':')) {
        Some(None) => default_port,
        Some(Some(port)) if is_port(port) => {
            port.parse().map_err(|_none| "a URL with a port that is none")?
        }
        Some(Some(_)) | None => return Err("a URL with a port that is none"),
    };
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let host = match inside.map(str::parse::<Ipv6Addr>) {
        Some(address) => address.map_err(|_invalid| "a URL with an address that is none")?.to_string(),
        None => host.to_ascii_lowercase(),
    };
    Ok((host.into(), port))
}

/// The endpoint of one signal where it was named for that signal alone: by gRPC no path may be there; by HTTP it is taken
/// as it is, and `path` where there is none.
///
/// # Errors
/// As [`endpoint`].
pub(super) fn of_signal(
    endpoint: Endpoint,
    protocol: ExportProtocol,
    path: &str,
) -> Result<Endpoint, &'static str> {
    match protocol {
        ExportProtocol::Grpc if matches!(&*endpoint.path, "" | "/") => {
            Ok(Endpoint { path: "".into(), ..endpoint })
        }
        ExportProtocol::Grpc => Err("a URL with a path, which gRPC has no use for"),
        ExportProtocol::HttpProtobuf if endpoint.path.is_empty() => {
            Ok(Endpoint { path: path.into(), ..endpoint })
        }
        ExportProtocol::HttpProtobuf => Ok(endpoint),
    }
}

/// The endpoint of one signal where one was named for all: by HTTP, `path` is appended (OpenTelemetry, OTLP Exporter
/// Configuration); by gRPC it has none.
pub(super) fn of_all(endpoint: Endpoint, protocol: ExportProtocol, path: &str) -> Endpoint {
    let path = match protocol {
        ExportProtocol::Grpc => String::new(),
        ExportProtocol::HttpProtobuf => format!("{}{path}", endpoint.path.trim_end_matches('/')),
    };
    Endpoint { path: path.into(), ..endpoint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_a_collector_may_have_are_taken_apart() {
        for (text, shown) in [
            ("http://localhost:4318", "http://localhost:4318"),
            ("https://API.example.com/v1/traces", "https://api.example.com:443/v1/traces"),
            ("http://[::1]:4317", "http://[::1]:4317"),
            ("http://10.0.0.1/", "http://10.0.0.1:80/"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_such_url_is_refused_without_repeating_it() {
        for text in [
            "",
            "collector",
            "collector:4317",
            "/v1/traces",
            "ftp://a:1",
            "http://",
            "http://:4317",
            "http://a:0",
            "http://a:99999",
            "http://a:",
            "http://u:secret@a:4317",
            "http://a:4317/?key=secret",
            "http://a/#x",
            "http://a b:1",
            "unix:///run/x",
            "http://a..b:1",
            "http://[::1:4317",
            "http://[fe80::1%25eth0]:1",
        ] {
            let problem = endpoint(text).expect_err(text);
            assert!(!problem.contains("secret"), "{text}: {problem}");
        }
        assert!(endpoint(&format!("http://a/{}", "x".repeat(3000))).is_err());
    }

    #[test]
    fn paths_are_those_of_the_protocol() {
        use ExportProtocol::{Grpc, HttpProtobuf};
        let url = |text| endpoint(text).unwrap();
        let shown = |endpoint: Result<Endpoint, _>| endpoint.map(|endpoint| endpoint.path.to_string());
        assert_eq!(shown(of_signal(url("http://a:1"), HttpProtobuf, "/v1/traces")).unwrap(), "/v1/traces");
        assert_eq!(shown(of_signal(url("http://a:1/"), HttpProtobuf, "/v1/traces")).unwrap(), "/");
        assert_eq!(shown(of_signal(url("http://a:1/x/"), HttpProtobuf, "/v1/traces")).unwrap(), "/x/");
        assert_eq!(shown(of_signal(url("http://a:1/"), Grpc, "")).unwrap(), "");
        assert!(of_signal(url("http://a:1/v1/traces"), Grpc, "").is_err());
        assert_eq!(&*of_all(url("http://a:1/otel/"), HttpProtobuf, "/v1/traces").path, "/otel/v1/traces");
        assert_eq!(&*of_all(url("http://a:1"), HttpProtobuf, "/v1/metrics").path, "/v1/metrics");
        assert_eq!(&*of_all(url("http://a:1/x"), Grpc, "/v1/metrics").path, "");
    }
}
