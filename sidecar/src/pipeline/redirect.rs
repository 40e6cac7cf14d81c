//! Callers that a route sends elsewhere: an answer of our own, and no failure.

use http::{Response, header, request::Parts};

use super::{error::ProxyError, head};
use crate::{
    headers::{self, edits},
    model::{Cluster, ClusterName, Snapshot, rate_limit::Quota},
    relay::body::ResponseBody,
    route::{
        Chosen,
        rewrite::{self, Asked},
    },
};

/// The answer by which a route sends its caller elsewhere, if it does. `authority` is whom it asks for, in canonical form.
///
/// # Errors
/// [`ProxyError::BadRequest`]: the path has no one spelling, or nobody knows of which host it is.
pub(super) fn answer(
    chosen: Chosen<'_>,
    (snapshot, cluster): (&Snapshot, &Cluster),
    (head, authority): (&Parts, &str),
    quotas: &[Quota],
) -> Result<Option<Response<ResponseBody>>, ProxyError> {
    let Some(redirect) = &chosen.policy.redirect else { return Ok(None) };
    let unnamed;
    let authority = if authority.is_empty() {
        // A rule has no service of its own that could be named instead.
        if redirect.host.is_none() && *cluster.name() == ClusterName::redirect() {
            let problem = "a request that names no host, where its rule redirects to none";
            return Err(ProxyError::BadRequest(problem.to_owned()));
        }
        unnamed = head::unnamed(snapshot, cluster);
        &unnamed
    } else {
        authority
    };
    let asked = Asked { authority, uri: &head.uri, prefix: chosen.prefix };
    let location = rewrite::location(redirect, asked);
    let location = location.map_err(|error| ProxyError::BadRequest(error.to_string()))?;
    let mut response = Response::new(ResponseBody::local(""));
    *response.status_mut() = redirect.status;
    if let Some(edits) = &chosen.policy.edits {
        edits::apply(response.headers_mut(), &edits.response);
    }
    response.headers_mut().insert(header::LOCATION, location);
    headers::rate_limit::tell(response.headers_mut(), quotas);
    Ok(Some(response))
}
