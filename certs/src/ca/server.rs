//! Connections of the CA: accepted, capped, secured, served, ended.
//!
//! Every wait has a bound: the handshake, a request's head, an answer, and the
//! connection's age. An error of one connection, or of accept() itself, ends
//! nothing but that connection.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::acknowledgements::{Acknowledgements, Holder};
use super::issue::ServerSan;
use super::issuer::{NamesOf, Validity};
use super::limits::{Limits, RateLimiter};
use super::metrics::Metrics;
use super::review::Reviewer;
use super::service::{Ca, Remote, States, metrics_router, router};
use super::state::CaState;
use super::tls::Secure;
use crate::clock::WallClock;
use crate::program::quota::{Quota, Share};
use crate::program::{Tasks, http_server, status};
use crate::verify::{Peer, peer_of_verified};

/// Pause after an error of accept(): too few file descriptors do not come
/// back by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What part of all connections, and of all requests at a time, one address has
/// that has not proved who it is: one in so many.
pub(super) const ADDRESS_PART: usize = 4;
/// What one connection may take.
const HTTP: http_server::Bounds = http_server::Bounds {
    header_timeout: Duration::from_secs(10),
    // The longest token or ID is far below.
    buffer_bytes: 16 * 1024,
    header_bytes: 16 * 1024,
    streams: 16,
    // A request fits.
    stream_window_bytes: 64 * 1024,
    connection_window_bytes: 64 * 1024,
};

/// How the server runs.
#[derive(Debug, Default)]
pub struct Options {
    /// Lifetimes of leaves.
    pub validity: Validity,
    /// Bounds.
    pub limits: Limits,
    /// DNS names and addresses in the server's certificate, for clients that
    /// check those.
    pub names: Vec<ServerSan>,
    /// Further names in the certificates of some workloads, by their ID.
    pub workload_names: NamesOf,
    /// Judges service accounts' tokens, where those are taken as proof.
    pub reviewer: Option<Arc<dyn Reviewer>>,
    /// Where `/live`, `/ready` and `/metrics` are served, in plaintext.
    pub metrics_listener: Option<TcpListener>,
}

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ServeError(String);

/// Runs the CA until `shutdown` is cancelled: then it accepts no more, lets
/// open requests finish within [`Limits::grace`], and returns.
///
/// # Errors
/// Only at the start, when the CA cannot make its own certificate.
pub async fn serve(
    listener: TcpListener,
    state: CaState,
    options: Options,
    clock: Arc<dyn WallClock>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (_one, states) = watch::channel(Arc::new(state));
    serve_newest(listener, states, options, clock, shutdown).await
}

/// As [`serve`], with whatever state is the newest: another replica may change
/// it.
///
/// # Errors
/// Only at the start, when the CA cannot make its own certificate.
pub async fn serve_newest(
    listener: TcpListener,
    states: States,
    options: Options,
    clock: Arc<dyn WallClock>,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let first = Arc::clone(&states.borrow());
    sweep(first, clock.now()).await;
    let secure = Secure::new(states.clone(), options.names, Arc::clone(&clock))
        .map_err(|e| ServeError(e.to_string()))?;
    let ca = Arc::new(Ca {
        states,
        reviewer: options.reviewer,
        names: Arc::new(options.workload_names),
        clock,
        validity: options.validity,
        rates: RateLimiter::new(&options.limits),
        holders: Acknowledgements::default(),
        metrics: Metrics::new(),
    });
    let tasks = Tasks::new(shutdown);
    let limits = options.limits;
    let server = Server {
        router: router(&ca, &limits),
        tls: secure,
        places: Quota::new(limits.connections, limits.connections.div_ceil(ADDRESS_PART)),
        limits: limits.clone(),
        tasks: tasks.clone(),
        ca: Arc::clone(&ca),
    };
    let metrics = async {
        match options.metrics_listener {
            Some(listener) => status::serve(listener, metrics_router(&ca), tasks.clone()).await,
            None => tasks.stop.cancelled().await,
        }
    };
    tokio::join!(Arc::new(server).accept(listener), metrics);
    tasks.finish(limits.grace).await;
    Ok(())
}

