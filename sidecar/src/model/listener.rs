//! Listeners: addresses we accept on, each with its direction.

use std::{net::SocketAddr, sync::Arc};

use outrider_certs::{SpiffeId, TrustDomain};

use super::{
    cluster::{AppProtocol, ClusterName},
    transport::PeerKind,
};

/// An address we accept on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the configuration, unique; a metric label.
    pub name: Arc<str>,
    /// Where it listens. Port 0 lets the operating system choose (tests).
    pub address: SocketAddr,
    /// What it accepts and where that goes.
    pub kind: ListenerKind,
}

/// What a listener accepts and where that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Plain HTTP from the own app, routed to clusters by authority.
    OutboundHttp {
        /// Where an authority that no cluster names goes; `None` answers 404.
        default_cluster: Option<ClusterName>,
    },
    /// Plain bytes from the own app, all to one cluster.
    OutboundTcp {
        /// That cluster.
        cluster: ClusterName,
    },
    /// Mutual TLS from peers, to the own app.
    Inbound(Inbound),
}

/// An inbound listener: who may come in, and what the app behind it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The cluster made for the own app, named `inbound/<listener>`; it has one endpoint without TLS.
    pub app: ClusterName,
    /// What is carried.
    pub protocol: Protocol,
    /// What the app speaks, for HTTP.
    pub app_protocol: AppProtocol,
    /// What the peer's side of the connection is.
    pub peer: PeerKind,
    /// The SPIFFE IDs that may call, compared by equality; empty: any workload of the own trust domain.
    pub allow: Vec<SpiffeId>,
}

/// What a listener carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
}

impl Inbound {
    /// Whether that peer may call here: it is on the list, or there is none and it is a workload of our trust domain.
    #[must_use]
    pub fn allows(&self, peer: &SpiffeId, own: &TrustDomain) -> bool {
        if self.allow.is_empty() {
            peer.trust_domain() == own && peer.is_workload()
        } else {
            self.allow.contains(peer)
        }
    }
}

impl Listener {
    /// Whether connections that `before` accepted may stay as this listener's: where they came in and what they carry
    /// is the same. What else may differ (who may call, where requests go) is judged anew for every request.
    ///
    /// Whoever adds a setting that a connection is made with adds it here.
    #[must_use]
    pub fn carries_on(&self, before: &Self) -> bool {
        self.address == before.address
            && match (&self.kind, &before.kind) {
                (ListenerKind::OutboundHttp { .. }, ListenerKind::OutboundHttp { .. })
                | (ListenerKind::OutboundTcp { .. }, ListenerKind::OutboundTcp { .. }) => true,
                (ListenerKind::Inbound(now), ListenerKind::Inbound(before)) => {
                    (now.protocol, now.peer) == (before.protocol, before.peer)
                }
                (
                    ListenerKind::OutboundHttp { .. }
                    | ListenerKind::OutboundTcp { .. }
                    | ListenerKind::Inbound(_),
                    _,
                ) => false,
            }
    }

    /// What it is if it takes connections from peers.
    #[must_use]
    pub fn inbound(&self) -> Option<&Inbound> {
        match &self.kind {
            ListenerKind::Inbound(inbound) => Some(inbound),
            ListenerKind::OutboundHttp { .. } | ListenerKind::OutboundTcp { .. } => None,
        }
    }

    /// Whether it takes connections from peers rather than from the own app.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        matches!(self.kind, ListenerKind::Inbound(_))
    }
}
