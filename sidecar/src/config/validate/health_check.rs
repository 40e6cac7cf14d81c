//! `clusters[].health_check`: what is asked of endpoints, and how often.

use http::uri::PathAndQuery;
use serde_saphyr::Spanned;

use super::bootstrap::to_u32;
use crate::{
    canonical,
    config::{
        defaults::{self, CheckProtocol},
        raw,
        value::{Text, choice, quantity},
    },
    model::{
        cluster::AppProtocol,
        file::{Faults, Place, quoted, report_odd_keys},
        health_check::{HealthCheck, Question},
        transport::{HttpVersion, PeerKind, Transport},
    },
};

/// Longest name of a gRPC service, in bytes.
const MAX_SERVICE_BYTES: usize = 256;

/// How a cluster's endpoints are checked, if they are. `authorities` are what requests to it are for.
pub(super) fn health_check(
    raw: Option<&Spanned<raw::HealthCheck>>,
    transport: Option<&Transport>,
    authorities: &[String],
    place: &Place,
    faults: &mut Faults,
) -> Option<HealthCheck> {
    let raw = raw?;
    let place = place.key("health_check").at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::HealthCheck::KEYS, &place, faults);
    let protocol = choice(raw.protocol.as_ref(), &defaults::CHECK_PROTOCOL, &place, faults);
    check_keys(raw, protocol, &place, faults);
    let path = path(raw.path.as_ref(), &place, faults);
    let service = service(raw.service.as_ref(), &place, faults);
    let host = host(raw.host.as_ref(), transport, authorities, &place, faults);
    if protocol == CheckProtocol::Grpc && transport.is_some_and(is_http1) {
        let remedy = "use protocol: http or tcp, or speak http2 with the cluster";
        faults.add(&place.key("protocol"), "grpc needs HTTP/2, and the cluster speaks HTTP/1", remedy);
    }
    let mut count = |text, key| to_u32(quantity::<u64>(text, key, &place, faults));
    let unhealthy_threshold = count(raw.unhealthy_threshold.as_ref(), &defaults::UNHEALTHY_THRESHOLD);
    let healthy_threshold = count(raw.healthy_threshold.as_ref(), &defaults::HEALTHY_THRESHOLD);
    Some(HealthCheck {
        question: match protocol {
            CheckProtocol::Http => Question::Http { path, host },
            CheckProtocol::Grpc => Question::Grpc { service, host },
            CheckProtocol::Tcp => Question::Tcp,
        },
        interval: quantity(raw.interval.as_ref(), &defaults::CHECK_INTERVAL, &place, faults),
        timeout: quantity(raw.timeout.as_ref(), &defaults::CHECK_TIMEOUT, &place, faults),
        unhealthy_threshold,
        healthy_threshold,
    })
}

/// A key of a protocol that is not asked by is a fault: it would read as if it held.
fn check_keys(raw: &raw::HealthCheck, protocol: CheckProtocol, place: &Place, faults: &mut Faults) {
    let is_for = |wanted: &[CheckProtocol]| wanted.contains(&protocol);
    let keys = [
        (&raw.path, "path", is_for(&[CheckProtocol::Http]), "http"),
        (&raw.service, "service", is_for(&[CheckProtocol::Grpc]), "grpc"),
        (&raw.host, "host", is_for(&[CheckProtocol::Http, CheckProtocol::Grpc]), "http and grpc"),
    ];
    for (text, key, is_right, what) in keys {
        if let Some(text) = text.as_ref().filter(|_| !is_right) {
            let problem = format!("is for protocol: {what} only");
            faults.add(&place.key(key).at(text), problem, "leave it out, or choose that protocol");
        }
    }
}

fn path(text: Text<'_>, place: &Place, faults: &mut Faults) -> String {
    let Some(text) = text else { return defaults::CHECK_PATH.to_owned() };
    let is_path = text.value.starts_with('/')
        && !text.value.contains('#')
        && text.value.bytes().all(|byte| byte.is_ascii_graphic())
        && text.value.parse::<PathAndQuery>().is_ok();
    if !is_path {
        let problem = format!("{} is not a path", quoted(&text.value));
        faults.add(&place.key("path").at(text), problem, "write it as /healthz or /ready?full=1");
    }
    text.value.clone()
}

fn service(text: Text<'_>, place: &Place, faults: &mut Faults) -> String {
    let Some(text) = text else { return String::new() };
    let fits =
        text.value.len() <= MAX_SERVICE_BYTES && text.value.bytes().all(|byte| byte.is_ascii_graphic());
    if !fits {
        let problem = format!("{} is not the name of a gRPC service", quoted(&text.value));
        faults.add(&place.key("service").at(text), problem, "write it as orders.v1.Orders");
    }
    text.value.clone()
}

/// Whom checks are for: what the file says, else whom requests are for.
fn host(
    text: Text<'_>,
    transport: Option<&Transport>,
    authorities: &[String],
    place: &Place,
    faults: &mut Faults,
) -> String {
    let Some(text) = text else {
        return match (transport, authorities.first()) {
            (Some(Transport::Public(public)), _) => authority_of(&public.server_name),
            (_, Some(authority)) => authority.clone(),
            (_, None) => defaults::CHECK_HOST.to_owned(),
        };
    };
    let host = canonical::authority(&text.value).filter(|host| !host.is_empty());
    if host.is_none() {
        let problem = format!("{} is not a host, or host:port", quoted(&text.value));
        faults.add(&place.key("host").at(text), problem, "write it as orders or orders.example:8080");
    }
    host.map(std::borrow::Cow::into_owned).unwrap_or_default()
}

/// A name as it stands in a target: IPv6 in brackets.
fn authority_of(name: &str) -> String {
    if name.contains(':') { format!("[{name}]") } else { name.to_owned() }
}

/// Whether HTTP/2 is never spoken with the cluster. Between sidecars it always may be.
fn is_http1(transport: &Transport) -> bool {
    match transport {
        Transport::Mesh(PeerKind::Standard, version) => *version == HttpVersion::Http1,
        Transport::Public(public) => public.protocol == AppProtocol::Http1,
        Transport::Plain(protocol) => *protocol == AppProtocol::Http1,
        Transport::Mesh(PeerKind::Outrider, _) | Transport::App => false,
    }
}
