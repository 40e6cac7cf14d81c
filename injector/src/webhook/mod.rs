//! The mutating webhook: the API server asks about each new pod, and gets the patch that gives it its sidecar.
//!
//! ```text
//!   API server ──TLS──▶ server ──▶ reviews ──▶ review ──▶ pod   (pure)
//!       ▲                 ▲           └──▶ events: a few, of denials
//!       │             certificate ◀── the CA, or files
//!       └── caBundle ◀────┘
//! ```
//!
//! # Invariants
//! - A question has an answer or an error within the time that the API server waits.
//! - Who asks is not known: memory, connections and time of whoever asks have bounds, and the one who takes most of them
//!   gives way.
//! - It is ready only if a pod would get its sidecar now: certificate, `caBundle`, and a Kubernetes that will do.

mod ca_bundle;
mod certificate;
mod events;
mod metrics;
mod nodes;
mod review;
mod reviews;
mod server;

use std::{sync::Arc, time::Duration};

use kube::Client;
use outrider::{clock::Clock, identity::rotation::retry_delay};
use outrider_certs::program::{Tasks, status};
use rustls_pki_types::ServerName;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

pub use self::{
    ca_bundle::{Registration, SEQUENCE},
    certificate::{Origin, Serving},
    metrics::Metrics,
    review::{Answered, BadReview, MAX_REVIEW_BYTES, Subject, Verdict, answer},
    server::Limits,
};
use self::{
    certificate::Newest,
    events::Events,
    reviews::{Bounds, Shared},
    server::Server,
};
use crate::{
    installation::Installation,
    version::{self, Version},
};

/// How long the API server may take to say its version.
const VERSION_DEADLINE: Duration = Duration::from_secs(10);

/// What the webhook is made of.
pub struct Options {
    /// What pods are made part of.
    pub installation: Installation,
    /// The API server.
    pub client: Client,
    /// Where the certificate comes from.
    pub origin: Origin,
    /// The name that the API server looks for in it.
    pub server_name: ServerName<'static>,
    /// Whose `caBundle` is kept current; `None`: somebody else does that.
    pub registration: Option<Registration>,
    /// Who writes events: the pod's name. `None`: none are written.
    pub instance: Option<String>,
    /// Bounds.
    pub limits: Limits,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("installation", &self.installation).finish_non_exhaustive()
    }
}

/// Where it listens.
#[derive(Debug)]
pub struct Listeners {
    /// For the API server, over TLS.
    pub reviews: TcpListener,
    /// For `/live`, `/ready` and `/metrics`, in plaintext.
    pub status: TcpListener,
}

/// Why the webhook ends before it is told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS is not available.
    #[error(transparent)]
    Tls(#[from] outrider::identity::tls_configs::Error),
    /// The cluster is none for it.
    #[error(transparent)]
    Version(#[from] version::Error),
}

/// What there has to be for pods to get sidecars.
#[derive(Debug)]
struct Health {
    newest: Newest,
    in_place: Option<watch::Receiver<bool>>,
    version: watch::Receiver<Option<Version>>,
    stop: CancellationToken,
}

impl Health {
    /// What is missing, in words.
    fn waits_for(&self) -> Vec<&'static str> {
        let mut waits = Vec::new();
        let mut note = |is_missing: bool, what| waits.extend(is_missing.then_some(what));
        note(self.stop.is_cancelled(), "nothing any more: it is stopping");
        note(self.newest.borrow().is_none(), "certificate");
        note(self.in_place.as_ref().is_some_and(|in_place| !*in_place.borrow()), "caBundle");
        note(self.version.borrow().is_none(), "the API server's version");
        waits
    }
}

/// Serves until `stop` is cancelled: then it is not ready and goes on for [`Limits::shutdown_delay`], for those that have
/// not heard of it; what is under way after that may finish within [`Limits::grace`].
///
/// # Errors
/// [`Error`]: the process is no use, and must say why.
pub async fn serve(
    options: Options,
    listeners: Listeners,
    clock: Clock,
    stop: CancellationToken,
) -> Result<(), Error> {
    let metrics = Arc::new(Metrics::new());
    let newest = certificate::start(options.origin, options.server_name, &clock)?;
    let client = options.client;
    let in_place = options.registration.map(|registration| {
        ca_bundle::start(client.clone(), registration, newest.clone(), &clock, Arc::clone(&metrics))
    });
    let (to, version) = watch::channel(None);
    let health = Health { newest: newest.clone(), in_place, version, stop: stop.clone() };
    let events =
        options.instance.map(|name| Events::start(client.clone(), name, &clock, Arc::clone(&metrics)));
    let shared = Arc::new(Shared {
        installation: options.installation,
        metrics: Arc::clone(&metrics),
        events,
        health,
        clock: clock.clone(),
        bounds: Bounds::new(&options.limits),
    });
    let tasks = Tasks::new(CancellationToken::new());
    let server = Arc::new(Server {
        router: reviews::reviews(&shared),
        newest,
        limits: options.limits.clone(),
        metrics,
        tasks: tasks.clone(),
    });
    tasks.spawn(server.accept(listeners.reviews));
    tasks.spawn(status::serve(listeners.status, reviews::status(&shared), tasks.clone()));
    let judged = tokio::select! {
        judged = check_version(&client, &to, &clock) => judged,
        () = stop.cancelled() => Ok(()),
    };
    if judged.is_ok() {
        stop.cancelled().await;
        // An API server goes by its node's list of endpoints, which takes a moment to lose this one.
        tokio::time::sleep(options.limits.shutdown_delay).await;
    }
    stop.cancel();
    tasks.stop.cancel();
    tasks.finish(options.limits.grace).await;
    judged.map_err(Error::from)
}

/// Asks the API server for its version until it says it.
async fn check_version(
    client: &Client,
    to: &watch::Sender<Option<Version>>,
    clock: &Clock,
) -> Result<(), version::Error> {
    let mut rng = clock.fork_rng();
    for failures in 1_u32.. {
        match tokio::time::timeout(VERSION_DEADLINE, client.apiserver_version()).await {
            Ok(Ok(info)) => {
                let version = Version::parse(&info.git_version)?.checked()?;
                tracing::info!(version = info.git_version, "the API server can do it");
                to.send_replace(Some(version));
                return Ok(());
            }
            Ok(Err(error)) => tracing::warn!(%error, "the API server did not say its version"),
            Err(_) => tracing::warn!("the API server did not say its version in time"),
        }
        tokio::time::sleep(retry_delay(failures, None, &mut rng)).await;
    }
    Ok(())
}
