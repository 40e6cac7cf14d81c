//! `inbound` and `outbound`: listeners, and the clusters of the own app behind the inbound ones.

use std::{net::SocketAddr, sync::Arc};

use outrider_certs::{SpiffeId, TrustDomain};
use serde_saphyr::Spanned;

use super::{MAX_LISTENERS, bootstrap::to_u32, transport::peer_kind};
use crate::{
    config::{
        defaults, raw,
        value::{Text, address, choice, name, quantity, quantity_or_none, required},
    },
    model::{
        cluster::{
            AppProtocol, Balance, Caps, ClusterName, ClusterSettings, EndpointSettings, EndpointSource,
            RetryPolicy, Timeouts,
        },
        file::{Faults, Place, report_odd_keys, validate_spiffe_ids},
        listener::{Inbound, Listener, ListenerKind, Protocol},
        settings::Bootstrap,
        transport::Transport,
    },
};

/// Every inbound listener with its own-app cluster.
pub(super) fn inbound(
    file: &raw::File,
    bootstrap: Option<&Bootstrap>,
    faults: &mut Faults,
) -> Vec<(Listener, ClusterSettings)> {
    let trust_domain = bootstrap.map(|bootstrap| &bootstrap.trust_domain);
    items(file.inbound.as_ref(), "inbound", faults)
        .into_iter()
        .enumerate()
        .filter_map(|(index, (raw, place))| inbound_listener(raw, index, &place, trust_domain, faults))
        .collect()
}

/// Every outbound listener.
pub(super) fn outbound(file: &raw::File, faults: &mut Faults) -> Vec<Listener> {
    items(file.outbound.as_ref(), "outbound", faults)
        .into_iter()
        .enumerate()
        .filter_map(|(index, (raw, place))| outbound_listener(raw, index, &place, faults))
        .collect()
}

/// The items of a list with their places; none, with a fault, if there are too many.
fn items<'a, T>(
    list: Option<&'a Spanned<Vec<Spanned<T>>>>,
    key: &str,
    faults: &mut Faults,
) -> Vec<(&'a T, Place)> {
    let Some(list) = list else { return Vec::new() };
    let place = Place::root().key(key).at(list);
    if list.value.len() > MAX_LISTENERS {
        let problem = format!("{} listeners", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_LISTENERS}"));
        return Vec::new();
    }
    list.value.iter().enumerate().map(|(index, item)| (&item.value, place.item(index).at(item))).collect()
}

fn inbound_listener(
    raw: &raw::Inbound,
    index: usize,
    place: &Place,
    trust_domain: Option<&TrustDomain>,
    faults: &mut Faults,
) -> Option<(Listener, ClusterSettings)> {
    report_odd_keys(&raw.odd_keys, raw::Inbound::KEYS, place, faults);
    let name = listener_name(raw.name.as_ref(), "inbound", index, place, faults);
    let listen =
        required_address(raw.listen.as_ref(), &place.key("listen"), "give the IP:port to accept on", faults);
    let app = app_address(raw.app.as_ref(), &place.key("app"), faults);
    let protocol = choice(raw.protocol.as_ref(), &defaults::PROTOCOL, place, faults);
    let app_protocol = app_protocol(raw, protocol, place, faults);
    let is_standard = choice(raw.peer.as_ref(), &defaults::PEER, place, faults);
    let allow = allow(raw, place, trust_domain, faults);
    let cluster_name = ClusterName::new(&format!("inbound/{name}"));
    let cluster = app_cluster(raw, cluster_name.clone(), app, place, faults);
    let kind = ListenerKind::Inbound(Inbound {
        app: cluster_name,
        protocol,
        app_protocol,
        peer: peer_kind(is_standard),
        allow,
    });
    Some((Listener { name, address: listen?, kind }, cluster?))
}

/// What the app speaks; only HTTP has versions.
fn app_protocol(raw: &raw::Inbound, protocol: Protocol, place: &Place, faults: &mut Faults) -> AppProtocol {
    if let (Protocol::Tcp, Some(text)) = (protocol, &raw.app_protocol) {
        let place = place.key("app_protocol").at(text);
        faults.add(&place, "is for HTTP only", "leave it out where protocol is tcp");
    }
    choice(raw.app_protocol.as_ref(), &defaults::APP_PROTOCOL, place, faults)
}

