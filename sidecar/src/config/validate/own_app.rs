//! The own app behind a listener or a port: who may call it, what it speaks, what it may cost.

use std::time::SystemTime;

use outrider_certs::{SpiffeId, TrustDomain};
use serde_saphyr::Spanned;

use super::{bootstrap::to_u32, transport::peer_kind};
use crate::{
    config::{
        defaults, raw,
        value::{Text, choice, quantity, quantity_or_none},
    },
    model::{
        cluster::{
            AppProtocol, Balance, Caps, ClusterName, ClusterSettings, EndpointSettings, EndpointSource,
            RetryPolicy, Timeouts,
        },
        file::{Faults, Place, quoted, validate_spiffe_ids},
        listener::{Exceptions, Inbound, Protocol},
        transport::Transport,
    },
};

/// Probe paths of one port.
const MAX_PROBES: usize = 32;

/// The keys that an inbound listener and an intercepted port have in common.
pub(super) struct Rules<'a> {
    app_protocol: Text<'a>,
    peer: Text<'a>,
    allow: Option<&'a Spanned<raw::Texts>>,
    connect_timeout: Text<'a>,
    stream_idle_timeout: Text<'a>,
    half_open_timeout: Text<'a>,
    pool_idle_timeout: Text<'a>,
    max_requests: Text<'a>,
    max_connections: Text<'a>,
    max_pending: Text<'a>,
}

/// The keys of either section.
macro_rules! rules {
    ($raw:expr) => {
        Rules {
            app_protocol: $raw.app_protocol.as_ref(),
            peer: $raw.peer.as_ref(),
            allow: $raw.allow.as_ref(),
            connect_timeout: $raw.connect_timeout.as_ref(),
            stream_idle_timeout: $raw.stream_idle_timeout.as_ref(),
            half_open_timeout: $raw.half_open_timeout.as_ref(),
            pool_idle_timeout: $raw.pool_idle_timeout.as_ref(),
            max_requests: $raw.max_requests.as_ref(),
            max_connections: $raw.max_connections.as_ref(),
            max_pending: $raw.max_pending.as_ref(),
        }
    };
}

impl<'a> From<&'a raw::Inbound> for Rules<'a> {
    fn from(raw: &'a raw::Inbound) -> Self {
        rules!(raw)
    }
}

impl<'a> From<&'a raw::Port> for Rules<'a> {
    fn from(raw: &'a raw::Port) -> Self {
        rules!(raw)
    }
}

/// The rules of one listener or port, and the cluster of its app, which has these endpoints.
pub(super) fn inbound(
    raw: &Rules<'_>,
    (name, protocol, endpoints): (&str, Protocol, Vec<EndpointSettings>),
    place: &Place,
    trust_domain: Option<&TrustDomain>,
    faults: &mut Faults,
) -> (Inbound, ClusterSettings) {
    let app = ClusterName::new(&format!("inbound/{name}"));
    let is_standard = choice(raw.peer, &defaults::PEER, place, faults);
    let rules = Inbound {
        app: app.clone(),
        protocol,
        app_protocol: app_protocol(raw, protocol, place, faults),
        peer: peer_kind(is_standard),
        allow: allow(raw, place, trust_domain, faults),
        exceptions: Exceptions::default(),
    };
    (rules, app_cluster(raw, app, endpoints, place, faults))
}

/// What may come in at an intercepted port without mutual TLS.
pub(super) fn exceptions(raw: &raw::Port, place: &Place, faults: &mut Faults) -> Exceptions {
    Exceptions {
        plaintext_until: plaintext_until(raw, place, faults),
        probes: probes(raw, place, faults),
        app_tls: choice(raw.app_tls.as_ref(), &defaults::APP_TLS, place, faults),
    }
}

fn plaintext_until(raw: &raw::Port, place: &Place, faults: &mut Faults) -> Option<SystemTime> {
    let is_permissive = choice(raw.plaintext.as_ref(), &defaults::PLAINTEXT, place, faults);
    let place = place.key("plaintext_until");
    match (is_permissive, &raw.plaintext_until) {
        (false, None) => None,
        (true, None) => {
            faults.add(&place, "is missing", "say until when plaintext is let in, as 2027-01-31");
            None
        }
        (false, Some(text)) => {
            let remedy = "leave it out, or say plaintext: permissive";
            faults.add(&place.at(text), "has no meaning while plaintext is refused", remedy);
            None
        }
        (true, Some(text)) => {
            let time = humantime::parse_rfc3339(&format!("{}T00:00:00Z", text.value)).ok();
            if time.is_none() {
                let problem = format!("{} is not a date", quoted(&text.value));
                faults.add(&place.at(text), problem, "write it as 2027-01-31 (UTC)");
            }
            time
        }
    }
}

