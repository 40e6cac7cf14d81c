//! Where a request or stream goes, by the listener that it came in at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{door::Door, error::ProxyError, worker::Worker};
use crate::{
    model::{
        Cluster, ClusterName, ListenerKind, Snapshot,
        intercept::{Mode, Unknown},
    },
    net::Net,
    route::{self, AtAddress},
};

/// Longest part of an authority that an error message repeats.
const MAX_SHOWN_AUTHORITY: usize = 100;

/// The cluster that a request with that authority, or a stream without one, goes to.
///
/// # Errors
/// [`ProxyError::NoRoute`].
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
        ListenerKind::OutboundHttp { default_cluster } => by_authority(default_cluster.as_ref()),
        ListenerKind::OutboundTcp { cluster } => snapshot.cluster(cluster).cloned(),
        ListenerKind::Inbound(inbound) => snapshot.cluster(&inbound.app).cloned(),
        ListenerKind::InterceptedOutbound { unknown } => {
            door.original().and_then(|original| match route::at_address(snapshot, original) {
                AtAddress::Service(cluster) => Some(Arc::clone(cluster)),
                AtAddress::Endpoint(cluster, endpoint) => Some(Arc::new(cluster.only(Arc::clone(endpoint)))),
                AtAddress::Unknown => by_authority(None).or_else(|| match unknown {
                    Unknown::Passthrough => {
                        let cluster = snapshot.cluster(&ClusterName::passthrough())?;
                        Some(worker.originals.cluster(cluster, original, None, worker.now()))
                    }
                    Unknown::Deny => None,
                }),
            })
        }
        ListenerKind::InterceptedInbound(intercepted) => door.original().and_then(|original| {
            let cluster = snapshot.cluster(&intercepted.of(original.port()).app)?;
            let client = door.client().filter(|client| is_shown(*client, original, intercepted.mode));
            Some(worker.originals.cluster(cluster, original, client, worker.now()))
        }),
    };
    found.ok_or_else(|| ProxyError::NoRoute { authority: shown(door, authority, listener.name.as_ref()) })
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
