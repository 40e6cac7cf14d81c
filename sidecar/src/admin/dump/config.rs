//! `/config`: the settings in force, defaults filled in. Files are shown by their names, never by their content.

use std::{sync::Arc, time::Duration};

use outrider_certs::SpiffeId;
use serde_json::{Value, json};

use super::{
    authorization::authorization,
    controller::{controller, source},
    federation::federation,
    identity::identity,
    limits, outlier,
    probes::probe,
    routes,
    streams::{proxy_protocol, tcp_route, version},
    telemetry::telemetry,
    time,
};
use crate::{
    admin::State,
    model::{
        ClusterSettings, Listener, ListenerKind,
        authorization::Whose,
        balance::{Affinity, AffinityBy, Balance},
        cluster::AppProtocol,
        exceptions::exceptions,
        health_check::{HealthCheck, Question},
        intercept::{InterceptSettings, Mode, Own, Unknown},
        listener::{Inbound, Protocol},
        policy::{Hedge, Methods, RetryPolicy},
        reload::Report,
        settings::{MemoryBudget, Settings},
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
        "controller": settings.bootstrap.controller.as_deref().map(|asked| controller(state, asked)),
        "telemetry": telemetry(&settings.telemetry),
        "federation": settings.federation.iter().map(federation).collect::<Vec<_>>(),
        "probes": settings.probes.iter().map(probe).collect::<Vec<_>>(),
        "listeners": settings.listeners.iter().map(|item| listener(item)).collect::<Vec<_>>(),
        "clusters": settings.clusters.iter().map(cluster).collect::<Vec<_>>(),
        "tcp_routes": settings.tcp_routes.0.iter().map(tcp_route).collect::<Vec<_>>(),
        "routes": settings.routes.routes.iter().map(routes::http_route).collect::<Vec<_>>(),
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
    let Settings { bootstrap, drain, limits, forwarded, .. } = settings;
    let tls = &bootstrap.tls;
    let rules_of = |whose| settings.authorization.as_deref().and_then(|rules| authorization(rules, whose));
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
        "authorization": rules_of(Whose::File),
        "controller_authorization": rules_of(Whose::Controller),
        "forwarded": { "client_cert": forwarded.client_cert.label() },
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
            "max_connection_age": limits.connection_age.map(duration),
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
    json!({
        "name": &*listener.name,
        "listen": listener.address.to_string(),
        "kind": kind,
        "proxy_protocol": listener.proxy_protocol.as_deref().map(proxy_protocol),
    })
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
        "plaintext_from": exceptions.from.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "probes": exceptions.probes,
        "app_tls": if exceptions.app_tls { "passthrough" } else { "terminate" },
        "proxy_protocol": inbound.proxy_protocol.as_deref().map(proxy_protocol),
        "app_proxy_protocol": inbound.app_proxy_protocol.map(version),
        "trusted_hops": exceptions.trusted_hops,
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
    json!({
        "name": cluster.name.as_str(),
        "authorities": cluster.authorities,
        "addresses": cluster.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "protocol": carried(cluster.protocol),
        "source": source(&cluster.source),
        "tls": cluster.transport.label(),
        "transport": transport(&cluster.transport),
        "balance": match cluster.balance {
            Balance::PeakEwma => "peak_ewma",
            Balance::LeastRequest => "least_request",
            Balance::RoundRobin => "round_robin",
            Balance::Random => "random",
            Balance::Maglev => "maglev",
        },
        "health_check": cluster.health_check.as_ref().map(health_check),
        "affinity": cluster.balancing.affinity.as_ref().map(affinity),
        "panic_percent": cluster.balancing.panic_percent,
        "slow_start": cluster.balancing.slow_start.map(duration),
        "zones": if cluster.balancing.prefers_zone { "prefer" } else { "ignore" },
        "connect_timeout": duration(cluster.timeouts.connect),
        "queue_timeout": duration(cluster.timeouts.queue),
        "request_timeout": cluster.policy.request_timeout.map(duration),
        "stream_idle_timeout": duration(cluster.timeouts.stream_idle),
        "half_open_timeout": cluster.timeouts.half_open.map(duration),
        "pool_idle_timeout": duration(cluster.timeouts.pool_idle),
        "max_connection_age": duration(cluster.timeouts.connection_age),
        "retry": retry(&cluster.policy.retry),
        "retry_budget": {
            "ratio": cluster.retry_budget.ratio,
            "min_per_second": cluster.retry_budget.min_per_second,
            "max_active": cluster.retry_budget.max_active,
        },
        "outlier_detection": outlier::settings(cluster.outlier.as_ref()),
        "max_requests": cluster.caps.max_requests,
        "max_connections": cluster.caps.max_connections,
        "max_pending": cluster.caps.max_pending,
        "rate_limits": limits::configured(&cluster.policy),
        "fault": limits::fault(&cluster.policy),
        "routes": cluster.routes.iter().map(routes::route).collect::<Vec<_>>(),
    })
}

fn health_check(check: &HealthCheck) -> Value {
    let (path, host, service) = match &check.question {
        Question::Http { path, host } => (Some(path), Some(host), None),
        Question::Grpc { service, host } => (None, Some(host), Some(service)),
        Question::Tcp => (None, None, None),
    };
    json!({
        "protocol": check.question.label(),
        "path": path,
        "host": host,
        "service": service,
        "interval": duration(check.interval),
        "timeout": duration(check.timeout),
        "unhealthy_threshold": check.unhealthy_threshold,
        "healthy_threshold": check.healthy_threshold,
    })
}

fn affinity(affinity: &Affinity) -> Value {
    let (by, name, ttl) = match &affinity.by {
        AffinityBy::Header(name) => ("header", Some(name.as_str()), None),
        AffinityBy::Cookie { name, ttl } => ("cookie", Some(&**name), *ttl),
        AffinityBy::Source => ("source", None, None),
        AffinityBy::SpiffeId => ("spiffe_id", None, None),
    };
    let ttl = ttl.map(duration);
    json!({ "by": by, "name": name, "ttl": ttl, "max_load_percent": affinity.max_load_percent })
}

pub(super) fn retry(retry: &RetryPolicy) -> Value {
    json!({
        "max_retries": retry.max_retries,
        "per_try_timeout": retry.per_try_timeout.map(duration),
        "statuses": retry.statuses.iter().collect::<Vec<_>>(),
        "grpc_statuses": retry.grpc_statuses.names().collect::<Vec<_>>(),
        "methods": match retry.methods {
            Methods::Idempotent => "idempotent",
            Methods::Any => "any",
            Methods::None => "none",
        },
        "replay_bytes": retry.replay_bytes,
        "backoff_base": duration(retry.backoff_base),
        "hedge": match retry.hedge {
            Hedge::Never => Value::Null,
            Hedge::After(delay) => duration(delay).into(),
            Hedge::P95 => "p95".into(),
        },
    })
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

pub(super) fn ids(ids: &[SpiffeId]) -> Vec<&str> {
    ids.iter().map(SpiffeId::as_str).collect()
}

pub(super) fn duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}
