//! `dns` at the top and in clusters: whom to ask, and for what.

use std::{net::SocketAddr, path::Path, sync::Arc};

use outrider_certs::SpiffeId;
use serde_saphyr::Spanned;

use super::bootstrap::{section, to_u32};
use crate::{
    config::{
        defaults, raw,
        value::{address, choice, is_host, is_port, quantity, quantity_or_none, required},
    },
    model::{
        dns::{DnsRecords, DnsSettings, ResolverSettings},
        file::{Faults, Place, quoted, report_odd_keys},
    },
};

/// Servers of one list. They are asked one after the other, so that more would only make failing slower.
const MAX_SERVERS: usize = 8;

/// What clusters share: where their endpoints files are, and whom they ask.
pub(super) struct Surroundings<'a> {
    /// Where relative paths start.
    pub(super) folder: &'a Path,
    /// The top-level `dns`.
    pub(super) resolver: Arc<ResolverSettings>,
    /// The controller says these clusters, in that revision, and finds their endpoints.
    pub(super) told: Option<u64>,
}

/// The top-level section; with the mark of our connections, if they have one.
pub(super) fn resolver(
    raw: Option<&Spanned<raw::Resolver>>,
    mark: Option<u32>,
    faults: &mut Faults,
) -> Arc<ResolverSettings> {
    let empty = raw::Resolver::default();
    let place = section(raw, "dns");
    let raw = raw.map_or(&empty, |raw| &raw.value);
    report_odd_keys(&raw.odd_keys, raw::Resolver::KEYS, &place, faults);
    let attempts: u64 = quantity(raw.attempts.as_ref(), &defaults::DNS_ATTEMPTS, &place, faults);
    Arc::new(ResolverSettings {
        servers: servers(raw, &place.key("servers"), faults),
        timeout: quantity(raw.timeout.as_ref(), &defaults::DNS_TIMEOUT, &place, faults),
        attempts: to_u32(attempts),
        start_timeout: quantity(raw.start_timeout.as_ref(), &defaults::DNS_START_TIMEOUT, &place, faults),
        mark,
    })
}

fn servers(raw: &raw::Resolver, place: &Place, faults: &mut Faults) -> Vec<SocketAddr> {
    let Some(list) = &raw.servers else { return Vec::new() };
    let place = place.at(list);
    if list.value.is_empty() {
        faults.add(&place, "is an empty list", "list at least one, or leave the key out for the system's");
    }
    if list.value.len() > MAX_SERVERS {
        faults.add(&place, format!("{} servers", list.value.len()), format!("keep to {MAX_SERVERS}"));
        return Vec::new();
    }
    let mut found = Vec::with_capacity(list.value.len());
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        let Some(server) = address(text, &place, faults) else { continue };
        if server.port() == 0 || server.ip().is_unspecified() {
            faults.add(&place, format!("{server} cannot be asked"), "give the server's address and port");
        } else if found.contains(&server) {
            faults.add(&place, format!("{server} stands here twice"), "list every server once");
        } else {
            found.push(server);
        }
    }
    found
}

/// The section of a cluster. `spiffe_ids` are the cluster's.
pub(super) fn settings(
    raw: &Spanned<raw::Dns>,
    place: &Place,
    spiffe_ids: Arc<[SpiffeId]>,
    resolver: &Arc<ResolverSettings>,
    faults: &mut Faults,
) -> Option<DnsSettings> {
    let place = place.at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::Dns::KEYS, &place, faults);
    let name = name(raw, &place.key("name"), faults);
    let min_ttl = quantity(raw.min_ttl.as_ref(), &defaults::MIN_TTL, &place, faults);
    let max_ttl = quantity(raw.max_ttl.as_ref(), &defaults::MAX_TTL, &place, faults);
    if max_ttl < min_ttl {
        let key = raw.max_ttl.as_ref().or(raw.min_ttl.as_ref());
        let place = key.map_or_else(|| place.clone(), |text| place.key("max_ttl").at(text));
        faults.add(&place, "is less than min_ttl", "make it at least as long");
    }
    Some(DnsSettings {
        records: records(raw, &place, faults)?,
        min_ttl,
        max_ttl,
        empty_after: quantity_or_none(raw.empty_after.as_ref(), &defaults::EMPTY_AFTER, &place, faults),
        spiffe_ids,
        resolver: Arc::clone(resolver),
        name: name?,
    })
}

/// A name that can be asked for, with or without a dot at its end.
fn name(raw: &raw::Dns, place: &Place, faults: &mut Faults) -> Option<String> {
    let text = required(raw.name.as_ref(), place, "give the name that is to be resolved", faults)?;
    let bare = text.value.strip_suffix('.').unwrap_or(&text.value);
    if bare.parse::<std::net::IpAddr>().is_ok() || bare.starts_with('[') {
        let problem = format!("{} is an address, not a name", quoted(&text.value));
        faults.add(&place.at(text), problem, "list addresses under endpoints");
    } else if !is_host(bare) {
        let problem = format!("{} is not a DNS name", quoted(&text.value));
        faults.add(&place.at(text), problem, "write it in ASCII, as orders.default.svc.cluster.local.");
    }
    Some(text.value.clone())
}

fn records(raw: &raw::Dns, place: &Place, faults: &mut Faults) -> Option<DnsRecords> {
    let family = choice(raw.record.as_ref(), &defaults::DNS_RECORD, place, faults);
    let place = place.key("port");
    match (family, &raw.port) {
        (None, None) => Some(DnsRecords::Services),
        (None, Some(text)) => {
            faults.add(&place.at(text), "is in the SRV records", "leave it out, or ask for a, aaaa or any");
            None
        }
        (Some(family), text) => {
            let text = required(text.as_ref(), &place, "give the port of the endpoints", faults)?;
            let port = text.value.parse().ok().filter(|_| is_port(&text.value));
            if port.is_none() {
                let problem = format!("{} is not a port", quoted(&text.value));
                faults.add(&place.at(text), problem, "use 1..=65535");
            }
            Some(DnsRecords::Addresses { family, port: port? })
        }
    }
}

/// The IDs of a cluster whose endpoints cannot name any themselves.
pub(super) fn needed_ids(ids: &[SpiffeId], raw: &raw::Cluster, place: &Place, faults: &mut Faults) {
    // A list that is there and faulty has its faults already.
    if ids.is_empty() && raw.spiffe_ids.is_none() {
        let problem = "is missing: the DNS does not say who endpoints are";
        faults.add(&place.key("spiffe_ids"), problem, "name who they must be");
    }
}
