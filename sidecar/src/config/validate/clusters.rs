//! `clusters`: where requests can go.

use std::{borrow::Cow, net::SocketAddr, sync::Arc};

use outrider_certs::SpiffeId;

use super::{
    MAX_CLUSTERS, balance,
    bootstrap::to_u32,
    dns::{self, Surroundings},
    health_check, outlier, policies, routes,
    transport::transport,
};
use crate::{
    canonical,
    config::{
        defaults, raw,
        value::{choice, name, path, quantity, quantity_or_none, required},
    },
    model::{
        cluster::{Caps, ClusterName, ClusterSettings, EndpointSource, ServiceAddress, Timeouts},
        file::{Faults, Place, quoted, report_odd_keys, validate_endpoints, validate_spiffe_ids},
        transport::{ExpectedIds, Transport},
    },
};

/// Authorities of one cluster.
const MAX_AUTHORITIES: usize = 1000;

/// Every cluster of the list. One with a fault may be left out.
pub(super) fn clusters(
    file: &raw::File,
    around: &Surroundings<'_>,
    faults: &mut Faults,
) -> Vec<ClusterSettings> {
    let Some(list) = &file.clusters else { return Vec::new() };
    let place = Place::root().key("clusters").at(list);
    if list.value.len() > MAX_CLUSTERS {
        faults.add(&place, format!("{} clusters", list.value.len()), format!("keep to {MAX_CLUSTERS}"));
        return Vec::new();
    }
    list.value
        .iter()
        .enumerate()
        .filter_map(|(index, item)| cluster(&item.value, around, &place.item(index).at(item), faults))
        .collect()
}

/// One cluster; `None` only if there is a fault.
pub(super) fn cluster(
    raw: &raw::Cluster,
    around: &Surroundings<'_>,
    place: &Place,
    faults: &mut Faults,
) -> Option<ClusterSettings> {
    report_odd_keys(&raw.odd_keys, raw::Cluster::KEYS, place, faults);
    let name = cluster_name(raw, place, faults);
    let authorities = authorities(raw, name.as_deref(), place, faults);
    let transport = transport(raw, around.folder, place, faults);
    let source = source(raw, transport.as_ref(), around, place, faults);
    let max_requests = quantity(raw.max_requests.as_ref(), &defaults::MAX_REQUESTS, place, faults);
    let max_connections = quantity(raw.max_connections.as_ref(), &defaults::MAX_CONNECTIONS, place, faults);
    let max_pending = quantity(raw.max_pending.as_ref(), &defaults::MAX_PENDING, place, faults);
    let checks = raw.health_check.as_ref();
    let health_check = health_check::health_check(checks, transport.as_ref(), &authorities, place, faults);
    let (policy, retry_budget) = policies::of_cluster(raw, place, faults);
    let (balance, balancing) = balance::of_cluster(raw, place, faults);
    let outlier = outlier::of_cluster(raw.outlier_detection.as_ref(), place, faults);
    Some(ClusterSettings {
        transport: transport?,
        balance,
        balancing,
        timeouts: timeouts(raw, place, faults),
        routes: routes::routes(raw.routes.as_ref(), &policy, place, faults),
        policy: Arc::new(policy),
        retry_budget,
        outlier: Some(outlier),
        caps: Caps {
            max_requests: to_u32(max_requests),
            max_per_peer: to_u32(max_requests),
            max_connections: to_u32(max_connections),
            max_pending: to_u32(max_pending),
        },
        health_check,
        addresses: addresses(raw, place, faults),
        protocol: choice(raw.protocol.as_ref(), &defaults::INTERCEPTED_PROTOCOL, place, faults),
        name: ClusterName::new(&name?),
        authorities,
        source: source?,
    })
}

fn cluster_name(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> Option<String> {
    let place = place.key("name");
    let text = required(raw.name.as_ref(), &place, "name the cluster", faults)?;
    let name = name(text, &place, faults);
    if name.starts_with("inbound/") {
        let problem = format!("{} begins with inbound/", quoted(&name));
        faults.add(&place.at(text), problem, "choose another; these names belong to the own app's clusters");
    }
    if name == ClusterName::passthrough().as_str() {
        let problem = format!("{} stands for destinations that no cluster has", quoted(&name));
        faults.add(&place.at(text), problem, "choose another");
    }
    if name == ClusterName::redirect().as_str() {
        let problem = format!("{} stands for requests that are sent elsewhere", quoted(&name));
        faults.add(&place.at(text), problem, "choose another");
    }
    Some(name)
}

/// Addresses that stand for the cluster.
fn addresses(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> Vec<ServiceAddress> {
    let Some(list) = &raw.addresses else { return Vec::new() };
    let place = place.key("addresses").at(list);
    if list.value.len() > MAX_AUTHORITIES {
        let problem = format!("{} addresses", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_AUTHORITIES}"));
        return Vec::new();
    }
    let mut found = Vec::with_capacity(list.value.len());
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        match service_address(&text.value) {
            None => {
                let problem = format!("{} is not an IP address, or one with a port", quoted(&text.value));
                faults.add(&place, problem, "write it as 10.96.0.10, 10.96.0.10:80 or [fd00::10]:80");
            }
            Some(address) if found.contains(&address) => {
                faults.add(&place, format!("{} stands here twice", text.value), "list every one once");
            }
            Some(address) => found.push(address),
        }
    }
    found
}

/// `IP` or `IP:port`, of an address that one can connect to.
pub(super) fn service_address(text: &str) -> Option<ServiceAddress> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => ServiceAddress { ip: address.ip(), port: Some(address.port()) },
        Err(_) => ServiceAddress { ip: text.parse().ok()?, port: None },
    };
    let can_be_dialled = !address.ip.is_unspecified() && address.port != Some(0);
    // IPv4 in IPv6's clothes never comes from the kernel as such.
    (can_be_dialled && address.ip.to_canonical() == address.ip).then_some(address)
}

