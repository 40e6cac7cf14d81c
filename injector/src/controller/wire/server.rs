//! Connections: accepted, capped, secured, served, ended.
//!
//! Every wait has a bound. An error of one connection, or of accept() itself, ends nothing but that connection. A
//! connection lives no longer than the trust in the certificate at its other end.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::{Stream, stream};
use http::Request;
use hyper::{body::Incoming, rt::Executor as _, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use outrider::{
    clock::Clock,
    discovery::controller::api::outrider_discovery_v1::{
        WatchRequest, WatchResponse,
        discovery_server::{Discovery, DiscoveryServer},
    },
    model::Identity,
};
pub use outrider_certs::program::Tasks;
use outrider_certs::{
    program::{
        quota::{Quota, Share},
        status,
    },
    verify::{self, Role},
};
use rustls_pki_types::CertificateDer;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{Response, Status, Streaming};
use tower::ServiceExt as _;

use super::{
    desk::Desk,
    remote::{Connections, Remote},
    status::{Facts, router},
    stream::{Conversation, MAX_REQUEST_BYTES},
};
use crate::controller::{
    Limits,
    metrics::{End, Metrics},
};

/// Pause after an error of accept(): too few file descriptors do not come back by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections of one identity for each stream that it may have: while one goes, another may take its place.
const CONNECTIONS_FOR_STREAM: usize = 2;
/// Requests at a time on one connection: a sidecar has one.
const MAX_STREAMS: u32 = 4;
/// Bytes of a sidecar's requests under way: one of the largest fits.
const WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of answers that wait for a sidecar to read.
const SEND_BYTES: usize = 64 * 1024;
/// Largest request head, in bytes.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// What connections are served with.
#[derive(Debug)]
pub struct Server {
    /// What is known, and who asks.
    pub desk: Arc<Desk>,
    /// Ours; whom we trust.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Bounds.
    pub limits: Limits,
    /// Who has how many connections.
    pub connections: Arc<Connections>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Deadlines and certificates go by it.
    pub clock: Clock,
    /// What is under way.
    pub tasks: Tasks,
}

impl Server {
    /// Serves `/live`, `/ready` and `/metrics` until the controller stops.
    pub async fn serve_status(self: Arc<Self>, listener: TcpListener) {
        let facts = Facts {
            desk: Arc::clone(&self.desk),
            metrics: Arc::clone(&self.metrics),
            identity: self.identity.clone(),
            clock: self.clock.clone(),
        };
        status::serve(listener, router(facts), self.tasks.clone()).await;
    }

    /// Serves sidecars until the controller stops.
    pub async fn serve_sidecars(self: Arc<Self>, listener: TcpListener) {
        let places = Quota::new(self.limits.connections, self.limits.connections);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.tasks.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Once in a while is enough: the first, and every 1200th (a minute's worth).
                    if self.metrics.accept_errors.inc().is_multiple_of(1200) {
                        tracing::warn!(%error, "a connection could not be accepted; is the limit of open files too low?");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = places.take(Some(address.ip()), 1) else {
                self.metrics.connections_shed.inc();
                continue;
            };
            let (server, place) = (Arc::clone(&self), Arc::new(place));
            self.tasks.spawn(async move {
                server.metrics.connections.inc();
                tokio::select! {
                    biased;
                    () = place.lost() => drop(server.metrics.connections_shed.inc()),
                    () = Box::pin(server.sidecar(stream, address, &place)) => {}
                }
                server.metrics.connections.dec();
            });
        }
    }

    async fn sidecar(&self, stream: TcpStream, address: SocketAddr, place: &Arc<Share>) {
        let handshake = tokio::select! {
            biased;
            () = self.tasks.stop.cancelled() => None,
            done = tokio::time::timeout(self.limits.handshake_timeout, self.handshake(stream)) => Some(done),
        };
        let failed = match handshake {
            Some(Ok(Ok(stream))) => {
                self.metrics.handshakes.inc();
                // It has shown a certificate of the mesh: it does not give way to anybody.
                let _serving = place.serving();
                Box::pin(self.talk(stream)).await;
                None
            }
            Some(Ok(Err(error))) => Some(error),
            Some(Err(late)) => Some(io::Error::new(io::ErrorKind::TimedOut, late)),
            None => None,
        };
        if let Some(error) = failed {
            self.metrics.handshakes_failed.inc();
            tracing::debug!(from = %address, %error, "TLS handshake failed");
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        stream.set_nodelay(true)?;
        let identity = self.identity.borrow().clone();
        let identity = identity.ok_or_else(|| io::Error::other("we have no certificate yet"))?;
        TlsAcceptor::from(Arc::clone(&identity.tls.server_standard_http)).accept(stream).await
    }

    /// Speaks HTTP/2 until either side ends it, the trust in the other end is over, or the controller stops.
    async fn talk(&self, stream: TlsStream<TcpStream>) {
        let chain: Vec<CertificateDer<'static>> = stream
            .get_ref()
            .1
            .peer_certificates()
            .unwrap_or_default()
            .iter()
            .map(|der| der.clone().into_owned())
            .collect();
        // Our verifier has let it through, so it can be read; without tickets there is no resumption.
        let Ok(peer) = verify::peer_of_verified(&chain) else { return };
        let max = self.limits.streams_of_identity.saturating_mul(CONNECTIONS_FOR_STREAM);
        let Some(_place) = self.connections.admit(peer.id(), max) else {
            self.metrics.connections_shed.inc();
            return;
        };
        let remote = Remote::new(peer.id().clone());
        let service = DiscoveryServer::new(Service {
            desk: Arc::clone(&self.desk),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
            tasks: self.tasks.clone(),
        });
        let service = service.max_decoding_message_size(MAX_REQUEST_BYTES);
        let extension = remote.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(extension.clone());
            service.clone().oneshot(request.map(tonic::body::Body::new))
        });
        let mut connection = pin!(self.http().serve_connection(TokioIo::new(stream), service));
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                return if let Err(error) = ended {
                    tracing::debug!(id = %remote.id, %error, "connection ended");
                };
            }
            () = remote.cut.cancelled() => return,
            () = remote.is_idle() => {
                return tracing::debug!(id = %remote.id, "connection ended: it had no stream");
            }
            () = self.trust_ends(&chain, peer.not_after()) => {
                self.metrics.trust_cuts.inc();
                return tracing::info!(id = %remote.id, "connection ended: its certificate is trusted no more");
            }
            () = self.tasks.stop.cancelled() => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            biased;
            _ended = connection => {}
            () = remote.cut.cancelled() => {}
        }
    }

    /// Waits until the certificate at the other end has run out, or its root is trusted no more.
    async fn trust_ends(&self, chain: &[CertificateDer<'static>], not_after: SystemTime) {
        let mut identity = self.identity.clone();
        loop {
            let now = self.clock.wall();
            let bundles = identity.borrow_and_update().as_ref().map(|identity| Arc::clone(&identity.bundles));
            if bundles.is_some_and(|bundles| verify::peer(chain, &bundles, Role::Client, now).is_err()) {
                return;
            }
            let left = not_after.duration_since(now).unwrap_or_default();
            // At most an hour, so that a wall clock that jumped is noticed.
            let pause = left.saturating_add(Duration::from_secs(1)).min(Duration::from_secs(3600));
            tokio::select! {
                changed = identity.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn http(&self) -> http2::Builder<Tasks> {
        let mut builder = http2::Builder::new(self.tasks.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_send_buf_size(SEND_BYTES)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10));
        builder
    }
}

#[derive(Debug)]
struct Service {
    desk: Arc<Desk>,
    metrics: Arc<Metrics>,
    clock: Clock,
    tasks: Tasks,
}

#[tonic::async_trait]
impl Discovery for Service {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: tonic::Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let remote = request.extensions().get::<Remote>().cloned();
        let remote = remote.ok_or_else(|| Status::internal("the connection is not known"))?;
        let conversation = Conversation {
            desk: Arc::clone(&self.desk),
            id: remote.id.clone(),
            stop: self.tasks.stop.clone(),
            metrics: Arc::clone(&self.metrics),
            clock: self.clock.clone(),
        };
        // One message at a time: what is not taken yet is not made yet.
        let (out, mut said) = mpsc::channel(1);
        let inbound = request.into_inner();
        let stream = remote.stream();
        self.tasks.execute(async move {
            if conversation.run(inbound, out).await == End::Slow {
                // A stream's end would wait behind what is not read.
                remote.cut.cancel();
            }
            drop(stream);
        });
        let said = stream::poll_fn(move |context| said.poll_recv(context));
        Ok(Response::new(Box::pin(said)))
    }
}
