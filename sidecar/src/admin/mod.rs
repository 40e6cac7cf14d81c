//! Admin: what operators ask, and the few things they may change.
//!
//! ```text
//!   0.0.0.0:4391               GET /live /ready /metrics          anybody who reaches the pod
//!                              GET /probe/<name>                  the same: probes of the own app, as configured
//!   /run/outrider/admin.sock   the same, GET /status /config /clusters /listeners /certs
//!                              GET /edges /tap /explain /explain/route /explain/policy
//!                              POST /drain /reload /log           our own user, or root
//!   …/admin.sock.fd            our listening sockets, for a successor  our own user, or root
//! ```
//!
//! # Invariants
//! - The TCP listener changes nothing and tells nothing secret. GET never changes anything on either.
//! - The socket asks three things of a caller who changes something: the socket's file mode (0600 in a 0700 folder),
//!   the kernel's word for the caller's user, and a header that no browser form and no confused fetcher sends.
//! - A dump holds no key and no token: it is built from settings and counters, which have none.
//! - Connections, requests under way, heads and times are bounded; bodies are refused.

mod ask;
mod client;
mod dump;
mod handover;
mod probes;
mod routes;
mod server;
mod socket;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot, watch};

pub use client::{Answer, ClientError, Lines, call};
pub use handover::{handover_path, serve_handover};
pub use probes::Prober;
pub use server::{serve_read_only, serve_socket};
pub use socket::{BoundSocket, bind_socket};

use crate::{
    clock::Clock,
    drain::Drains,
    model::{
        controller::ControllerStatus,
        reload::{ConfigStatus, Report},
        snapshot::Snapshots,
        status::IdentityStatus,
        wanted::Wanted,
    },
    readiness::Readiness,
    telemetry::{Insight, Metrics, Observer, log},
};

/// The header that a request which changes something must carry, with the value `1`.
pub const CHANGE_HEADER: &str = "x-outrider-admin";

/// A drain that an operator asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainRequest {
    /// Only what comes in from peers; the own app may still call out.
    pub inbound_only: bool,
}

/// Where drain requests arrive. `app` listens and acts; asking twice changes nothing, and a whole drain outranks an
/// inbound one. Clones share it.
#[derive(Clone, Debug)]
pub struct DrainRequests(Arc<watch::Sender<Option<DrainRequest>>>);

impl Default for DrainRequests {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }
}

impl DrainRequests {
    /// Asks for a drain.
    pub fn request(&self, request: DrainRequest) {
        self.0.send_if_modified(|current| {
            let is_new = match current {
                None => true,
                Some(current) => current.inbound_only && !request.inbound_only,
            };
            if is_new {
                *current = Some(request);
            }
            is_new
        });
    }

    /// What was asked for so far.
    #[must_use]
    pub fn current(&self) -> Option<DrainRequest> {
        *self.0.borrow()
    }

    /// For `app`: changes whenever a request arrives, and again when a whole drain follows an inbound one.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<DrainRequest>> {
        self.0.subscribe()
    }
}

/// A reload that an operator asked for: where to say what became of it.
pub type ReloadRequest = oneshot::Sender<Report>;

/// Where reload requests go. Clones share it.
#[derive(Clone, Debug)]
pub struct ReloadRequests(mpsc::Sender<ReloadRequest>);

impl ReloadRequests {
    /// And where they arrive. One may wait while another is served; more are refused.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<ReloadRequest>) {
        let (requests, arriving) = mpsc::channel(1);
        (Self(requests), arriving)
    }

    /// Asks for a reload and waits for what becomes of it; `None` if nobody can serve it now.
    pub async fn request(&self) -> Option<Report> {
        let (done, is_done) = oneshot::channel();
        self.0.try_send(done).ok()?;
        is_done.await.ok()
    }
}

/// Everything that admin shows or changes.
#[derive(Debug)]
pub struct State {
    /// Where the newest snapshot is, and with it the configuration in force.
    pub snapshots: Snapshots,
    /// How getting and renewing our certificate goes.
    pub identity: Arc<IdentityStatus>,
    /// What readiness waits for.
    pub readiness: Readiness,
    /// How far the drain has come.
    pub drain: Drains,
    /// Where asked-for drains go.
    pub drain_requests: DrainRequests,
    /// Where asked-for reloads go.
    pub reload_requests: ReloadRequests,
    /// The configuration in force, and what became of newer ones.
    pub config: Arc<ConfigStatus>,
    /// All metrics.
    pub metrics: Metrics,
    /// Who calls whom, as it is counted.
    pub observer: Arc<Observer>,
    /// What was kept of requests for those who ask.
    pub insight: Arc<Insight>,
    /// How it goes with the controller.
    pub controller: Arc<ControllerStatus>,
    /// What the own app tries to reach and nobody knows.
    pub wanted: Arc<Wanted>,
    /// The log's level; `None` where the process has no log of its own (tests).
    pub log: Option<log::Control>,
    /// How the own app is reached, for probes.
    pub prober: Prober,
    /// For ages.
    pub clock: Clock,
}