/// Hosts that route here, in lower case. An empty list is meant: then only a listener's `cluster` leads here.
fn authorities(raw: &raw::Cluster, name: Option<&str>, place: &Place, faults: &mut Faults) -> Vec<String> {
    let place = place.key("authorities");
    let Some(list) = &raw.authorities else {
        let Some(name) = name else { return Vec::new() };
        let authority = canonical(name);
        if authority.is_none() {
            let remedy = "give authorities (an empty list if only a listener's `cluster` leads here)";
            faults.add(&place, format!("the name {} is no host", quoted(name)), remedy);
        }
        return authority.into_iter().collect();
    };
    if list.value.len() > MAX_AUTHORITIES {
        let problem = format!("{} authorities", list.value.len());
        faults.add(&place.at(list), problem, format!("keep to {MAX_AUTHORITIES}"));
        return Vec::new();
    }
    let mut found = Vec::with_capacity(list.value.len());
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        let Some(authority) = canonical(&text.value) else {
            let problem = format!("{} is not a host, or host:port", quoted(&text.value));
            faults.add(&place, problem, "write it as orders, orders.default.svc:8080 or 10.0.0.7:80");
            continue;
        };
        if found.contains(&authority) {
            faults.add(&place, format!("{authority} stands here twice"), "list every authority once");
        } else {
            found.push(authority);
        }
    }
    found
}

/// The spelling that `canonical::authority` looks for.
fn canonical(text: &str) -> Option<String> {
    canonical::authority(text).filter(|authority| !authority.is_empty()).map(Cow::into_owned)
}

fn source(
    raw: &raw::Cluster,
    transport: Option<&Transport>,
    around: &Surroundings<'_>,
    place: &Place,
    faults: &mut Faults,
) -> Option<EndpointSource> {
    let default_spiffe_ids: Arc<[SpiffeId]> = raw
        .spiffe_ids
        .as_ref()
        .map(|list| validate_spiffe_ids(list, &place.key("spiffe_ids"), faults))
        .unwrap_or_default()
        .into();
    // A transport with a fault of its own is taken for the one that says nothing about IDs.
    let expected = match transport {
        Some(transport) if !transport.is_outside() => ExpectedIds::OneOf(Arc::clone(&default_spiffe_ids)),
        Some(_) | None => ExpectedIds::Outside,
    };
    match (&raw.endpoints, &raw.endpoints_file, &raw.dns) {
        (None, None, None) if let Some(revision) = around.told => Some(EndpointSource::Controller(revision)),
        (Some(list), None, None) => {
            let place = place.key("endpoints").at(list);
            if list.value.is_empty() {
                faults.add(&place, "is an empty list", "list at least one, or use endpoints_file or dns");
            }
            Some(EndpointSource::Static(validate_endpoints(&list.value, &place, &expected, faults)))
        }
        (None, Some(text), None) => {
            let path = path(text, around.folder, &place.key("endpoints_file"), faults);
            Some(EndpointSource::File { path, default_spiffe_ids })
        }
        (None, None, Some(dns)) => {
            if expected != ExpectedIds::Outside {
                dns::needed_ids(&default_spiffe_ids, raw, place, faults);
            }
            let place = place.key("dns");
            dns::settings(dns, &place, default_spiffe_ids, &around.resolver, faults).map(EndpointSource::Dns)
        }
        (None, None, None) => {
            let remedy = "give endpoints, endpoints_file or dns";
            faults.add(&place.key("endpoints"), "is missing", remedy);
            None
        }
        (first, file, dns) => {
            let beside = if first.is_some() { "endpoints" } else { "endpoints_file" };
            let file =
                file.as_ref().filter(|_| first.is_some()).map(|text| place.key("endpoints_file").at(text));
            let dns = dns.as_ref().map(|section| place.key("dns").at(section));
            for place in file.into_iter().chain(dns) {
                faults.add(&place, format!("stands beside {beside}"), "keep one of them");
            }
            None
        }
    }
}

fn timeouts(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> Timeouts {
    let stream_idle =
        quantity_or_none(raw.stream_idle_timeout.as_ref(), &defaults::STREAM_IDLE_TIMEOUT, place, faults);
    let pool_idle = quantity(raw.pool_idle_timeout.as_ref(), &defaults::POOL_IDLE_TIMEOUT, place, faults);
    let queue = quantity_or_none(raw.queue_timeout.as_ref(), &defaults::QUEUE_TIMEOUT, place, faults);
    let age = quantity_or_none(raw.max_connection_age.as_ref(), &defaults::MAX_CONNECTION_AGE, place, faults);
    Timeouts {
        connect: quantity(raw.connect_timeout.as_ref(), &defaults::CONNECT_TIMEOUT, place, faults),
        queue: queue.unwrap_or_default(),
        stream_idle: stream_idle.unwrap_or(defaults::NEVER),
        half_open: quantity_or_none(
            raw.half_open_timeout.as_ref(),
            &defaults::HALF_OPEN_TIMEOUT,
            place,
            faults,
        ),
        pool_idle,
        connection_age: age.unwrap_or(defaults::NEVER),
    }
}
