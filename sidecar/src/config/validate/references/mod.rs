//! What must fit together across sections: names, addresses, authorities, references.
//!
//! It looks at the file as it stands rather than at what came out of it, so that one faulty cluster does not make
//! every reference to it look faulty too.

mod authorized;
mod federated;
mod intercepted;

pub(super) use federated::Known;

use std::{
    collections::HashMap,
    net::{Ipv6Addr, SocketAddr},
};

use serde_saphyr::Spanned;

use super::{clusters::service_address, intercept::LISTENERS, weighted};
use crate::{
    config::{defaults, raw},
    model::{
        cluster::ServiceAddress,
        file::{Faults, Place, quoted},
    },
};

/// A listening address with its place.
struct Listening {
    address: SocketAddr,
    place: Place,
    is_outbound: bool,
}

/// Checks everything that takes two places to be wrong.
pub(super) fn check(file: &raw::File, faults: &mut Faults) {
    let listening = listening(file, faults);
    check_apps(file, &listening, faults);
    check_endpoints(file, &listening, faults);
    check_cluster_names(file, faults);
    check_authorities(file, faults);
    check_addresses(file, faults);
    check_default_clusters(file, faults);
    intercepted::check(file, &listening, faults);
    authorized::check(file, &listening, faults);
    federated::check(file, faults);
}

fn inbound(file: &raw::File) -> impl Iterator<Item = (&raw::Inbound, Place)> {
    list(file.inbound.as_ref(), "inbound")
}

fn outbound(file: &raw::File) -> impl Iterator<Item = (&raw::Outbound, Place)> {
    list(file.outbound.as_ref(), "outbound")
}

fn clusters(file: &raw::File) -> impl Iterator<Item = (&raw::Cluster, Place)> {
    list(file.clusters.as_ref(), "clusters")
}

fn list<'a, T>(
    list: Option<&'a Spanned<Vec<Spanned<T>>>>,
    key: &'static str,
) -> impl Iterator<Item = (&'a T, Place)> {
    let items = list.map(|list| list.value.as_slice()).unwrap_or_default();
    items
        .iter()
        .enumerate()
        .map(move |(index, item)| (&item.value, Place::root().key(key).item(index).at(item)))
}

/// All addresses we listen on; names and addresses that are taken are faults.
fn listening(file: &raw::File, faults: &mut Faults) -> Vec<Listening> {
    let mut names: HashMap<String, Place> = HashMap::new();
    if let Some(raw) = &file.intercept {
        let place = Place::root().key("intercept").at(raw);
        names.extend(LISTENERS.map(|name| (name.to_owned(), place.clone())));
    }
    let mut addresses = Vec::new();
    let inbound = inbound(file).map(|(raw, place)| (raw.name.as_ref(), raw.listen.as_ref(), place, false));
    let outbound = outbound(file).map(|(raw, place)| (raw.name.as_ref(), raw.listen.as_ref(), place, true));
    let mut counts = [0_usize; 2];
    for (name, listen, place, is_outbound) in inbound.chain(outbound) {
        let direction = if is_outbound { "outbound" } else { "inbound" };
        let [inbound_count, outbound_count] = &mut counts;
        let index = if is_outbound { outbound_count } else { inbound_count };
        let default = format!("{direction}-{index}");
        *index += 1;
        let name_place = name.map_or_else(|| place.key("name"), |name| place.key("name").at(name));
        let name = name.map_or(default, |name| name.value.clone());
        if let Some(first) = names.get(&name) {
            let problem = format!("{} is also the name of {}", quoted(&name), first.path());
            faults.add(&name_place, problem, "give every listener its own name");
        } else {
            names.insert(name, place.clone());
        }
        if let Some(listen) = listen
            && let Ok(address) = listen.value.parse()
        {
            let place = place.key("listen").at(listen);
            add_address(Listening { address, place, is_outbound }, &mut addresses, faults);
        }
    }
    for (port, place, is_outbound) in intercepted_ports(file) {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        add_address(Listening { address, place, is_outbound }, &mut addresses, faults);
    }
    if let Some((address, place)) = admin_address(file) {
        add_address(Listening { address, place, is_outbound: false }, &mut addresses, faults);
    }
    addresses
}

fn add_address(new: Listening, addresses: &mut Vec<Listening>, faults: &mut Faults) {
    if let Some(other) = addresses.iter().find(|other| overlap(other.address, new.address)) {
        let problem = format!("{} overlaps with {} at {}", new.address, other.address, other.place.path());
        faults.add(&new.place, problem, "give every listener a port of its own");
    }
    addresses.push(new);
}

/// The ports that the kernel brings connections to.
fn intercepted_ports(file: &raw::File) -> Vec<(u16, Place, bool)> {
    let Some(raw) = &file.intercept else { return Vec::new() };
    let place = Place::root().key("intercept").at(raw);
    let outbound = raw.value.outbound.as_ref().and_then(|section| section.value.port.as_ref());
    let inbound = raw.value.inbound.as_ref().and_then(|section| section.value.port.as_ref());
    let port = |text: Option<&Spanned<String>>, key: &defaults::Key<u64>, section| {
        let place = place.key(section).key("port");
        let default = key.default.and_then(|port| u16::try_from(port).ok());
        match text {
            Some(text) => Some((text.value.parse().ok()?, place.at(text))),
            None => Some((default?, place)),
        }
    };
    let outbound =
        port(outbound, &defaults::OUTBOUND_PORT, "outbound").map(|(port, place)| (port, place, true));
    let inbound = port(inbound, &defaults::INBOUND_PORT, "inbound").map(|(port, place)| (port, place, false));
    outbound.into_iter().chain(inbound).collect()
}

