//! Dumps: settings and counters as JSON, for people and tools.
//!
//! Nothing in here has access to a key or a token; the types it reads do not hold any, except the identity, of which
//! only names, times and counts are shown.

mod authorization;
mod balance;
mod config;
mod controller;
mod federation;
mod identity;
mod limits;
mod outlier;
mod probes;
mod routes;
mod streams;
mod telemetry;

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Map, Value, json};

use super::State;
use crate::{
    drain::Phase,
    model::{
        Cluster, Endpoint, Listener,
        closed::{Misuse, Revoked, Shed},
        cluster::EndpointSource,
        flag::ResponseFlag,
        handshake::TlsFailure,
        health::Health,
        health_check::{CheckCounts, CheckOutcome},
        listener::Exception,
        runtime::{ListenerRuntime, PeerCount, Refusal, RequestCounts, TlsFacts},
        status::{LookupOutcome, Lookups, Progress},
    },
};

pub(super) use config::{config, report};

/// Where the process stands: enough to follow a drain.
pub(super) fn status(state: &State) -> Value {
    let snapshot = state.snapshots.load();
    let inbound = snapshot.config.listeners.values().filter(|entry| entry.settings.is_inbound());
    let inbound_connections: usize = inbound.map(|entry| entry.runtime.active.load(Ordering::Relaxed)).sum();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "service": snapshot.config.settings.bootstrap.service,
        "process_id": std::process::id(),
        "phase": phase(state.drain.phase()),
        "drain_requested": state.drain_requests.current().map(|request| {
            if request.inbound_only { "inbound" } else { "all" }
        }),
        "waiting_for": state.readiness.waiting_for(),
        "in_flight": state.drain.in_flight(),
        "inbound_connections": inbound_connections,
        "snapshot_version": snapshot.version,
    })
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Closing => "closing",
        Phase::Forced => "forced",
    }
}

/// Every cluster with its endpoints and counters.
pub(super) fn clusters(state: &State) -> Value {
    let snapshot = state.snapshots.load();
    let now = state.clock.now();
    let clusters: Vec<Value> = snapshot.clusters.values().map(|named| cluster(named, now)).collect();
    json!({ "snapshot_version": snapshot.version, "clusters": clusters })
}

