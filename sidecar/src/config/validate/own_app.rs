//! The own app behind a listener or a port: who may call it, what it speaks, what it may cost.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use ipnet::IpNet;
use outrider_certs::SpiffeId;
use serde_saphyr::Spanned;

use super::{
    bootstrap::to_u32,
    intercept::{CIDR, entries, to_cidr},
    proxy_protocol::proxy_protocol,
    rate_limit::rate_limits,
    retry, routes,
    transport::peer_kind,
};
use crate::{
    config::{
        defaults, raw,
        value::{Text, choice, quantity, quantity_or_none},
    },
    model::{
        cluster::{
            AppProtocol, Balance, Balancing, Caps, ClusterName, ClusterSettings, EndpointSettings,
            EndpointSource, Timeouts,
        },
        file::{Faults, Place, quoted, validate_spiffe_ids},
        listener::{Exceptions, Inbound, Protocol},
        policy::Policy,
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
    max_peer_percent: Text<'a>,
    max_connections: Text<'a>,
    max_pending: Text<'a>,
    rate_limits: Option<&'a Spanned<Vec<Spanned<raw::InboundRateLimit>>>>,
    proxy_protocol: Option<&'a Spanned<raw::ProxyProtocol>>,
    app_proxy_protocol: Text<'a>,
    routes: Option<&'a Spanned<Vec<Spanned<raw::InboundRoute>>>>,
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
            max_peer_percent: $raw.max_peer_percent.as_ref(),
            max_connections: $raw.max_connections.as_ref(),
            max_pending: $raw.max_pending.as_ref(),
            rate_limits: $raw.rate_limits.as_ref(),
            proxy_protocol: $raw.proxy_protocol.as_ref(),
            app_proxy_protocol: $raw.app_proxy_protocol.as_ref(),
            routes: $raw.routes.as_ref(),
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
    faults: &mut Faults,
) -> (Inbound, ClusterSettings) {
    let app = ClusterName::new(&format!("inbound/{name}"));
    let is_standard = choice(raw.peer, &defaults::PEER, place, faults);
    let rules = Inbound {
        app: app.clone(),
        port: endpoints.first().map(|endpoint| endpoint.address.port()),
        protocol,
        app_protocol: app_protocol(raw, protocol, place, faults),
        peer: peer_kind(is_standard),
        allow: allow(raw, place, faults),
        exceptions: Exceptions::default(),
        proxy_protocol: proxy_protocol(raw.proxy_protocol, place, faults),
        app_proxy_protocol: choice(
            raw.app_proxy_protocol,
            &defaults::streams::APP_PROXY_PROTOCOL,
            place,
            faults,
        ),
    };
    if let (Protocol::Tcp, Some(routes)) = (protocol, raw.routes) {
        let place = place.key("routes").at(routes);
        faults.add(&place, "is for HTTP only", "leave it out where protocol is tcp");
    }
    for (index, route) in raw.routes.iter().flat_map(|list| list.value.iter().enumerate()) {
        let rewrite = route.value.rewrite.as_ref();
        if let Some(host) = rewrite.and_then(|section| section.value.host.as_ref()) {
            let place = place.key("routes").item(index).key("rewrite").key("host").at(host);
            faults.add(
                &place,
                "is for what goes out",
                "leave it out: the own app is asked by its callers' name",
            );
        }
    }
    (rules, app_cluster(raw, app, endpoints, place, faults))
}

/// Whether nothing is said of a port but what its app speaks.
pub(super) fn says_protocols_only(raw: &raw::Port) -> bool {
    // Every field, so that a new one cannot be forgotten.
    let raw::Port {
        port: _,
        protocol: _,
        app_protocol: _,
        odd_keys: _,
        peer,
        allow,
        plaintext,
        plaintext_until,
        plaintext_from,
        probes,
        app_tls,
        trusted_hops,
        connect_timeout,
        stream_idle_timeout,
        half_open_timeout,
        pool_idle_timeout,
        max_requests,
        max_peer_percent,
        max_connections,
        max_pending,
        rate_limits,
        proxy_protocol,
        app_proxy_protocol,
        routes,
    } = raw;
    let texts =
        [peer, plaintext, plaintext_until, app_tls, trusted_hops, connect_timeout, stream_idle_timeout];
    let more = [half_open_timeout, pool_idle_timeout, max_requests, max_peer_percent, max_connections];
    let rest = [max_pending, app_proxy_protocol];
    let lists = [allow, plaintext_from, probes];
    texts.into_iter().chain(more).chain(rest).all(Option::is_none)
        && lists.into_iter().all(Option::is_none)
        && rate_limits.is_none()
        && proxy_protocol.is_none()
        && routes.is_none()
}

/// What may come in at an intercepted port without mutual TLS.
pub(super) fn exceptions(raw: &raw::Port, place: &Place, faults: &mut Faults) -> Exceptions {
    let found = Exceptions {
        plaintext_until: plaintext_until(raw, place, faults),
        probes: probes(raw, place, faults),
        app_tls: choice(raw.app_tls.as_ref(), &defaults::APP_TLS, place, faults),
        from: Vec::new(),
        trusted_hops: trusted_hops(raw, place, faults),
    };
    Exceptions { from: plaintext_from(raw, &found, place, faults), ..found }
}

/// Where `found` holds, if not everywhere.
fn plaintext_from(raw: &raw::Port, found: &Exceptions, place: &Place, faults: &mut Faults) -> Vec<IpNet> {
    let Some(list) = &raw.plaintext_from else { return Vec::new() };
    let place = place.key("plaintext_from");
    if list.value.is_empty() {
        // It would read as "from nowhere" and mean "from anywhere".
        let remedy = "list the addresses; to let in from any, leave the key out";
        faults.add(&place.at(list), "is an empty list", remedy);
    }
    // With a day that is missing or no date, that is the fault.
    let is_permissive = raw.plaintext.as_ref().is_some_and(|text| text.value == "permissive");
    if found.is_none() && !is_permissive {
        let remedy =
            "leave it out, or give the exception that is to hold there: plaintext, probes or app_tls";
        faults.add(&place.at(list), "has no meaning where nothing comes in without mutual TLS", remedy);
    }
    entries(Some(list), place, CIDR, to_cidr, faults)
}

fn trusted_hops(raw: &raw::Port, place: &Place, faults: &mut Faults) -> usize {
    let hops = quantity(raw.trusted_hops.as_ref(), &defaults::TRUSTED_HOPS, place, faults);
    let is_refused = raw.plaintext.as_ref().is_none_or(|text| text.value == defaults::PLAINTEXT.default.0);
    if let Some(text) = raw.trusted_hops.as_ref().filter(|_| hops > 0 && is_refused) {
        let remedy = "leave it out, or say plaintext: permissive";
        faults.add(&place.key("trusted_hops").at(text), "has no meaning while plaintext is refused", remedy);
    }
    let is_tcp = raw.protocol.as_ref().is_some_and(|text| text.value == "tcp");
    if let Some(text) = raw.trusted_hops.as_ref().filter(|_| hops > 0 && is_tcp) {
        let place = place.key("trusted_hops").at(text);
        faults.add(&place, "is for HTTP only", "leave it out where protocol is tcp");
    }
    usize::try_from(hops).unwrap_or_default()
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

/// Who may call. That their trust domains are known is checked in `references`.
fn allow(raw: &Rules<'_>, place: &Place, faults: &mut Faults) -> Vec<SpiffeId> {
    let Some(list) = raw.allow else { return Vec::new() };
    let place = place.key("allow");
    if list.value.is_empty() {
        // It would read as "nobody" and mean "anybody".
        let remedy = "list who may call; to let every workload of the trust domain in, leave the key out";
        faults.add(&place.at(list), "is an empty list", remedy);
        return Vec::new();
    }
    validate_spiffe_ids(list, &place, faults)
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
        // Its one endpoint is always there.
        queue: Duration::ZERO,
        stream_idle: stream_idle.unwrap_or(defaults::NEVER),
        half_open: quantity_or_none(raw.half_open_timeout, &defaults::HALF_OPEN_TIMEOUT, place, faults),
        pool_idle,
        // Nothing is gained by a new connection to the app beside us.
        connection_age: defaults::NEVER,
    };
    let max_requests = quantity(raw.max_requests, &defaults::MAX_REQUESTS, place, faults);
    let max_peer_percent = quantity(raw.max_peer_percent, &defaults::MAX_PEER_PERCENT, place, faults);
    let max_connections = quantity(raw.max_connections, &defaults::MAX_CONNECTIONS, place, faults);
    let max_pending = quantity(raw.max_pending, &defaults::MAX_PENDING, place, faults);
    let rate_limits = rate_limits(raw.rate_limits, place, faults).unwrap_or_default();
    let policy = Policy { rate_limits, ..Policy::own_app() };
    ClusterSettings {
        name,
        authorities: Vec::new(),
        addresses: Vec::new(),
        protocol: Protocol::Detect,
        source: EndpointSource::Static(endpoints),
        transport: Transport::App,
        balance: Balance::RoundRobin,
        balancing: Balancing::bare(),
        timeouts,
        routes: routes::routes(raw.routes, &policy, place, faults),
        policy: Arc::new(policy),
        retry_budget: retry::budget_by_default(),
        outlier: None,
        caps: Caps {
            max_requests: to_u32(max_requests),
            max_per_peer: to_u32((max_requests * max_peer_percent).div_ceil(100)),
            max_connections: to_u32(max_connections),
            max_pending: to_u32(max_pending),
        },
        health_check: None,
    }
}