fn probes(raw: &raw::Port, place: &Place, faults: &mut Faults) -> Vec<String> {
    let Some(list) = &raw.probes else { return Vec::new() };
    let place = place.key("probes").at(list);
    if list.value.len() > MAX_PROBES {
        faults.add(&place, format!("{} paths", list.value.len()), format!("keep to {MAX_PROBES}"));
    }
    for (index, text) in list.value.iter().enumerate() {
        let is_path = text.value.starts_with('/')
            && text.value.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
        if !is_path {
            let problem = format!("{} is not a path", quoted(&text.value));
            faults.add(&place.item(index).at(text), problem, "write it as /healthz, without a query");
        }
    }
    list.value.iter().map(|text| text.value.clone()).collect()
}

/// What the app speaks; only HTTP has versions.
fn app_protocol(raw: &Rules<'_>, protocol: Protocol, place: &Place, faults: &mut Faults) -> AppProtocol {
    if let (Protocol::Tcp, Some(text)) = (protocol, raw.app_protocol) {
        let place = place.key("app_protocol").at(text);
        faults.add(&place, "is for HTTP only", "leave it out where protocol is tcp");
    }
    choice(raw.app_protocol, &defaults::APP_PROTOCOL, place, faults)
}

/// Who may call. Only the own trust domain's roots are known, so an ID of another can never match.
fn allow(
    raw: &Rules<'_>,
    place: &Place,
    trust_domain: Option<&TrustDomain>,
    faults: &mut Faults,
) -> Vec<SpiffeId> {
    let Some(list) = raw.allow else { return Vec::new() };
    let place = place.key("allow");
    if list.value.is_empty() {
        // It would read as "nobody" and mean "anybody".
        let remedy = "list who may call; to let every workload of the trust domain in, leave the key out";
        faults.add(&place.at(list), "is an empty list", remedy);
        return Vec::new();
    }
    let ids = validate_spiffe_ids(list, &place, faults);
    for id in &ids {
        if trust_domain.is_some_and(|own| own != id.trust_domain()) {
            let problem = format!("{id} is of another trust domain");
            faults.add(&place.at(list), problem, "list workloads of trust_domain only");
        }
    }
    ids
}

/// The cluster of the own app: no TLS. What reached it is never repeated: whether the app did
/// the work already, only the app knows.
fn app_cluster(
    raw: &Rules<'_>,
    name: ClusterName,
    endpoints: Vec<EndpointSettings>,
    place: &Place,
    faults: &mut Faults,
) -> ClusterSettings {
    let stream_idle =
        quantity_or_none(raw.stream_idle_timeout, &defaults::STREAM_IDLE_TIMEOUT, place, faults);
    let pool_idle = quantity(raw.pool_idle_timeout, &defaults::APP_POOL_IDLE_TIMEOUT, place, faults);
    let timeouts = Timeouts {
        connect: quantity(raw.connect_timeout, &defaults::CONNECT_TIMEOUT, place, faults),
        request: None,
        stream_idle: stream_idle.unwrap_or(defaults::NEVER),
        half_open: quantity_or_none(raw.half_open_timeout, &defaults::HALF_OPEN_TIMEOUT, place, faults),
        pool_idle,
        // Nothing is gained by a new connection to the app beside us.
        connection_age: defaults::NEVER,
    };
    let max_requests = quantity(raw.max_requests, &defaults::MAX_REQUESTS, place, faults);
    let max_connections = quantity(raw.max_connections, &defaults::MAX_CONNECTIONS, place, faults);
    let max_pending = quantity(raw.max_pending, &defaults::MAX_PENDING, place, faults);
    ClusterSettings {
        name,
        authorities: Vec::new(),
        addresses: Vec::new(),
        protocol: Protocol::Detect,
        source: EndpointSource::Static(endpoints),
        transport: Transport::App,
        balance: Balance::RoundRobin,
        timeouts,
        retry: RetryPolicy {
            max_retries: 0,
            budget_ratio: 0.0,
            budget_min_per_second: 0,
            replay_bytes: 0,
            backoff_base: defaults::BACKOFF_BASE.default.unwrap_or(defaults::BACKOFF_BASE.min),
        },
        caps: Caps {
            max_requests: to_u32(max_requests),
            max_connections: to_u32(max_connections),
            max_pending: to_u32(max_pending),
        },
    }
}
