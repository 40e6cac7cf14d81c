//! Where a request or stream goes, by the listener that it came in at.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use indexmap::{IndexMap, IndexSet};

use super::{door::Door, error::ProxyError, worker::Worker};
use crate::{
    model::{
        Cluster, ClusterName, Endpoint, EndpointSettings, ListenerKind, Snapshot,
        intercept::{Mode, Unknown},
        runtime::EndpointRuntime,
    },
    net::Net,
    route::{self, AtAddress},
};

/// Longest part of an authority that an error message repeats.
const MAX_SHOWN_AUTHORITY: usize = 100;
/// Addresses that a worker remembers to have been original destinations; the own app has a few ports. One more is found
/// out anew, and its kept connections are not used again.
const MAX_ORIGINALS: usize = 1024;

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
            let client = door.client().filter(|_| intercepted.mode == Mode::Tproxy);
            Some(worker.originals.cluster(cluster, original, client, worker.now()))
        }),
    };
    found.ok_or_else(|| ProxyError::NoRoute { authority: shown(door, authority, listener.name.as_ref()) })
}

/// What an error says was looked for.
fn shown(door: &Door, authority: Option<&str>, listener: &str) -> String {
    match (authority, door.original()) {
        (Some(authority), _) => authority.chars().take(MAX_SHOWN_AUTHORITY).collect(),
        (None, Some(original)) => original.to_string(),
        (None, None) => listener.to_owned(),
    }
}

/// What a worker knows of original destinations.
#[derive(Debug, Default)]
pub struct Originals {
    /// Clusters with one of them as their one endpoint: so that connections to it can be kept.
    clusters: Mutex<IndexMap<Key, Arc<Cluster>>>,
    /// Those that are the host's own. One that it has lost leads nowhere.
    own: Mutex<IndexSet<IpAddr>>,
}

type Key = (ClusterName, SocketAddr, Option<IpAddr>);

impl Originals {
    /// Whether an address is the host's own; `find_out` is asked about those that were not seen yet.
    pub(super) fn is_own(&self, address: IpAddr, find_out: impl FnOnce() -> bool) -> bool {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.contains(&address) {
            return true;
        }
        let is_own = find_out();
        if is_own && own.len() < MAX_ORIGINALS {
            own.insert(address);
        }
        is_own
    }

    /// `cluster` with that address as its one endpoint, connected to in the name of `client` if there is one.
    pub(super) fn cluster(
        &self,
        cluster: &Arc<Cluster>,
        address: SocketAddr,
        client: Option<IpAddr>,
        now: Instant,
    ) -> Arc<Cluster> {
        let mut known = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.name().clone(), address, client);
        let before = known.get(&key);
        if let Some(before) = before
            && Arc::ptr_eq(&before.settings, &cluster.settings)
            && Arc::ptr_eq(&before.limits, &cluster.limits)
            && Arc::ptr_eq(&before.runtime, &cluster.runtime)
        {
            return Arc::clone(before);
        }
        let endpoint = before.and_then(|before| before.endpoints.first().cloned());
        let endpoint = endpoint.unwrap_or_else(|| {
            Arc::new(Endpoint {
                settings: EndpointSettings { address, spiffe_ids: Arc::from([]) },
                runtime: Arc::new(EndpointRuntime::new(now)),
                client,
            })
        });
        let only = Arc::new(cluster.only(endpoint));
        if known.len() >= MAX_ORIGINALS && !known.contains_key(&key) {
            known.swap_remove_index(0);
        }
        known.insert(key, Arc::clone(&only));
        only
    }
}
