//! `/config`: the settings in force, defaults filled in. Files are shown by their names, never by their content.

use std::{sync::Arc, time::Duration};

use outrider_certs::SpiffeId;
use serde_json::{Value, json};

use super::time;
use crate::{
    admin::State,
    model::{
        ClusterSettings, EndpointSettings, Listener, ListenerKind,
        cluster::{AppProtocol, Balance, EndpointSource},
        dns::{DnsRecords, DnsSettings},
        exceptions::exceptions,
        intercept::{InterceptSettings, Mode, Own, Unknown},
        listener::{Inbound, Protocol},
        reload::Report,
        settings::{IdentitySource, MemoryBudget, Settings},
        transport::{HttpVersion, PeerKind, Roots, Transport},
    },
};

/// The settings in force, and why newer ones are not.
pub(in crate::admin) fn config(state: &State) -> Value {
    let snapshot = state.snapshots.load();
    let settings = &snapshot.config.settings;
    let file = state.config.file();
    json!({
        "generation": snapshot.config.number,
        "sha256": file.sha256,
        "last_success": time(file.succeeded_at),
        "rejected": file.rejected.as_ref().map(|rejection| json!({
            "at": time(rejection.at),
            "report": report(&rejection.report),
        })),
        "bootstrap": bootstrap(settings),
        "listeners": settings.listeners.iter().map(|item| listener(item)).collect::<Vec<_>>(),
        "clusters": settings.clusters.iter().map(cluster).collect::<Vec<_>>(),
    })
}

/// What became of a reload.
pub(in crate::admin) fn report(report: &Report) -> Value {
    let faults = report.faults.iter().map(|fault| {
        json!({
            "path": fault.path,
            "line": fault.line,
            "problem": fault.problem,
            "remedy": fault.remedy,
            "text": fault.to_string(),
        })
    });
    json!({
        "outcome": report.outcome.label(),
        "generation": report.generation,
        "sha256": report.sha256,
        "faults": faults.collect::<Vec<_>>(),
    })
}

fn bootstrap(settings: &Settings) -> Value {
    let Settings { bootstrap, drain, limits, .. } = settings;
    let tls = &bootstrap.tls;
    json!({
        "service": bootstrap.service,
        "trust_domain": bootstrap.trust_domain.as_str(),
        "workers": bootstrap.workers,
        "state_dir": bootstrap.state_dir,
        "identity": identity(&bootstrap.identity),
        "tls": {
            "cipher_suites": tls.cipher_suites.iter().map(|suite| format!("{suite:?}")).collect::<Vec<_>>(),
            "key_exchange": tls.key_exchange.iter().map(|group| format!("{group:?}")).collect::<Vec<_>>(),
        },
        "admin": {
            "socket": bootstrap.admin.socket,
            "listen": bootstrap.admin.listen.map(|address| address.to_string()),
        },
        "intercept": bootstrap.intercept.as_ref().map(|intercept| self::intercept(intercept, settings)),
        "drain": {
            "idle_grace": duration(drain.idle_grace),
            "deadline": duration(drain.deadline),
        },
        "limits": {
            "max_connections": limits.max_connections,
            "max_connections_per_peer": limits.max_connections_per_peer,
            "max_handshakes": limits.max_handshakes,
            "header_bytes": limits.header_bytes,
            "header_count": limits.header_count,
            "max_streams": limits.max_streams,
            "max_resets": limits.max_resets,
            "handshake_timeout": duration(limits.handshake_timeout),
            "header_read_timeout": duration(limits.header_read_timeout),
            "idle_timeout": duration(limits.idle_timeout),
            "tcp_user_timeout": limits.tcp_user_timeout.map(duration),
            "stream_window": limits.stream_window_bytes,
            "memory": match limits.memory {
                MemoryBudget::Auto { .. } => "auto".into(),
                MemoryBudget::Bytes(bytes) => Value::from(bytes),
                MemoryBudget::None => "none".into(),
            },
        },
    })
}