/// Removes old join tokens, where that may block.
async fn sweep(state: Arc<CaState>, now: SystemTime) {
    let swept = tokio::task::spawn_blocking(move || state.sweep_tokens(now)).await;
    if let Ok(Err(error)) = swept {
        tracing::warn!(%error, "old join tokens could not be swept");
    }
}

/// The TLS listener with what it serves.
struct Server {
    router: axum::Router,
    tls: Secure,
    places: Arc<Quota>,
    limits: Limits,
    tasks: Tasks,
    ca: Arc<Ca>,
}

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.tasks.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, address)) => self.start(stream, address),
                Err(error) => self.accept_failed(&error).await,
            }
        }
    }

    async fn accept_failed(&self, error: &io::Error) {
        // Once in a while is enough: the first, and every 1200th (a minute's worth).
        if self.ca.metrics.accept_errors.inc().is_multiple_of(1200) {
            tracing::warn!(%error, "a connection could not be accepted; is the limit of open files too low?");
        }
        tokio::time::sleep(ACCEPT_PAUSE).await;
    }

    fn start(self: &Arc<Self>, stream: TcpStream, address: std::net::SocketAddr) {
        let Some(place) = self.places.take(Some(address.ip()), 1) else {
            self.ca.metrics.connections_shed.inc();
            return;
        };
        let (server, place) = (Arc::clone(self), Arc::new(place));
        self.tasks.spawn(async move {
            server.ca.metrics.connections.inc();
            tokio::select! {
                biased;
                () = place.lost() => drop(server.ca.metrics.connections_shed.inc()),
                () = Box::pin(server.connection(stream, address, &place)) => {}
            }
            server.ca.metrics.connections.dec();
        });
    }

    async fn connection(&self, stream: TcpStream, address: std::net::SocketAddr, place: &Arc<Share>) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%address, %error, "TCP_NODELAY could not be set");
        }
        let accepting = self.tls.acceptor().accept(stream);
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, accepting).await;
        let failed = match handshake {
            Ok(Ok(stream)) => {
                self.ca.metrics.handshakes.inc();
                let peer = shown(stream.get_ref().1);
                if peer.is_some() {
                    place.prove();
                }
                return Box::pin(self.talk(stream, Remote::new(address, peer), place)).await;
            }
            Ok(Err(error)) => error,
            Err(error) => io::Error::new(io::ErrorKind::TimedOut, error),
        };
        self.ca.metrics.handshakes_failed.inc();
        let tls = failed.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(cause)) = tls {
            tracing::warn!(from = %address, %cause, "the client's certificate was refused");
        } else {
            tracing::debug!(from = %address, error = %failed, "TLS handshake failed");
        }
    }

    /// Speaks HTTP until either side ends it, the connection is too old, or
    /// the CA stops.
    async fn talk<IO>(&self, io: IO, remote: Remote, place: &Arc<Share>)
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (router, remote, place) = (self.router.clone(), Arc::new(remote), Arc::clone(place));
        let from = remote.address;
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&remote));
            request.extensions_mut().insert(Arc::clone(&place));
            router.clone().oneshot(request)
        });
        let builder = http_server::builder(&self.tasks, HTTP);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
        let ended = tokio::select! {
            biased;
            ended = connection.as_mut() => Some(ended),
            () = self.tasks.stop.cancelled() => None,
            () = tokio::time::sleep(self.limits.connection_age) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    ended = connection => ended,
                    () = tokio::time::sleep(self.limits.grace) => Ok(()),
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%from, %error, "connection ended");
        }
    }
}

/// Who has shown which leaf in the handshake that was just done.
fn shown(tls: &rustls::ServerConnection) -> Option<(Peer, Holder)> {
    let chain = tls.peer_certificates()?;
    let leaf = chain.first()?;
    // Our verifier has let it through, so it can be read; without tickets
    // there is no resumption.
    Some((peer_of_verified(chain).ok()?, Holder::of(leaf)))
}
