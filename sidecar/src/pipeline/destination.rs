//! Where a request or stream goes, by the listener that it came in at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::request::Parts;

use super::{authorize, door::Door, error::ProxyError, head, wanting, worker::Worker};
use crate::{
    canonical::{self, Care},
    model::{
        Cluster, ClusterName, ListenerKind, Snapshot,
        endpoint::Client,
        intercept::{Mode, Unknown},
        listener::Inbound,
        route_table::{Candidate, RuleList},
        wanted::Key,
    },
    net::Net,
    route::{
        self, AtAddress, ByRule,
        matching::Asked,
        table::{self, Way},
    },
    telemetry::record::RequestRecord,
};

/// Longest part of an authority that an error message repeats.
const MAX_SHOWN_AUTHORITY: usize = 100;

/// Where a request goes.
pub(super) struct Found {
    /// There.
    pub(super) cluster: Arc<Cluster>,
    /// By that rule, if it goes by one.
    pub(super) by_rule: Option<Box<ByRule>>,
}

/// Where a request goes, if it may, with its path in its one spelling: what is judged, and decided on from here on, is what
/// the next hop gets. What a service outside the mesh is asked for is between it and the app. Where it goes is `snapshot`'s
/// to say, and whether it may is that of `rules`.
///
/// # Errors
/// [`ProxyError::NoRoute`]; [`ProxyError::NoRule`]: its host or service has rules, and it is of none of them;
/// [`ProxyError::BadRequest`], for a path without one spelling, or a field twice; of others than the own app,
/// [`ProxyError::NotAuthorized`].
pub(super) fn of_request<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    (snapshot, rules): (&Snapshot, &Snapshot),
    (head, authority): (&mut Parts, &str),
    record: &RequestRecord,
) -> Result<Found, ProxyError> {
    if door.is_inbound() {
        head::check_single(head)?;
        authorize::request(door, rules, head, authority, record)?;
        return find(worker, door, snapshot, Some(authority)).map(|cluster| Found { cluster, by_rule: None });
    }
    let found = by_rules((worker, door), snapshot, (authority, head))?;
    if !found.cluster.settings.transport.is_outside() {
        head::check_single(head)?;
        head::respell(head, Care::Plain)?;
    }
    Ok(found)
}

/// The cluster that a request with that authority, or a stream without one, goes to.
///
/// # Errors
/// [`ProxyError::NoRoute`]; [`ProxyError::NotDiscovered`]: the controller is to be asked.
pub(super) fn find<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    snapshot: &Snapshot,
    authority: Option<&str>,
) -> Result<Arc<Cluster>, ProxyError> {
    let listener = door.listener(snapshot);
    let by_authority = |default: Option<&ClusterName>| {
        route::find(snapshot, authority.unwrap_or_default(), default).cloned()
    };
    let found = match &listener.kind {
        ListenerKind::OutboundHttp { default_cluster } => match by_authority(default_cluster.as_ref()) {
            None => by_name_and_port(snapshot, authority.unwrap_or_default())?,
            found => found,
        },
        ListenerKind::OutboundTcp { cluster } => snapshot.cluster(cluster).cloned(),
        ListenerKind::Inbound(inbound) => snapshot.cluster(&inbound.app).map(|cluster| {
            let client = inbound.app_proxy_protocol.and_then(|version| door.announced(version));
            match (client, cluster.endpoints.first()) {
                (Some(client), Some(app)) => {
                    worker.originals.cluster(cluster, app.address(), Some(client), worker.now())
                }
                (_, _) => Arc::clone(cluster),
            }
        }),
        ListenerKind::InterceptedOutbound { unknown } => {
            let Some(original) = door.original() else { return Err(no_route(door, snapshot, authority)) };
            match route::at_address(snapshot, original) {
                AtAddress::Service(cluster) => Some(Arc::clone(cluster)),
                AtAddress::Endpoint(cluster, endpoint) => Some(Arc::new(cluster.only(Arc::clone(endpoint)))),
                AtAddress::Unknown => match (by_authority(None), *unknown) {
                    (Some(cluster), _) => Some(cluster),
                    (None, unknown) => at_nobody(worker, snapshot, (original, unknown))?,
                },
            }
        }
        ListenerKind::InterceptedInbound(intercepted) => door.original().and_then(|original| {
            let inbound = intercepted.of(original.port());
            let cluster = snapshot.cluster(&inbound.app)?;
            let client = client(door, inbound, (original, intercepted.mode));
            Some(worker.originals.cluster(cluster, original, client, worker.now()))
        }),
    };
    found.ok_or_else(|| no_route(door, snapshot, authority))
}

/// The cluster of an authority that none has as it is written: with the port that it means. Only the controller knows
/// services by name and port alone.
fn by_name_and_port(snapshot: &Snapshot, authority: &str) -> Result<Option<Arc<Cluster>>, ProxyError> {
    let known = |key: &Key| match key {
        Key::Name(name) => route::find(snapshot, name, None).cloned(),
        Key::Address(_) => None,
    };
    match canonical::authority(authority).and_then(|authority| wanting::of_authority(snapshot, &authority)) {
        None => Ok(None),
        Some(key) => known(&key).map(Some).ok_or(ProxyError::NotDiscovered(key)),
    }
}