/// What the kernel's rules are made from; each exception by its name: it is a hole in mutual TLS.
fn intercept(intercept: &InterceptSettings, settings: &Settings) -> Value {
    let own = match intercept.own {
        Own::Uid(uid) => json!({ "uid": uid }),
        Own::Mark(mark) => json!({ "mark": mark }),
    };
    let exceptions = exceptions(intercept, settings);
    json!({
        "mode": mode(intercept.mode),
        "own": own,
        "outbound_port": intercept.outbound.port,
        "inbound_port": intercept.inbound.port,
        "exceptions": exceptions.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Redirect => "redirect",
        Mode::Tproxy => "tproxy",
    }
}

fn identity(source: &IdentitySource) -> Value {
    match source {
        IdentitySource::Ca { address, join_token_file, validity } => json!({ "ca": {
            "address": address,
            "join_token_file": join_token_file,
            "validity": duration(*validity),
        }}),
        IdentitySource::File { certificate, key, bundle } => json!({ "file": {
            "certificate": certificate,
            "key": key,
            "bundle": bundle,
        }}),
    }
}

fn listener(listener: &Listener) -> Value {
    let kind = match &listener.kind {
        ListenerKind::OutboundHttp { default_cluster } => json!({ "outbound": {
            "protocol": "http",
            "cluster": default_cluster.as_ref().map(|name| name.as_str()),
        }}),
        ListenerKind::OutboundTcp { cluster } => json!({ "outbound": {
            "protocol": "tcp",
            "cluster": cluster.as_str(),
        }}),
        ListenerKind::Inbound(rules) => json!({ "inbound": inbound(rules) }),
        ListenerKind::InterceptedOutbound { unknown } => json!({ "intercepted_outbound": {
            "unknown": match unknown { Unknown::Passthrough => "passthrough", Unknown::Deny => "deny" },
        }}),
        ListenerKind::InterceptedInbound(intercepted) => json!({ "intercepted_inbound": {
            "mode": mode(intercepted.mode),
            "ports": intercepted.ports.iter()
                .map(|(port, rules)| (port.to_string(), inbound(rules)))
                .collect::<serde_json::Map<_, _>>(),
            "other_ports": inbound(&intercepted.others),
        }}),
    };
    json!({ "name": &*listener.name, "listen": listener.address.to_string(), "kind": kind })
}

fn inbound(inbound: &Inbound) -> Value {
    let exceptions = &inbound.exceptions;
    json!({
        "cluster": inbound.app.as_str(),
        "protocol": carried(inbound.protocol),
        "app_protocol": protocol(inbound.app_protocol),
        "peer": peer(inbound.peer),
        "allow": ids(&inbound.allow),
        "plaintext_until": exceptions.plaintext_until.map(time),
        "probes": exceptions.probes,
        "app_tls": if exceptions.app_tls { "passthrough" } else { "terminate" },
    })
}

fn carried(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "detect",
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
    }
}

fn cluster(cluster: &Arc<ClusterSettings>) -> Value {
    let source = match &cluster.source {
        EndpointSource::Static(endpoints) => {
            json!({ "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>() })
        }
        EndpointSource::File { path, default_spiffe_ids } => {
            json!({ "endpoints_file": path, "spiffe_ids": ids(default_spiffe_ids) })
        }
        EndpointSource::Dns(settings) => dns(settings),
    };
    json!({
        "name": cluster.name.as_str(),
        "authorities": cluster.authorities,
        "addresses": cluster.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "protocol": carried(cluster.protocol),
        "source": source,
        "tls": cluster.transport.label(),
        "transport": transport(&cluster.transport),
        "balance": match cluster.balance {
            Balance::PeakEwma => "peak_ewma",
            Balance::RoundRobin => "round_robin",
        },
        "connect_timeout": duration(cluster.timeouts.connect),
        "request_timeout": cluster.timeouts.request.map(duration),
        "stream_idle_timeout": duration(cluster.timeouts.stream_idle),
        "half_open_timeout": cluster.timeouts.half_open.map(duration),
        "pool_idle_timeout": duration(cluster.timeouts.pool_idle),
        "max_connection_age": duration(cluster.timeouts.connection_age),
        "retry": {
            "max_retries": cluster.retry.max_retries,
            "budget_ratio": cluster.retry.budget_ratio,
            "budget_min_per_second": cluster.retry.budget_min_per_second,
            "replay_bytes": cluster.retry.replay_bytes,
            "backoff_base": duration(cluster.retry.backoff_base),
        },
        "max_requests": cluster.caps.max_requests,
        "max_connections": cluster.caps.max_connections,
        "max_pending": cluster.caps.max_pending,
    })
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
    json!({ "address": endpoint.address.to_string(), "spiffe_ids": ids(&endpoint.spiffe_ids) })
}

fn transport(transport: &Transport) -> Value {
    match transport {
        Transport::Mesh(kind, version) => {
            let version = match version {
                HttpVersion::Http2 => "http2",
                HttpVersion::Http1 => "http1",
            };
            json!({ "peer": peer(*kind), "protocol": version })
        }
        Transport::Public(public) => json!({
            "server_name": &*public.server_name,
            "roots": match &public.roots {
                Roots::System => json!("system"),
                Roots::File(path) => json!(path),
            },
            "certificate": public.client.as_ref().map(|client| &client.certificate),
            "key": public.client.as_ref().map(|client| &client.key),
            "protocol": protocol(public.protocol),
        }),
        Transport::Plain(spoken) => json!({ "protocol": protocol(*spoken) }),
        Transport::App => json!({}),
    }
}

fn protocol(protocol: AppProtocol) -> &'static str {
    match protocol {
        AppProtocol::Auto => "auto",
        AppProtocol::Http1 => "http1",
        AppProtocol::Http2 => "http2",
    }
}

fn peer(kind: PeerKind) -> &'static str {
    match kind {
        PeerKind::Outrider => "outrider",
        PeerKind::Standard => "standard",
    }
}

fn ids(ids: &[SpiffeId]) -> Vec<&str> {
    ids.iter().map(SpiffeId::as_str).collect()
}

fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
