//! Where a connection came in, and who is at its other end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Instant, SystemTime},
};

use outrider_certs::Peer;

use super::{
    entrance::Accepted, error::ProxyError, live, misuse::Resets, proxied::Ends, respond::Audience,
    switched::Switched, worker::Worker,
};
use crate::{
    drain::Drain,
    model::{
        ClusterName, Listener, Snapshot,
        edge::{Direction, EdgeCounts},
        endpoint::Client,
        listener::{Asked, Exception, Inbound},
        proxy_protocol::Version,
        runtime::{ListenerRuntime, PeerCount},
        snapshot::Snapshots,
    },
    net::Net,
    proxy_protocol,
    telemetry::{
        RequestRecord,
        trail::{Caller, Traffic, Trail},
    },
};

/// The door of one downstream connection.
#[derive(Debug)]
pub struct Door {
    /// The listener that accepted it.
    pub accepted: Accepted,
    /// Who is there.
    pub from: From,
    /// Whom its other end dialled, if the kernel brought the connection here.
    original: Option<SocketAddr>,
    /// The requests that its other end has under way, on all its connections; `None`: nobody counts.
    load: Option<Arc<AtomicU32>>,
    /// Between whom it is, where that may matter to the app.
    ends: Option<Ends>,
    /// In whose name the app is connected to, by that header.
    announced: OnceLock<(Version, Arc<Client>)>,
    /// Streams reset before their answers, of HTTP/2.
    pub resets: Resets,
    /// The connection is to end with its next answer, for its age.
    is_old: AtomicBool,
    /// What the connection carries once it has left HTTP.
    switched: Mutex<Option<Box<Switched>>>,
    /// As whose calls its requests count, of a peer's connection; and to which cluster.
    edge: OnceLock<(ClusterName, Arc<EdgeCounts>)>,
    /// As whom what is under way is judged again, once something is.
    caller: OnceLock<Arc<live::Caller>>,
    /// The same by the app's routes, of those that have been asked for.
    route_edges: Mutex<Vec<RouteEdge>>,
}

/// The app's cluster and a route of it, and what its requests count as.
type RouteEdge = (ClusterName, Arc<str>, Arc<EdgeCounts>);

/// Routes whose counters one connection keeps at hand.
const MAX_ROUTE_EDGES: usize = 256;

/// Who is at the other end of a downstream connection.
#[derive(Clone, Debug)]
pub enum From {
    /// The own app (or whoever else reaches the explicit listener).
    App {
        /// From which address.
        address: IpAddr,
    },
    /// A verified peer.
    Peer {
        /// Who.
        peer: Peer,
        /// From which address.
        address: IpAddr,
        /// A sidecar of ours: its control headers are honoured.
        is_sidecar: bool,
        /// Its counters.
        count: Arc<PeerCount>,
    },
    /// Somebody who proved nothing, let in by an exception.
    Plain {
        /// From which address.
        address: IpAddr,
        /// The exception that it came in by.
        exception: Exception,
    },
}

impl Door {
    /// The door of a new connection.
    #[must_use]
    pub fn new(accepted: Accepted, from: From) -> Self {
        let (resets, is_old) = (Resets::default(), AtomicBool::new(false));
        let (switched, edge, caller) = (Mutex::new(None), OnceLock::new(), OnceLock::new());
        let (announced, route_edges) = (OnceLock::new(), Mutex::default());
        let (original, ends, load) = (None, None, None);
        Self {
            accepted,
            from,
            original,
            load,
            ends,
            announced,
            resets,
            is_old,
            switched,
            edge,
            caller,
            route_edges,
        }
    }

    /// The same, of a connection between these.
    #[must_use]
    pub fn between(self, ends: Ends) -> Self {
        Self { ends: Some(ends), ..self }
    }

    /// Another connection in the same way, of which this is known.
    #[must_use]
    pub(super) fn of(&self, from: From) -> Self {
        let door = Self::new(self.accepted.clone(), from).intercepted(self.original);
        Self { ends: self.ends, load: self.load.clone(), ..door }
    }

    /// The same, where the kernel brought the connection here: whom its other end dialled.
    #[must_use]
    pub fn intercepted(self, original: Option<SocketAddr>) -> Self {
        Self { original, ..self }
    }

    /// The same, where what its other end has under way is counted, on all its connections.
    #[must_use]
    pub fn counted(self, caller: &Arc<AtomicU32>) -> Self {
        Self { load: Some(Arc::clone(caller)), ..self }
    }

