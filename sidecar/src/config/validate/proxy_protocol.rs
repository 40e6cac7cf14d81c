//! `proxy_protocol`: whose word is taken for where a connection comes from.

use std::sync::Arc;

use serde_saphyr::Spanned;

use super::intercept::{CIDR, entries, to_cidr};
use crate::{
    config::{defaults, raw, value::choice},
    model::{
        file::{Faults, Place, report_odd_keys},
        proxy_protocol::ProxyProtocol,
    },
};

/// Checks the section; `None` if there is none.
pub(super) fn proxy_protocol(
    raw: Option<&Spanned<raw::ProxyProtocol>>,
    place: &Place,
    faults: &mut Faults,
) -> Option<Arc<ProxyProtocol>> {
    let raw = raw?;
    let place = place.key("proxy_protocol").at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::ProxyProtocol::KEYS, &place, faults);
    let is_empty = raw.from.as_ref().is_none_or(|list| list.value.is_empty());
    if is_empty {
        let remedy = "list the addresses of the proxies whose word is taken, as 10.0.0.0/8";
        let from = place.key("from");
        let (from, problem) = match &raw.from {
            Some(list) => (from.at(list), "is an empty list"),
            None => (from, "is missing"),
        };
        faults.add(&from, problem, remedy);
    }
    let from = entries(raw.from.as_ref(), place.key("from"), CIDR, to_cidr, faults);
    let is_required = choice(raw.required.as_ref(), &defaults::streams::PROXY_REQUIRED, &place, faults);
    Some(Arc::new(ProxyProtocol { from, is_required }))
}
