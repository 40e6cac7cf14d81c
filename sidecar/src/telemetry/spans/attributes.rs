//! Attributes of spans.

use std::borrow::Cow;

use http::{Method, Version};
use opentelemetry::{KeyValue, trace::SpanKind};
use opentelemetry_semantic_conventions::attribute as semconv;

use crate::{
    model::{flag::ResponseFlag, statuses::GRPC_NAMES},
    telemetry::trail::{Attempt, Caller, Traffic, Trail},
};

/// Bytes of a text.
const MAX_BYTES: usize = 256;

/// What the conventions of RPC called these before they were renamed. Backends know one or the other.
const RPC_SYSTEM: &str = "rpc.system";
const RPC_SERVICE: &str = "rpc.service";
const RPC_GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";

/// A text, cut.
pub(super) fn cut(text: &str) -> String {
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

/// The method, if it is one that everybody knows: others could be without number.
pub(super) fn known_method(trail: &Trail) -> Option<&'static str> {
    let method = &trail.asked.as_ref()?.method;
    let known = [
        (Method::GET, "GET"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::DELETE, "DELETE"),
        (Method::HEAD, "HEAD"),
        (Method::PATCH, "PATCH"),
        (Method::OPTIONS, "OPTIONS"),
        (Method::CONNECT, "CONNECT"),
        (Method::TRACE, "TRACE"),
    ];
    known.iter().find(|(known, _)| known == method).map(|(_, name)| *name)
}

/// `package.Service/Method`.
pub(super) fn grpc_method(trail: &Trail) -> Option<&str> {
    let path = trail.asked.as_ref()?.target.as_ref()?.path();
    path.strip_prefix('/').filter(|rest| !rest.is_empty())
}

/// What was asked for, and by whom.
pub(super) fn asked(trail: &Trail, kind: SpanKind) -> Vec<KeyValue> {
    let mut found = Vec::with_capacity(24);
    if trail.kind == Traffic::Stream {
        found.push(KeyValue::new(semconv::NETWORK_TRANSPORT, "tcp"));
    }
    if let Some(asked) = &trail.asked {
        match known_method(trail) {
            Some(method) => found.push(KeyValue::new(semconv::HTTP_REQUEST_METHOD, method)),
            None => {
                found.push(KeyValue::new(semconv::HTTP_REQUEST_METHOD, "_OTHER"));
                found.push(KeyValue::new(semconv::HTTP_REQUEST_METHOD_ORIGINAL, cut(asked.method.as_str())));
            }
        }
        if let Some(target) = asked.target.as_ref().filter(|_| trail.kind != Traffic::Tunnel) {
            found.push(KeyValue::new(semconv::URL_PATH, cut(target.path())));
            found.push(KeyValue::new(semconv::URL_SCHEME, "http"));
            if kind == SpanKind::Client && trail.kind == Traffic::Http && !asked.authority.is_empty() {
                let url = format!("http://{}{}", asked.authority, target.path());
                found.push(KeyValue::new(semconv::URL_FULL, cut(&url)));
            }
        }
        found.extend(server(&asked.authority));
        found.push(KeyValue::new(semconv::NETWORK_PROTOCOL_NAME, "http"));
        if let Some(version) = version(asked.version) {
            found.push(KeyValue::new(semconv::NETWORK_PROTOCOL_VERSION, version));
        }
    }
    if trail.kind == Traffic::Grpc {
        found.push(KeyValue::new(semconv::RPC_SYSTEM_NAME, "grpc"));
        found.push(KeyValue::new(RPC_SYSTEM, "grpc"));
        if let Some(called) = grpc_method(trail) {
            found.push(KeyValue::new(semconv::RPC_METHOD, cut(called)));
            if let Some((service, _)) = called.rsplit_once('/') {
                found.push(KeyValue::new(RPC_SERVICE, cut(service)));
            }
        }
    }
    if kind == SpanKind::Server {
        if let Some(client) = trail.client {
            found.push(KeyValue::new(semconv::CLIENT_ADDRESS, client.to_string()));
        }
        if let Caller::Peer(id) = &trail.caller {
            found.push(KeyValue::new("outrider.peer.spiffe_id", cut(id.as_ref())));
        }
    }
    found
}