fn admin_address(file: &raw::File) -> Option<(SocketAddr, Place)> {
    let place = Place::root().key("admin").key("listen");
    match file.admin.as_ref().and_then(|admin| admin.value.listen.as_ref()) {
        Some(text) => Some((text.value.parse().ok()?, place.at(text))),
        None => Some((defaults::ADMIN_LISTEN.parse().ok()?, place)),
    }
}

/// Whether a connection could reach either listener: same port, and the same IP or one that stands for all. Port 0
/// becomes a port of its own.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port()
        && left.port() != 0
        && (left.ip() == right.ip() || left.ip().is_unspecified() || right.ip().is_unspecified())
}

/// Whether a connection to `target` would come to `listener` on this host. An unspecified listener takes what is
/// sent to any of our addresses, of which only the loopback ones are known here.
fn leads_to(target: SocketAddr, listener: SocketAddr) -> bool {
    target.port() == listener.port()
        && target.port() != 0
        && (target.ip() == listener.ip() || (listener.ip().is_unspecified() && target.ip().is_loopback()))
}

fn check_apps(file: &raw::File, listening: &[Listening], faults: &mut Faults) {
    for (raw, place) in inbound(file) {
        let Some(text) = &raw.app else { continue };
        let Ok(app) = text.value.parse::<SocketAddr>() else { continue };
        if let Some(own) = listening.iter().find(|own| leads_to(app, own.address)) {
            let problem = format!("{app} is our own listener at {}", own.place.path());
            faults.add(
                &place.key("app").at(text),
                problem,
                "give the address that the app itself listens on",
            );
        }
    }
}

/// An own inbound listener as endpoint is sound (a service may call itself); an outbound one is a loop.
fn check_endpoints(file: &raw::File, listening: &[Listening], faults: &mut Faults) {
    for (raw, place) in clusters(file) {
        let endpoints = raw.endpoints.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
        for (index, endpoint) in endpoints.iter().enumerate() {
            let Some(text) = &endpoint.value.address else { continue };
            let Ok(address) = text.value.parse::<SocketAddr>() else { continue };
            if listening.iter().any(|own| own.is_outbound && leads_to(address, own.address)) {
                let place = place.key("endpoints").item(index).key("address").at(text);
                let problem = format!("{address} is our own outbound listener");
                faults.add(&place, problem, "give the address of the endpoint's sidecar");
            }
        }
    }
}

fn check_cluster_names(file: &raw::File, faults: &mut Faults) {
    let mut seen: HashMap<&str, Place> = HashMap::new();
    for (raw, place) in clusters(file) {
        let Some(text) = &raw.name else { continue };
        if let Some(first) = seen.get(text.value.as_str()) {
            let problem = format!("{} is also the name of {}", quoted(&text.value), first.path());
            faults.add(&place.key("name").at(text), problem, "give every cluster its own name");
        } else {
            seen.insert(&text.value, place);
        }
    }
}

/// An authority leads to one cluster. `host` and `host:port` may lead to different ones: the exact one wins.
fn check_authorities(file: &raw::File, faults: &mut Faults) {
    let mut seen: HashMap<String, (Place, Option<&str>)> = HashMap::new();
    for (raw, place) in clusters(file) {
        let cluster = raw.name.as_ref().map(|name| name.value.as_str());
        let listed: Vec<(String, Place)> = match &raw.authorities {
            Some(list) => {
                let place = place.key("authorities");
                let items = list.value.iter().enumerate();
                items.map(|(i, text)| (text.value.to_ascii_lowercase(), place.item(i).at(text))).collect()
            }
            None => {
                let name = raw.name.iter();
                name.map(|text| (text.value.to_ascii_lowercase(), place.key("name").at(text))).collect()
            }
        };
        for (authority, place) in listed {
            match seen.get(&authority) {
                // Twice in one cluster is told with that cluster, and two clusters of one name with the names.
                Some((_, other)) if *other == cluster => {}
                Some((first, _)) => {
                    let problem = format!(
                        "authority {} leads elsewhere already ({})",
                        quoted(&authority),
                        first.path()
                    );
                    faults.add(&place, problem, "let every authority lead to one cluster");
                }
                None => {
                    seen.insert(authority, (place, cluster));
                }
            }
        }
    }
}

/// A service address leads to one cluster.
fn check_addresses(file: &raw::File, faults: &mut Faults) {
    let mut seen: HashMap<ServiceAddress, (Place, usize)> = HashMap::new();
    for (cluster, (raw, place)) in clusters(file).enumerate() {
        let list = raw.addresses.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
        for (index, text) in list.iter().enumerate() {
            let Some(address) = service_address(&text.value) else { continue };
            let place = place.key("addresses").item(index).at(text);
            match seen.get(&address) {
                // Twice in one cluster is told with that cluster.
                Some((_, other)) if *other == cluster => {}
                Some((first, _)) => {
                    let problem = format!("{} leads elsewhere already ({})", text.value, first.path());
                    faults.add(&place, problem, "let every address lead to one cluster");
                }
                None => {
                    seen.insert(address, (place, cluster));
                }
            }
        }
    }
}

fn check_default_clusters(file: &raw::File, faults: &mut Faults) {
    let names = cluster_names(file);
    for (raw, place) in outbound(file) {
        let Some(text) = &raw.cluster else { continue };
        weighted::is_known(text, &names, &place.key("cluster").at(text), faults);
    }
}

/// The names of all clusters of the file, sound or not.
pub(super) fn cluster_names(file: &raw::File) -> Vec<&str> {
    clusters(file).filter_map(|(raw, _)| raw.name.as_ref()).map(|name| name.value.as_str()).collect()
}
