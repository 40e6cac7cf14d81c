//! IDs of trust domains: only those whose roots are known can ever be verified.

use std::collections::BTreeSet;

use outrider_certs::SpiffeId;
use serde_saphyr::Spanned;

use super::{clusters, inbound};
use crate::{
    config::raw,
    model::file::{Faults, Place},
};

/// The trust domains that the file names as ours and as others.
pub(in crate::config::validate) struct Known<'a> {
    own: Option<&'a str>,
    /// `None`: any may be.
    others: Option<BTreeSet<&'a str>>,
}

impl<'a> Known<'a> {
    pub(in crate::config::validate) fn of(file: &'a raw::File) -> Self {
        let listed = file.federation.iter().flat_map(|list| &list.value);
        let others = listed.filter_map(|item| Some(item.value.trust_domain.as_ref()?.value.as_str()));
        Self { own: file.trust_domain.as_ref().map(|own| own.value.as_str()), others: Some(others.collect()) }
    }

    /// Where it is not known whose roots there are.
    pub(in crate::config::validate) fn anybody(own: &'a str) -> Self {
        Self { own: Some(own), others: None }
    }

    /// Our own, if the file says it.
    pub(in crate::config::validate) fn own(&self) -> Option<&'a str> {
        self.own
    }

    /// Whether workloads of that trust domain can be verified.
    pub(in crate::config::validate) fn has(&self, trust_domain: &str) -> bool {
        self.own.is_none_or(|own| own == trust_domain)
            || self.others.as_ref().is_none_or(|others| others.contains(trust_domain))
    }

    /// A fault if `text` is the ID of another's workload. What is no ID of a workload has a fault already.
    pub(in crate::config::validate) fn check(
        &self,
        text: &Spanned<String>,
        place: &Place,
        faults: &mut Faults,
    ) {
        let Ok(id) = SpiffeId::parse(&text.value) else { return };
        let domain = id.trust_domain();
        if !id.path().is_empty() && !self.has(domain.as_str()) {
            let problem = format!("{id} is of a trust domain whose roots are not known here");
            let remedy = format!("list workloads of trust_domain, or name {domain} under federation");
            faults.add(&place.at(text), problem, remedy);
        }
    }

    fn check_all(&self, list: Option<&Spanned<raw::Texts>>, place: &Place, faults: &mut Faults) {
        for (index, text) in list.iter().flat_map(|list| &list.value).enumerate() {
            self.check(text, &place.item(index), faults);
        }
    }
}

pub(super) fn check(file: &raw::File, faults: &mut Faults) {
    let known = Known::of(file);
    for (listener, place) in inbound(file) {
        known.check_all(listener.allow.as_ref(), &place.key("allow"), faults);
    }
    if let Some(inbound) = file.intercept.as_ref().and_then(|intercept| intercept.value.inbound.as_ref()) {
        let place = Place::root().key("intercept").key("inbound");
        if let Some(others) = &inbound.value.other_ports {
            let place = place.key("other_ports").key("allow");
            known.check_all(others.value.allow.as_ref(), &place, faults);
        }
        let ports = inbound.value.ports.iter().flat_map(|list| &list.value);
        for (index, port) in ports.enumerate() {
            let place = place.key("ports").item(index).key("allow");
            known.check_all(port.value.allow.as_ref(), &place, faults);
        }
    }
    for (cluster, place) in clusters(file) {
        known.check_all(cluster.spiffe_ids.as_ref(), &place.key("spiffe_ids"), faults);
        for (index, endpoint) in cluster.endpoints.iter().flat_map(|list| &list.value).enumerate() {
            if let Some(id) = &endpoint.value.spiffe_id {
                known.check(id, &place.key("endpoints").item(index).key("spiffe_id"), faults);
            }
        }
    }
}