fn cluster(cluster: &Cluster, now: Instant) -> Value {
    let runtime = &cluster.runtime;
    let lineup = balance::lineup(cluster, now);
    let endpoints = cluster.endpoints.iter().enumerate().map(|(index, item)| {
        let mut shown = endpoint(item, now);
        if let Value::Object(shown) = &mut shown {
            shown.extend(balance::part(&lineup, index, item, now));
        }
        shown
    });
    json!({
        "name": cluster.name().as_str(),
        "authorities": cluster.settings.authorities,
        "source": controller::kind(&cluster.settings.source),
        "in_flight": number(&runtime.in_flight),
        "connections": number(&runtime.connections),
        "requests": requests(&runtime.counts),
        "retries": count(&runtime.retries),
        "retries_over_budget": count(&runtime.retries_over_budget),
        "rate_limits": limits::rate_limits(cluster, now),
        "faults": { "delays": count(&runtime.faults.delays), "aborts": count(&runtime.faults.aborts) },
        "tls_failures": tls_failures(&runtime.tls_failures),
        "discovery": discovery(cluster, now),
        "balancing": balance::whole(&lineup),
        "outlier_detection": outlier::whole(cluster),
        "health_checks": cluster.settings.health_check.as_ref().map(|_settings| checks(&runtime.checks)),
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn discovery(cluster: &Cluster, now: Instant) -> Value {
    let status = &cluster.runtime.discovery;
    json!({
        "age_seconds": status.age(now).map(|age| age.as_secs_f64()),
        "failures": count(&status.failures),
        "error": status.error(),
        "dns": dns(&cluster.settings.source, &status.lookups),
    })
}

/// `null` if the endpoints come from elsewhere.
fn dns(source: &EndpointSource, lookups: &Lookups) -> Value {
    let EndpointSource::Dns(dns) = source else { return Value::Null };
    let by_outcome: Map<String, Value> = LookupOutcome::ALL
        .into_iter()
        .zip(&lookups.by_outcome)
        .map(|(outcome, value)| (outcome.label().to_owned(), count(value)))
        .collect();
    let ttl = Duration::from_millis(lookups.ttl_ms.load(Ordering::Relaxed));
    json!({
        "name": dns.name,
        "record": dns.records.word(),
        "ttl_seconds": ttl.as_secs_f64(),
        "lookups": by_outcome,
    })
}

fn requests(counts: &RequestCounts) -> Value {
    const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
    let by_status: Map<String, Value> = CLASSES
        .iter()
        .zip(&counts.by_class)
        .map(|(class, value)| ((*class).to_owned(), count(value)))
        .collect();
    let latency = counts.latency.read();
    let millis = |ratio| latency.quantile(ratio).map(|seconds| seconds * 1000.0);
    json!({
        "by_status": by_status,
        "by_flag": flags(&counts.by_flag),
        "latency_ms": { "p50": millis(0.5), "p99": millis(0.99) },
    })
}

/// Only flags that occurred: most never do.
fn flags(counts: &[AtomicU64]) -> Map<String, Value> {
    let named = ResponseFlag::ALL.into_iter().zip(counts);
    let occurred = named.filter(|(_, value)| value.load(Ordering::Relaxed) > 0);
    occurred.map(|(flag, value)| (flag.letters().to_owned(), count(value))).collect()
}

/// Only reasons that occurred.
fn tls_failures(counts: &[AtomicU64]) -> Map<String, Value> {
    let named = TlsFailure::ALL.into_iter().zip(counts);
    let occurred = named.filter(|(_, value)| value.load(Ordering::Relaxed) > 0);
    occurred.map(|(reason, value)| (reason.label().to_owned(), count(value))).collect()
}

/// Only outcomes that occurred.
fn checks(counts: &CheckCounts) -> Map<String, Value> {
    let read = CheckOutcome::ALL.map(|outcome| (outcome, counts.read(outcome)));
    let occurred = read.into_iter().filter(|(_, count)| *count > 0);
    occurred.map(|(outcome, count)| (outcome.label().to_owned(), count.into())).collect()
}

/// What health checks say of an endpoint; `null` if it was not checked.
fn health_check(health: &Health, now: Instant) -> Value {
    let state = health.checks();
    let Some(last) = state.last else { return Value::Null };
    json!({
        "verdict": health.checked().label(),
        "contrary": state.contrary,
        "last": last.outcome.label(),
        "text": last.text,
        "age_seconds": now.saturating_duration_since(last.at).as_secs_f64(),
    })
}

fn endpoint(endpoint: &Endpoint, now: Instant) -> Value {
    let runtime = &endpoint.runtime;
    // 0 is "no sample yet".
    let latency = Some(runtime.latency_us.load(Ordering::Relaxed)).filter(|micros| *micros > 0);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a latency")]
    let latency_ms = latency.map(|micros| micros as f64 / 1000.0);
    json!({
        "address": endpoint.address().to_string(),
        "spiffe_ids": endpoint.settings.spiffe_ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "picks": count(&runtime.picks),
        "failures": count(&runtime.failures),
        "in_flight": number(&runtime.in_flight),
        "connections": number(&runtime.connections),
        "latency_ms": latency_ms,
        "ready": endpoint.settings.is_ready,
        "health_check": health_check(&runtime.health, now),
        "seen": outlier::part(endpoint, now),
        "tls": runtime.tls().as_ref().map(tls),
        "tls_failure": runtime.tls_failure(),
    })
}

fn tls(facts: &TlsFacts) -> Value {
    json!({
        "peer": &*facts.peer,
        "version": facts.version,
        "cipher_suite": facts.cipher_suite,
        "key_exchange": facts.key_exchange,
        "alpn": facts.alpn,
    })
}

/// Every listener with its counters and callers.
pub(super) fn listeners(state: &State) -> Value {
    let snapshot = state.snapshots.load();
    let entries = snapshot.config.listeners.values();
    let listeners: Vec<Value> = entries.map(|entry| listener(&entry.settings, &entry.runtime)).collect();
    json!({ "listeners": listeners })
}

fn listener(settings: &Listener, runtime: &ListenerRuntime) -> Value {
    let (named, other) = runtime.peers.read();
    let mut peers: Vec<Value> = named.iter().map(|(id, counts)| peer(id.as_str(), counts)).collect();
    if other.connections.load(Ordering::Relaxed) > 0 {
        peers.push(peer("other", &other));
    }
    json!({
        "name": &*settings.name,
        "address": settings.address.to_string(),
        "direction": if settings.is_inbound() { "inbound" } else { "outbound" },
        "accepted": count(&runtime.accepted),
        "active": runtime.active.load(Ordering::Relaxed),
        "shed": labelled(Shed::ALL.map(Shed::label), &runtime.closed.shed),
        "misused": labelled(Misuse::ALL.map(Misuse::label), &runtime.closed.misused),
        "recycled": count(&runtime.recycled),
        "no_longer_allowed": labelled(Revoked::ALL.map(Revoked::label), &runtime.revoked),
        "accept_errors": count(&runtime.accept_errors),
        "refused": labelled(Refusal::ALL.map(Refusal::label), &runtime.refused),
        "unrouted": flags(&runtime.unrouted),
        "exceptions": exceptions(runtime),
        "peers": peers,
    })
}

fn labelled<const N: usize>(labels: [&str; N], counts: &[AtomicU64; N]) -> Map<String, Value> {
    labels.iter().zip(counts).map(|(label, value)| ((*label).to_owned(), count(value))).collect()
}

/// Connections let in without mutual TLS.
fn exceptions(runtime: &ListenerRuntime) -> Map<String, Value> {
    let labels = Exception::ALL.map(|exception| exception.label().to_owned());
    labels.into_iter().zip(runtime.exceptions.iter().map(|counts| count(&counts.connections))).collect()
}

fn peer(name: &str, counts: &PeerCount) -> Value {
    json!({
        "peer": name,
        "requests": count(&counts.requests),
        "connections": count(&counts.connections),
        "tls": counts.tls().as_ref().map(tls),
    })
}

/// Who we are and whom we trust.
pub(super) fn certs(state: &State) -> Value {
    let snapshot = state.snapshots.load();
    let renewal = progress(&state.identity.renewals);
    let Some(identity) = &snapshot.identity else {
        return json!({ "spiffe_id": null, "renewal": renewal, "trust_bundles": [] });
    };
    let now = state.clock.wall();
    let remaining = identity.svid.not_after().duration_since(now).unwrap_or_default();
    let bundles: Vec<Value> = identity
        .bundles
        .iter()
        .map(|bundle| {
            json!({
                "trust_domain": bundle.trust_domain().as_str(),
                "sequence": bundle.sequence(),
                "roots": bundle.roots().len(),
            })
        })
        .collect();
    json!({
        "spiffe_id": identity.svid.id().as_str(),
        "not_before": time(identity.svid.not_before()),
        "not_after": time(identity.svid.not_after()),
        "remaining_seconds": remaining.as_secs(),
        "age_ratio": identity.age_ratio(now),
        "renewal": renewal,
        "bundle_refresh": progress(&state.identity.bundle_refreshes),
        "trust_bundles": bundles,
        "federation": federation::bundles(state, &snapshot.config.settings),
    })
}

fn progress(progress: &Progress) -> Value {
    let last = progress.last();
    json!({
        "successes": count(&progress.successes),
        "failures": count(&progress.failures),
        "last_success": last.succeeded_at.map(time),
        "error": last.error,
    })
}

pub(super) fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

fn count(value: &AtomicU64) -> Value {
    value.load(Ordering::Relaxed).into()
}

fn number(value: &AtomicU32) -> Value {
    value.load(Ordering::Relaxed).into()
}
