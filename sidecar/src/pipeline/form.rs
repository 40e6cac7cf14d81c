//! The form of a request: HTTP/1.1 names its target in `Host`, HTTP/2 in the URI.

use http::{HeaderValue, Request, Uri, Version, header, uri::Authority, uri::Scheme};

use super::error::ProxyError;

/// Makes a request for HTTP/1.1: `authority` goes into `Host`, the URI keeps path and query.
///
/// # Errors
/// [`ProxyError::BadRequest`] for an authority that no header can hold.
pub(super) fn for_http1<B>(request: &mut Request<B>, authority: &str) -> Result<(), ProxyError> {
    let host = HeaderValue::from_str(authority).map_err(|error| bad(&error))?;
    request.headers_mut().insert(header::HOST, host);
    Ok(())
}

/// Makes a request for HTTP/2: `authority` goes into the URI.
///
/// # Errors
/// [`ProxyError::BadRequest`] for an authority that is none.
pub(super) fn for_http2<B>(
    request: &mut Request<B>,
    authority: &str,
    scheme: Scheme,
) -> Result<(), ProxyError> {
    let authority: Authority = authority.parse().map_err(|error| bad(&error))?;
    request.headers_mut().remove(header::HOST);
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(scheme);
    uri.authority = Some(authority);
    *request.uri_mut() = Uri::from_parts(uri).map_err(|error| bad(&error))?;
    *request.version_mut() = Version::HTTP_2;
    Ok(())
}

/// Makes a request that was made for HTTP/1.1 one for HTTP/2 to a server that is reached by TLS.
///
/// # Errors
/// As [`for_http2`].
pub(super) fn make_http2<B>(request: &mut Request<B>) -> Result<(), ProxyError> {
    let host = request.headers_mut().remove(header::HOST);
    let host = host.as_ref().and_then(|host| host.to_str().ok()).unwrap_or_default().to_owned();
    for_http2(request, &host, Scheme::HTTPS)
}

fn bad(error: &dyn std::fmt::Display) -> ProxyError {
    ProxyError::BadRequest(error.to_string())
}
