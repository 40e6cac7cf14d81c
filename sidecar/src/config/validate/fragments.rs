//! What the controller says, in the words of the file, by the same rules. What would let it decide more than where calls of
//! the own app go, and what the app speaks, is refused: the file alone opens holes and names files of this host.

use std::{path::Path, sync::Arc};

use serde_saphyr::Spanned;

use super::{clusters, dns::Surroundings, intercept::to_port, own_app};
use crate::{
    config::{
        Fault, defaults, raw,
        value::{choice, required},
    },
    model::{
        ClusterSettings,
        cluster::AppProtocol,
        dns::ResolverSettings,
        file::{Faults, Place, quoted, read, report_odd_keys},
        listener::Protocol,
    },
};

/// Bytes of what is said of one service.
const MAX_BYTES: usize = 64 * 1024;
/// Ports of one workload.
const MAX_PORTS: usize = 1000;

/// A service's cluster. Its endpoints are found by the controller in that revision, or in the DNS.
pub(in crate::config) fn fragment(
    name: &str,
    text: &str,
    revision: u64,
    resolver: &Arc<ResolverSettings>,
) -> Result<ClusterSettings, Vec<Fault>> {
    let place = Place::root().key(&format!("controller.services[{name}]"));
    let (mut faults, raw) = (Faults::default(), bounded::<raw::Cluster>(text, &place)?);
    refuse(&raw, &place, &mut faults);
    if raw.name.as_ref().is_none_or(|text| text.value != name) {
        faults.add(&place.key("name"), format!("is not {}", quoted(name)), "name cluster and service alike");
    }
    let around = Surroundings { folder: Path::new(""), resolver: Arc::clone(resolver), told: Some(revision) };
    match clusters::cluster(&raw, &around, &place, &mut faults) {
        Some(cluster) if faults.is_empty() => Ok(cluster),
        Some(_) | None => Err(faults.into_vec()),
    }
}

/// Keys that belong to the file.
fn refuse(raw: &raw::Cluster, place: &Place, faults: &mut Faults) {
    let mut only = |place: Option<Place>| {
        if let Some(place) = place {
            faults.add(&place, "is for the file only", "leave it out of what the controller says");
        }
    };
    only(raw.endpoints.as_ref().map(|list| place.key("endpoints").at(list)));
    only(raw.endpoints_file.as_ref().map(|text| place.key("endpoints_file").at(text)));
    if let Some(public) = &raw.public {
        let place = place.key("public").at(public);
        let public = &public.value;
        only(public.roots.as_ref().filter(|text| text.value != defaults::ROOTS).map(|_| place.key("roots")));
        only(public.certificate.as_ref().map(|_| place.key("certificate")));
        only(public.key.as_ref().map(|_| place.key("key")));
    }
}

/// What ports of the own app speak: all that may be said of them.
pub(in crate::config) fn inbound(text: &str) -> Result<Vec<(u16, Protocol, AppProtocol)>, Vec<Fault>> {
    let place = Place::root().key("controller.inbound");
    let (mut faults, raw) = (Faults::default(), bounded::<raw::InterceptInbound>(text, &place)?);
    report_odd_keys(&raw.odd_keys, &["ports"], &place, &mut faults);
    let others = [raw.port.is_some(), raw.other_ports.is_some(), raw.except_ports.is_some()];
    if others.contains(&true) || raw.except_cidrs.is_some() {
        faults.add(&place, "has more than ports", "leave the rest to the file");
    }
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

fn bounded<T: serde::de::DeserializeOwned>(text: &str, place: &Place) -> Result<T, Vec<Fault>> {
    if text.len() > MAX_BYTES {
        let mut faults = Faults::default();
        faults.add(place, format!("has {} bytes", text.len()), format!("keep to {MAX_BYTES}"));
        return Err(faults.into_vec());
    }
    read(text).map_err(|fault| vec![Fault { path: place.path().to_owned(), ..fault }])
}
