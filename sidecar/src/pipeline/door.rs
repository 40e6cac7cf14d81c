//! Where a connection came in, and who is at its other end.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::SystemTime,
};

use outrider_certs::Peer;

use super::{entrance::Accepted, error::ProxyError, misuse::Resets, respond::Audience, switched::Switched};
use crate::{
    drain::Drain,
    model::{
        Listener, Snapshot,
        listener::{Asked, Exception, Inbound},
        runtime::{ListenerRuntime, PeerCount},
        snapshot::Snapshots,
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
    /// Streams reset before their answers, of HTTP/2.
    pub resets: Resets,
    /// What the connection carries once it has left HTTP.
    switched: Mutex<Option<Box<Switched>>>,
}

/// Who is at the other end of a downstream connection.
#[derive(Clone, Debug)]
pub enum From {
    /// The own app (or whoever else reaches the explicit listener).
    App,
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
        Self { accepted, from, original: None, resets: Resets::default(), switched: Mutex::new(None) }
    }

    /// The door of a connection that the kernel brought here, and whom its other end dialled.
    #[must_use]
    pub fn intercepted(self, original: SocketAddr) -> Self {
        Self { original: Some(original), ..self }
    }

    /// Whom its other end dialled, if the kernel brought the connection here.
    #[must_use]
    pub fn original(&self) -> Option<SocketAddr> {
        self.original
    }

    /// From which address it came, unless it is the own app.
    #[must_use]
    pub fn client(&self) -> Option<IpAddr> {
        match &self.from {
            From::App => None,
            From::Peer { address, .. } | From::Plain { address, .. } => Some(*address),
        }
    }

    /// The inbound rules that it came in by, as that snapshot has them.
    #[must_use]
    pub fn inbound<'a>(&'a self, snapshot: &'a Snapshot) -> Option<&'a Arc<Inbound>> {
        self.listener(snapshot).inbound(self.original)
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

    /// Whether who is there may have that: a connection outlives the rules that it was judged by, and those who came in by
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
            From::App => true,
            // Judged by this very list when it came in.
            From::Peer { .. } if self.accepted.is_of(snapshot) => true,
            From::Peer { peer, .. } => self.inbound(snapshot).is_none_or(|inbound| {
                inbound.allows(peer.id(), &snapshot.config.settings.bootstrap.trust_domain)
            }),
            From::Plain { exception, .. } => {
                self.inbound(snapshot).is_some_and(|inbound| inbound.permits(*exception, asked, now()))
            }
        };
        if may { Ok(()) } else { Err(ProxyError::NotAllowed) }
    }

    /// What our own answers may say here.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match &self.from {
            From::App => Audience::App,
            From::Peer { is_sidecar: true, .. } => Audience::Sidecar,
            From::Peer { is_sidecar: false, .. } | From::Plain { .. } => Audience::StandardPeer,
        }
    }

    /// Counts a request or stream for the peer, if there is one.
    pub fn count_request(&self) {
        match &self.from {
            From::App | From::Plain { .. } => {}
            From::Peer { count, .. } => {
                count.requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