    /// What its other end has under way, if that is counted.
    #[must_use]
    pub fn load_of_caller(&self) -> Option<&Arc<AtomicU32>> {
        self.load.as_ref()
    }

    /// Whom its other end dialled, if the kernel brought the connection here.
    #[must_use]
    pub fn original(&self) -> Option<SocketAddr> {
        self.original
    }

    /// From which address it came as the network says, unless it is the own app: not that of a client whom only a proxy
    /// names.
    #[must_use]
    pub fn neighbour(&self) -> Option<IpAddr> {
        match (&self.from, &self.ends) {
            (From::App { .. }, _) => None,
            (From::Peer { .. } | From::Plain { .. }, Some(ends)) => Some(ends.neighbour),
            (From::Peer { address, .. } | From::Plain { address, .. }, None) => Some(*address),
        }
    }

    /// The address that a proxy has said, if it is another's than its own.
    #[must_use]
    pub fn said(&self) -> Option<IpAddr> {
        self.ends.and_then(|ends| ends.said())
    }

    /// The port that its other end dialled.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.original.map(|original| original.port()).or_else(|| self.ends.map(|ends| ends.port))
    }

    /// From where it came, by the network's word and by a proxy's; mostly the same.
    #[must_use]
    pub fn whence(&self) -> [IpAddr; 2] {
        self.ends.map_or([self.source(); 2], |ends| ends.whence())
    }

    /// In whose name an app is connected to that is told by that header; `None` if nobody knows between whom the connection
    /// is.
    pub(super) fn announced(&self, version: Version) -> Option<Arc<Client>> {
        if let Some((_, client)) = self.announced.get().filter(|(known, _)| *known == version) {
            return Some(Arc::clone(client));
        }
        let caller = match &self.from {
            From::App { .. } => return None,
            From::Peer { peer, .. } => proxy_protocol::Caller::Verified(peer.id()),
            From::Plain { .. } => proxy_protocol::Caller::Unverified,
        };
        let header = proxy_protocol::header(version, self.ends?.link, caller);
        let client = Arc::new(Client { address: None, announcement: Some(header.into()) });
        // Another version comes only by another configuration.
        self.announced.get_or_init(|| (version, Arc::clone(&client)));
        Some(client)
    }

    /// From which address it came, whoever it is.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        match &self.from {
            From::App { address } | From::Peer { address, .. } | From::Plain { address, .. } => *address,
        }
    }

    /// As whom what is under way is judged again.
    pub(super) fn caller(&self) -> &Arc<live::Caller> {
        let caller =
            || live::Caller::new(self.accepted.clone(), self.from.clone(), (self.original, self.whence()));
        self.caller.get_or_init(|| Arc::new(caller()))
    }

    /// The inbound rules that it came in by, as that snapshot has them.
    #[must_use]
    pub fn inbound<'a>(&'a self, snapshot: &'a Snapshot) -> Option<&'a Arc<Inbound>> {
        self.listener(snapshot).inbound(self.original)
    }

    /// From here on, the connection ends with its next answer: it has lasted long enough.
    pub(super) fn grow_old(&self) {
        self.is_old.store(true, Ordering::Relaxed);
        self.counts().recycled.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the connection is to end with its next answer, for its age.
    pub(super) fn is_old(&self) -> bool {
        self.is_old.load(Ordering::Relaxed)
    }

    /// The connection leaves HTTP when its answer has been sent, and carries this from then on.
    pub(super) fn switch(&self, to: Box<Switched>) {
        *self.switched.lock().unwrap_or_else(PoisonError::into_inner) = Some(to);
    }

    /// Whether the connection is to leave HTTP.
    pub(super) fn is_switched(&self) -> bool {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// What a connection that has left HTTP carries.
    pub(super) fn switched(&self) -> Option<Box<Switched>> {
        self.switched.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The listener's counters.
    #[must_use]
    pub fn counts(&self) -> &Arc<ListenerRuntime> {
        &self.accepted.entrance.counts
    }

    /// Whether and how the listener stops.
    #[must_use]
    pub fn drain(&self) -> &Drain {
        &self.accepted.entrance.drain
    }

    /// What a request goes by that begins now; everything about it is asked of this one snapshot.
    #[must_use]
    pub fn load(&self, snapshots: &Snapshots) -> Arc<Snapshot> {
        self.accepted.load(snapshots)
    }

    /// The listener as that snapshot has it.
    #[must_use]
    pub fn listener<'a>(&'a self, snapshot: &'a Snapshot) -> &'a Listener {
        self.accepted.listener(snapshot)
    }

    /// Whether who is there may have that, as far as its connection is concerned ([`authorize`](super::authorize) looks at
    /// what is asked for): a connection outlives the rules that it was judged by, and those who came in by
    /// an exception are judged by what they ask for. `now` is the time on the wall.
    ///
    /// # Errors
    /// [`ProxyError::NotAllowed`].
    pub fn admit(
        &self,
        snapshot: &Snapshot,
        asked: Asked<'_>,
        now: impl FnOnce() -> SystemTime,
    ) -> Result<(), ProxyError> {
        let may = match &self.from {
            From::App { .. } => true,
            // Judged by this very list when it came in.
            From::Peer { .. } if self.accepted.is_of(snapshot) => true,
            From::Peer { peer, .. } => self.inbound(snapshot).is_none_or(|inbound| {
                let settings = &snapshot.config.settings;
                inbound.allows(peer.id(), &settings.bootstrap.trust_domain, settings.authorization.as_deref())
            }),
            From::Plain { exception, .. } => self.inbound(snapshot).is_some_and(|inbound| {
                let now = now();
                self.whence().into_iter().all(|from| inbound.permits((*exception, from), asked, now))
            }),
        };
        if may { Ok(()) } else { Err(ProxyError::NotAllowed) }
    }

    /// Whether what comes in is for the own app.
    pub(super) fn is_inbound(&self) -> bool {
        !matches!(self.from, From::App { .. })
    }

    /// The record of what has just come in.
    pub(super) fn record<N: Net>(&self, worker: &Worker<N>, kind: Traffic, now: Instant) -> RequestRecord {
        let (caller, direction) = match &self.from {
            From::App { .. } => (Caller::App, Direction::Outbound),
            From::Peer { peer, .. } => (Caller::Peer(peer.id().clone()), Direction::Inbound),
            From::Plain { .. } => (Caller::Unverified, Direction::Inbound),
        };
        let mut trail = Trail::new(kind, direction, self.accepted.shared_name(), caller, now);
        trail.client = Some(self.source());
        RequestRecord::new(Arc::clone(self.counts()), &worker.observer, &worker.clock, trail)
    }

    /// As whose calls its requests to that cluster and route count; `find` is asked the first time, and says whether that is to be
    /// kept. A connection leads to one cluster, unless another configuration sends it to another.
    pub(super) fn edge(
        &self,
        cluster: &ClusterName,
        route: Option<&Arc<str>>,
        find: impl FnOnce() -> (Arc<EdgeCounts>, bool),
    ) -> Arc<EdgeCounts> {
        if let Some(route) = route {
            return self.route_edge(cluster, route, find);
        }
        if let Some((_, counts)) = self.edge.get().filter(|(known, _)| known == cluster) {
            return Arc::clone(counts);
        }
        let (found, is_kept) = find();
        if is_kept {
            self.edge.get_or_init(|| (cluster.clone(), Arc::clone(&found)));
        }
        found
    }

    fn route_edge(
        &self,
        cluster: &ClusterName,
        route: &Arc<str>,
        find: impl FnOnce() -> (Arc<EdgeCounts>, bool),
    ) -> Arc<EdgeCounts> {
        let mut known = self.route_edges.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(of, name, _): &&RouteEdge| name == route && of == cluster;
        if let Some((.., counts)) = known.iter().find(is_it) {
            return Arc::clone(counts);
        }
        let (found, is_kept) = find();
        if is_kept && known.len() < MAX_ROUTE_EDGES {
            known.push((cluster.clone(), Arc::clone(route), Arc::clone(&found)));
        }
        found
    }

    /// What our own answers may say here.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match &self.from {
            From::App { .. } => Audience::App,
            From::Peer { is_sidecar: true, .. } => Audience::Sidecar,
            From::Peer { is_sidecar: false, .. } | From::Plain { .. } => Audience::StandardPeer,
        }
    }

    /// Counts a request or stream for the peer, if there is one.
    pub fn count_request(&self) {
        match &self.from {
            From::App { .. } | From::Plain { .. } => {}
            From::Peer { count, .. } => {
                count.requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
