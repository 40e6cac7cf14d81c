//! Where endpoints come from, and how it goes with the controller.

use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::{
    State,
    config::{duration, ids},
};
use crate::model::{
    EndpointSettings,
    cluster::EndpointSource,
    controller::{ControllerSettings, Rejected},
    dns::{DnsRecords, DnsSettings},
};

/// `controller` of `/config`: where we ask, how that goes, and what of the answers is not in force.
pub(super) fn controller(state: &State, settings: &ControllerSettings) -> Value {
    let (status, wanted) = (&state.controller, &state.wanted);
    let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let age = status.age(state.clock.now());
    json!({
        "address": settings.address,
        "spiffe_id": settings.spiffe_id.as_str(),
        "wait": duration(settings.wait),
        "idle": duration(settings.idle),
        "max_wanted": settings.max_wanted,
        "max_waiting": settings.max_waiting,
        "connected": status.is_connected.load(Ordering::Relaxed),
        "age_seconds": age.map(|age| age.as_secs_f64()),
        "error": status.error(),
        "connects": count(&status.connects),
        "failures": count(&status.failures),
        "wanted": count(&status.wanted),
        "outside": state.snapshots.load().outside.len(),
        "waiting": wanted.waiting(),
        "rejected": status.rejected().iter().map(rejected).collect::<Vec<_>>(),
    })
}

fn rejected(rejected: &Rejected) -> Value {
    json!({
        "service": &*rejected.service,
        "why": if rejected.is_conflict { "conflict" } else { "faulty" },
        "faults": rejected.faults.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

/// Where a cluster's endpoints come from.
pub(super) fn source(source: &EndpointSource) -> Value {
    match source {
        EndpointSource::Static(endpoints) => {
            json!({ "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() })
        }
        EndpointSource::File { path, default_spiffe_ids } => {
            json!({ "endpoints_file": path, "spiffe_ids": ids(default_spiffe_ids) })
        }
        EndpointSource::Dns(settings) => dns(settings),
        EndpointSource::Controller(revision) => json!({ "controller": { "revision": revision } }),
    }
}

/// The same in a word.
pub(super) fn kind(source: &EndpointSource) -> &'static str {
    match source {
        EndpointSource::Static(_) => "endpoints",
        EndpointSource::File { .. } => "endpoints_file",
        EndpointSource::Dns(_) => "dns",
        EndpointSource::Controller(_) => "controller",
    }
}

fn dns(dns: &DnsSettings) -> Value {
    let port = match dns.records {
        DnsRecords::Addresses { port, .. } => Some(port),
        DnsRecords::Services => None,
    };
    let resolver = &dns.resolver;
    json!({
        "dns": {
            "name": dns.name,
            "record": dns.records.word(),
            "port": port,
            "min_ttl": duration(dns.min_ttl),
            "max_ttl": duration(dns.max_ttl),
            "empty_after": dns.empty_after.map(duration),
            "resolver": {
                "servers": resolver.servers.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "timeout": duration(resolver.timeout),
                "attempts": resolver.attempts,
                "start_timeout": duration(resolver.start_timeout),
            },
        },
        "spiffe_ids": ids(&dns.spiffe_ids),
    })
}

fn endpoint(endpoint: &EndpointSettings) -> Value {
    json!({
        "address": endpoint.address.to_string(),
        "spiffe_ids": ids(&endpoint.spiffe_ids),
        "weight": endpoint.weight,
        "zone": endpoint.zone.as_deref(),
        "ready": endpoint.is_ready,
    })
}
