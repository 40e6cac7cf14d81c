//! What the controller says of the own workload: what its ports carry, and who may call it.

use serde_saphyr::Spanned;

use super::{authorization, fragments::bounded, intercept::to_port, own_app};
use crate::{
    config::{
        Fault, defaults, raw,
        value::{choice, required},
    },
    model::{
        authorization::Authorization,
        cluster::AppProtocol,
        file::{Faults, Place, quoted, report_odd_keys},
        listener::Protocol,
    },
};

/// Ports of one workload.
const MAX_PORTS: usize = 1000;

/// Who may call, by workloads of trust domain `own`; `None`: nothing is said of it.
pub(in crate::config) fn rules(text: &str, own: &str) -> Result<Option<Authorization>, Vec<Fault>> {
    let place = Place::root().key("controller.authorization");
    let (mut faults, raw) = (Faults::default(), bounded::<raw::Workload>(text, &place)?);
    let is_bare = |key: &crate::model::file::OddKey| key.name == "authorization";
    if raw.odd_keys.iter().any(is_bare) {
        faults.add(&place, "has no value", "say rules: [] for nobody, or leave it out");
    }
    let said = raw.authorization.as_ref();
    let rules = said.and_then(|said| authorization::told(&said.value, own, &place, &mut faults));
    if faults.is_empty() { Ok(rules) } else { Err(faults.into_vec()) }
}

/// What ports of the own app speak: all that may be said of ports.
pub(in crate::config) fn inbound(text: &str) -> Result<Vec<(u16, Protocol, AppProtocol)>, Vec<Fault>> {
    let place = Place::root().key("controller.inbound");
    let (mut faults, raw) = (Faults::default(), bounded::<raw::Workload>(text, &place)?);
    report_odd_keys(&raw.odd_keys, raw::Workload::KEYS, &place, &mut faults);
    let list = raw.ports.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
    if list.len() > MAX_PORTS {
        faults.add(&place.key("ports"), format!("{} ports", list.len()), format!("keep to {MAX_PORTS}"));
    }
    let mut ports: Vec<(u16, Protocol, AppProtocol)> = Vec::new();
    for (index, item) in list.iter().enumerate().take(MAX_PORTS) {
        let place = place.key("ports").item(index);
        let Some(found) = port(item, &place, &mut faults) else { continue };
        if ports.iter().any(|(port, ..)| *port == found.0) {
            faults.add(&place, format!("port {} stands here twice", found.0), "list every port once");
        }
        ports.push(found);
    }
    if faults.is_empty() { Ok(ports) } else { Err(faults.into_vec()) }
}

fn port(
    item: &Spanned<raw::Port>,
    place: &Place,
    faults: &mut Faults,
) -> Option<(u16, Protocol, AppProtocol)> {
    let raw = &item.value;
    report_odd_keys(&raw.odd_keys, raw::Port::KEYS, place, faults);
    if !own_app::says_protocols_only(raw) {
        let remedy = "leave the rest to the file, under intercept.inbound";
        faults.add(place, "has more than port, protocol and app_protocol", remedy);
    }
    let text = required(raw.port.as_ref(), &place.key("port"), "give the app's port", faults)?;
    let port = to_port(&text.value);
    if port.is_none() {
        faults.add(&place.key("port"), format!("{} is not a port", quoted(&text.value)), "write it as 8080");
    }
    let protocol = choice(raw.protocol.as_ref(), &defaults::INTERCEPTED_PROTOCOL, place, faults);
    let (rules, _cluster) = own_app::inbound(&raw.into(), ("port", protocol, Vec::new()), place, faults);
    Some((port?, protocol, rules.app_protocol))
}