/// Where what was dialled goes that no cluster has: nowhere, before the controller has said that it is outside.
fn at_nobody<N: Net>(
    worker: &Worker<N>,
    snapshot: &Snapshot,
    (original, unknown): (SocketAddr, Unknown),
) -> Result<Option<Arc<Cluster>>, ProxyError> {
    if let Some(key) = wanting::of_address(snapshot, original) {
        return Err(ProxyError::NotDiscovered(key));
    }
    let passthrough = match unknown {
        Unknown::Passthrough => snapshot.cluster(&ClusterName::passthrough()),
        Unknown::Deny => None,
    };
    Ok(passthrough.map(|cluster| worker.originals.cluster(cluster, original, None, worker.now())))
}

/// What was looked for leads nowhere.
pub(super) fn no_route(door: &Door, snapshot: &Snapshot, authority: Option<&str>) -> ProxyError {
    ProxyError::NoRoute { authority: shown(door, authority, door.listener(snapshot).name.as_ref()) }
}

/// In whose name the app is connected to, where that is to be seen.
fn client(door: &Door, inbound: &Inbound, (original, mode): (SocketAddr, Mode)) -> Option<Arc<Client>> {
    let address = door.neighbour().filter(|client| is_shown(*client, original, mode));
    let announced = inbound.app_proxy_protocol.and_then(|version| door.announced(version));
    match (address, announced) {
        (None, announced) => announced,
        (Some(_), announced) => {
            let announcement = announced.and_then(|client| client.announcement.clone());
            Some(Arc::new(Client { address, announcement }))
        }
    }
}

/// Where a request of the own app goes, and by which rule if there are rules for it.
///
/// # Errors
/// [`ProxyError::NoRoute`]; [`ProxyError::NoRule`]: there are, and it is of none of them; [`ProxyError::BadRequest`]: so it
/// is, and its path has no one spelling.
fn by_rules<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    snapshot: &Snapshot,
    (authority, head): (&str, &Parts),
) -> Result<Found, ProxyError> {
    let Some(rules) = rules(door, snapshot, authority) else {
        return find(worker, door, snapshot, Some(authority)).map(|cluster| Found { cluster, by_rule: None });
    };
    let asked = Asked::of(head);
    let Some(candidate) = table::rule(rules, &asked) else {
        // Why none fits is told where it is known.
        canonical::path(head.uri.path(), Care::Plain)
            .map_err(|error| ProxyError::BadRequest(error.to_string()))?;
        let listener = &door.listener(snapshot).name;
        return Err(ProxyError::NoRule { authority: shown(door, Some(authority), listener) });
    };
    let goes = worker.with_rng(|rng| table::cluster(&candidate.rule, head, rng));
    let Candidate { matches, rule } = candidate;
    let found = goes.and_then(|(cluster, place)| {
        let by_rule = ByRule { name: Arc::clone(&rule.name), place, matches: Arc::clone(matches) };
        // Boxed, so that other requests do not keep the room.
        Some(Found { cluster: Arc::clone(snapshot.cluster(cluster)?), by_rule: Some(Box::new(by_rule)) })
    });
    found.ok_or_else(|| ProxyError::NoRoute { authority: rule.name.to_string() })
}

/// The rules that a request of the own app goes by, if there are any for it.
fn rules<'a>(door: &Door, snapshot: &'a Snapshot, authority: &str) -> Option<&'a RuleList> {
    if snapshot.config.settings.routes.is_empty() {
        return None;
    }
    // The listener belongs to the door as much as to the snapshot.
    let way = match &door.listener(snapshot).kind {
        ListenerKind::OutboundHttp { default_cluster } => {
            table::by_name(snapshot, authority, default_cluster.as_ref())
        }
        ListenerKind::InterceptedOutbound { .. } => table::by_address(snapshot, door.original()?, authority),
        ListenerKind::OutboundTcp { .. } | ListenerKind::Inbound(_) | ListenerKind::InterceptedInbound(_) => {
            return None;
        }
    };
    if let Way::Rules(rules) = way { Some(rules) } else { None }
}

/// Whether the app is to see the client's address. Where that is the app's own, it sees it at any rate; one that is good on
/// one link only can be had by nobody else.
fn is_shown(client: IpAddr, original: SocketAddr, mode: Mode) -> bool {
    let is_link_local = match client {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    mode == Mode::Tproxy && client != original.ip() && !is_link_local
}

/// What an error says was looked for.
fn shown(door: &Door, authority: Option<&str>, listener: &str) -> String {
    match (authority, door.original()) {
        (Some(authority), _) => authority.chars().take(MAX_SHOWN_AUTHORITY).collect(),
        (None, Some(original)) => original.to_string(),
        (None, None) => listener.to_owned(),
    }
}
