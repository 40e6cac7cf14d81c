//! Where a connection came in, and who is at its other end.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use outrider_certs::Peer;

use super::{misuse::Resets, respond::Audience, switched::Switched};
use crate::model::{
    Listener,
    runtime::{ListenerRuntime, PeerCount},
};

/// The door of one downstream connection.
#[derive(Debug)]
pub struct Door {
    /// The listener that accepted it.
    pub listener: Arc<Listener>,
    /// That listener's counters.
    pub counts: Arc<ListenerRuntime>,
    /// Who is there.
    pub from: From,
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
}

impl Door {
    /// The door of a new connection.
    #[must_use]
    pub fn new(listener: Arc<Listener>, counts: Arc<ListenerRuntime>, from: From) -> Self {
        Self { listener, counts, from, resets: Resets::default(), switched: Mutex::new(None) }
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

    /// What our own answers may say here.
    #[must_use]
    pub fn audience(&self) -> Audience {
        match &self.from {
            From::App => Audience::App,
            From::Peer { is_sidecar: true, .. } => Audience::Sidecar,
            From::Peer { is_sidecar: false, .. } => Audience::StandardPeer,
        }
    }

    /// Counts a request or stream for the peer.
    pub fn count_request(&self) {
        match &self.from {
            From::App => {}
            From::Peer { count, .. } => {
                count.requests.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