/// Who may call. Only the own trust domain's roots are known, so an ID of another can never match.
fn allow(
    raw: &raw::Inbound,
    place: &Place,
    trust_domain: Option<&TrustDomain>,
    faults: &mut Faults,
) -> Vec<SpiffeId> {
    let Some(list) = &raw.allow else { return Vec::new() };
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

fn app_address(text: Text<'_>, place: &Place, faults: &mut Faults) -> Option<SocketAddr> {
    let app = required_address(text, place, "give the own app's IP:port", faults)?;
    if app.port() == 0 || app.ip().is_unspecified() {
        let place = text.map_or_else(|| place.clone(), |text| place.at(text));
        let problem = format!("{app} is not an address one can connect to");
        faults.add(&place, problem, "give the own app's IP and port, as 127.0.0.1:8080");
    }
    Some(app)
}

/// The cluster of the own app: one endpoint without TLS. What reached it is never repeated: whether the app did
/// the work already, only the app knows.
fn app_cluster(
    raw: &raw::Inbound,
    name: ClusterName,
    app: Option<SocketAddr>,
    place: &Place,
    faults: &mut Faults,
) -> Option<ClusterSettings> {
    let stream_idle =
        quantity_or_none(raw.stream_idle_timeout.as_ref(), &defaults::STREAM_IDLE_TIMEOUT, place, faults);
    let pool_idle = quantity(raw.pool_idle_timeout.as_ref(), &defaults::APP_POOL_IDLE_TIMEOUT, place, faults);
    let timeouts = Timeouts {
        connect: quantity(raw.connect_timeout.as_ref(), &defaults::CONNECT_TIMEOUT, place, faults),
        request: None,
        stream_idle: stream_idle.unwrap_or(defaults::NEVER),
        pool_idle,
    };
    let max_requests = quantity(raw.max_requests.as_ref(), &defaults::MAX_REQUESTS, place, faults);
    let max_connections = quantity(raw.max_connections.as_ref(), &defaults::MAX_CONNECTIONS, place, faults);
    Some(ClusterSettings {
        name,
        authorities: Vec::new(),
        source: EndpointSource::Static(vec![EndpointSettings { address: app?, spiffe_ids: Arc::from([]) }]),
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
        caps: Caps { max_requests: to_u32(max_requests), max_connections: to_u32(max_connections) },
    })
}

fn outbound_listener(
    raw: &raw::Outbound,
    index: usize,
    place: &Place,
    faults: &mut Faults,
) -> Option<Listener> {
    report_odd_keys(&raw.odd_keys, raw::Outbound::KEYS, place, faults);
    let name = listener_name(raw.name.as_ref(), "outbound", index, place, faults);
    let listen =
        required_address(raw.listen.as_ref(), &place.key("listen"), "give the IP:port to accept on", faults);
    let protocol = choice(raw.protocol.as_ref(), &defaults::PROTOCOL, place, faults);
    let cluster = raw.cluster.as_ref().map(|text| ClusterName::new(&text.value));
    let kind = match (protocol, cluster) {
        (Protocol::Http, default_cluster) => ListenerKind::OutboundHttp { default_cluster },
        (Protocol::Tcp, Some(cluster)) => ListenerKind::OutboundTcp { cluster },
        (Protocol::Tcp, None) => {
            faults.add(&place.key("cluster"), "is missing", "name the cluster that the bytes go to");
            return None;
        }
    };
    Some(Listener { name, address: listen?, kind })
}

fn listener_name(
    text: Text<'_>,
    direction: &str,
    index: usize,
    place: &Place,
    faults: &mut Faults,
) -> Arc<str> {
    text.map_or_else(|| format!("{direction}-{index}"), |text| name(text, &place.key("name"), faults)).into()
}

fn required_address(text: Text<'_>, place: &Place, remedy: &str, faults: &mut Faults) -> Option<SocketAddr> {
    required(text, place, remedy, faults).and_then(|text| address(text, place, faults))
}