/// Host and port of an authority.
fn server(authority: &str) -> Vec<KeyValue> {
    if authority.is_empty() {
        return Vec::new();
    }
    let port = authority.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let host = port.map_or(authority, |(host, _)| host);
    let host = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    let mut found = vec![KeyValue::new(semconv::SERVER_ADDRESS, cut(host))];
    // What is asked for without a port is at that of plain HTTP.
    let port = port.map_or(80, |(_, port)| port);
    found.push(KeyValue::new(semconv::SERVER_PORT, i64::from(port)));
    found
}

fn version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        _ => None,
    }
}

/// Where one attempt went, and what came of it.
pub(super) fn of_attempt(attempt: &Attempt, index: usize) -> Vec<KeyValue> {
    let mut found = vec![
        KeyValue::new(semconv::NETWORK_PEER_ADDRESS, attempt.endpoint.ip().to_string()),
        KeyValue::new(semconv::NETWORK_PEER_PORT, i64::from(attempt.endpoint.port())),
        KeyValue::new("outrider.endpoint", attempt.endpoint.to_string()),
    ];
    if index > 0 {
        let count = i64::try_from(index).unwrap_or(i64::MAX);
        found.push(KeyValue::new(semconv::HTTP_REQUEST_RESEND_COUNT, count));
    }
    if let Some(peer) = &attempt.peer {
        found.push(KeyValue::new("outrider.peer.spiffe_id", cut(peer.as_ref())));
    }
    if let Some(status) = attempt.status {
        found.push(KeyValue::new(semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(status)));
    }
    for (is_so, name) in [(attempt.is_hedge, "outrider.is_hedge"), (attempt.is_probe, "outrider.is_probe")] {
        if is_so {
            found.push(KeyValue::new(name, true));
        }
    }
    found
}

/// By what a span is found: where the request went, and under which ID.
pub(super) fn of_route(trail: &Trail) -> Vec<KeyValue> {
    let mut found = vec![KeyValue::new("outrider.direction", trail.direction.label())];
    let mut text = |name: &'static str, value: Option<Cow<'_, str>>| {
        found.extend(value.map(|value| KeyValue::new(name, cut(&value))));
    };
    text("outrider.cluster", trail.cluster.as_ref().map(|cluster| cluster.to_string().into()));
    text("outrider.route", trail.route.as_deref().map(Cow::Borrowed));
    text("outrider.authorization", trail.authorization.as_deref().map(Cow::Borrowed));
    let id = trail.request_id.as_ref().map(|id| String::from_utf8_lossy(id.as_bytes()));
    text("outrider.request_id", id);
    if trail.is_mirror {
        found.push(KeyValue::new("outrider.is_mirror", true));
    }
    found
}

/// Why a request failed, or would have if this attempt had been its last.
pub(super) fn of_flag(flag: Option<ResponseFlag>) -> Option<KeyValue> {
    flag.map(|flag| KeyValue::new("outrider.response_flag", flag.letters()))
}

/// What became of the request as a whole, and with which statuses.
pub(super) fn of_whole(trail: &Trail, status: Option<u16>, grpc: Option<u16>) -> Vec<KeyValue> {
    let mut found = vec![
        KeyValue::new("outrider.request_bytes", count(trail.request_bytes)),
        KeyValue::new("outrider.response_bytes", count(trail.response_bytes)),
    ];
    found.extend(trail.reason.as_deref().map(|reason| KeyValue::new("outrider.reason", cut(reason))));
    found.extend(status.map(|status| KeyValue::new(semconv::HTTP_RESPONSE_STATUS_CODE, i64::from(status))));
    if let Some(status) = grpc {
        found.push(KeyValue::new(RPC_GRPC_STATUS_CODE, i64::from(status)));
        found.push(KeyValue::new(semconv::RPC_RESPONSE_STATUS_CODE, grpc_status(status)));
    }
    found
}

fn count(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// The name of a gRPC status; its number if it has none.
pub(super) fn grpc_status(status: u16) -> Cow<'static, str> {
    if status == 0 {
        return "OK".into();
    }
    let named = GRPC_NAMES.iter().find(|(_, number)| u16::from(*number) == status);
    named.map_or_else(|| status.to_string().into(), |(name, _)| (*name).into())
}
