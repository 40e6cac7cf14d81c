//! What holds for requests: of a whole cluster, or of a route.

use std::sync::Arc;

use serde_saphyr::Spanned;

use super::{
    edits,
    fault::fault,
    rate_limit::{Item, rate_limits},
    retry, together,
};
use crate::{
    config::{
        defaults, raw,
        value::{Text, quantity_or_none},
    },
    model::{
        file::{Faults, Place},
        policy::{Policy, RetryBudget},
    },
};

/// What holds for a cluster's requests, and how much of them may be repeated.
pub(super) fn of_cluster(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> (Policy, RetryBudget) {
    let request_timeout =
        quantity_or_none(raw.request_timeout.as_ref(), &defaults::REQUEST_TIMEOUT, place, faults);
    let rate_limits = rate_limits(raw.rate_limits.as_ref(), place, faults).unwrap_or_default();
    let fault = fault(raw.fault.as_ref(), place, faults).flatten();
    let (retry, budget) = retry::of_cluster(raw.retry.as_ref(), place, faults);
    together::check(raw.retry.as_ref(), raw.request_timeout.as_ref(), place, faults);
    (Policy { request_timeout, retry, rate_limits, fault, ..Policy::bare() }, budget)
}

/// What a route says of its requests.
pub(super) struct Said<'a, L> {
    pub(super) request_timeout: Text<'a>,
    pub(super) retry: Option<&'a Spanned<raw::Retry>>,
    pub(super) rate_limits: Option<&'a Spanned<Vec<Spanned<L>>>>,
    pub(super) fault: Option<&'a Spanned<raw::Fault>>,
    pub(super) edits: edits::Sections<'a>,
    pub(super) redirect: Option<&'a Spanned<raw::Redirect>>,
}

/// What holds for a route's requests; what it does not say is its cluster's.
pub(super) fn of_route<'a, L>(
    said: &Said<'a, L>,
    cluster: &Policy,
    place: &Place,
    faults: &mut Faults,
) -> Policy
where
    Item<'a>: From<&'a L>,
{
    let key = defaults::REQUEST_TIMEOUT.or(cluster.request_timeout);
    let request_timeout = quantity_or_none(said.request_timeout, &key, place, faults);
    let rate_limits = rate_limits(said.rate_limits, place, faults);
    // The very same list: what is left is shared.
    let rate_limits = rate_limits.unwrap_or_else(|| Arc::clone(&cluster.rate_limits));
    let fault = fault(said.fault, place, faults).unwrap_or_else(|| cluster.fault.clone());
    let retry = retry::of_route(said.retry, &cluster.retry, place, faults);
    together::check(said.retry, said.request_timeout, place, faults);
    let edits = edits::edits(&said.edits, place, faults);
    let redirect = edits::redirect(said.redirect, said.edits.has_prefix, place, faults);
    if said.redirect.is_some() {
        let unused = [
            ("rewrite", said.edits.rewrite.is_some()),
            ("request_headers", said.edits.request.is_some()),
            ("request_timeout", said.request_timeout.is_some()),
            ("retry", said.retry.is_some()),
            ("fault", said.fault.is_some()),
        ];
        for (key, _) in unused.into_iter().filter(|(_, is_there)| *is_there) {
            let problem = "has no meaning where the caller is sent elsewhere";
            faults.add(&place.key(key), problem, "leave it out, or leave redirect out");
        }
    }
    Policy { request_timeout, retry, rate_limits, fault, edits, redirect, mirrors: None }
}
