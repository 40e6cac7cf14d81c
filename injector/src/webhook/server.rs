//! Connections of the API server's: accepted, capped, secured, answered, ended.
//!
//! Every wait has a bound: the handshake, a request's head, its answer, and what lies between. Where there are too many
//! connections, one that waits is closed, of the address that has most. A new certificate is for new connections; those
//! that are open are ended in favour of them once their requests are answered.

use std::{io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use axum::{BoxError, Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use outrider_certs::program::{
    Tasks, http_server,
    quota::{Quota, Share},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower::ServiceExt as _;

use super::{
    certificate::Newest,
    metrics::Metrics,
    reviews::{Caller, MAX_DEADLINE, MAX_HEADER_BYTES},
};

/// Pause after an error of accept(): too few file descriptors do not come back by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time that an open connection goes on after it is over, so that a request which is on its way is not lost.
const SETTLE: Duration = Duration::from_secs(1);
/// Time for the first request, and for the head of any over HTTP/1.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Time that a connection may be without a request. An API server keeps one for 90 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// Age of a connection; it is asked to end then.
const MAX_AGE: Duration = Duration::from_secs(1800);
/// Time for an answer to be taken, once a connection is over.
const END_TIMEOUT: Duration = MAX_DEADLINE;
/// What one connection may take.
const HTTP: http_server::Bounds = http_server::Bounds {
    header_timeout: HEADER_TIMEOUT,
    buffer_bytes: 64 * 1024,
    // An API server with more makes another connection.
    streams: 64,
    // A usual review fits.
    stream_window_bytes: 64 * 1024,
    connection_window_bytes: 128 * 1024,
    header_bytes: MAX_HEADER_BYTES,
};

/// How much there may be at a time, and how long it may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections; over that, one that waits is closed.
    pub connections: usize,
    /// Reviews that are being answered; more are refused with 503.
    pub requests: usize,
    /// A TLS handshake.
    pub handshake_timeout: Duration,
    /// How long it goes on after it is told to stop, unready, until API servers have heard of that.
    pub shutdown_delay: Duration,
    /// What is under way at the end.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 256,
            requests: 64,
            handshake_timeout: Duration::from_secs(10),
            shutdown_delay: Duration::from_secs(5),
            grace: Duration::from_secs(10),
        }
    }
}

/// The listener for reviews, and what it answers.
pub(super) struct Server {
    pub(super) router: Router,
    pub(super) newest: Newest,
    pub(super) limits: Limits,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
}

impl Server {
    /// Until it is told to stop. Connections go on in their tasks.
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let places = Quota::new(self.limits.connections, self.limits.connections);
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.tasks.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok((stream, from)) => (stream, from.ip()),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = places.take(Some(address), 1) else {
                self.metrics.refused("connections");
                continue;
            };
            let (server, place) = (Arc::clone(&self), Arc::new(place));
            self.tasks.spawn(async move {
                server.metrics.connections.inc();
                tokio::select! {
                    biased;
                    () = place.lost() => server.metrics.refused("connections"),
                    () = Box::pin(server.connection(stream, address, &place)) => {}
                }
                server.metrics.connections.dec();
            });
        }
    }

    async fn connection(&self, stream: TcpStream, address: IpAddr, place: &Arc<Share>) {
        let caller = Caller { address, place: Arc::clone(place) };
        let served = match self.handshake(stream).await {
            Ok((stream, newest)) => Box::pin(self.serve(stream, newest, caller)).await,
            Err(error) => {
                self.metrics.handshakes_failed.inc();
                return tracing::debug!(%error, "a TLS handshake failed");
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    }

    async fn handshake(&self, stream: TcpStream) -> io::Result<(TlsStream<TcpStream>, Newest)> {
        let mut newest = self.newest.clone();
        let serving = newest.borrow_and_update().clone();
        let Some(serving) = serving else {
            return Err(io::Error::other("there is no certificate yet"));
        };
        let handshake = TlsAcceptor::from(Arc::clone(&serving.tls)).accept(stream);
        let stream = tokio::time::timeout(self.limits.handshake_timeout, Box::pin(handshake)).await??;
        Ok((stream, newest))
    }

    /// Answers requests until the other end is done or says nothing, the process stops, or there is another certificate.
    async fn serve(
        &self,
        stream: TlsStream<TcpStream>,
        newest: Newest,
        caller: Caller,
    ) -> Result<(), BoxError> {
        let router = self.router.clone();
        let under_way = watch::Sender::new(0_usize);
        let watched = under_way.subscribe();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(caller.clone());
            let (counted, answer) =
                (UnderWay::new(&under_way), router.clone().oneshot(request.map(Body::new)));
            async move {
                let answer = answer.await;
                drop(counted);
                answer
            }
        });
        let builder = http_server::builder(&self.tasks, HTTP);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let is_over = async {
            tokio::select! {
                () = self.tasks.stop.cancelled() => {}
                () = replaced(newest) => {}
                () = tokio::time::sleep(MAX_AGE) => {}
                () = idle(watched) => return,
            }
            tokio::time::sleep(SETTLE).await;
        };
        tokio::select! {
            served = connection.as_mut() => return served,
            () = is_over => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::time::timeout(END_TIMEOUT, connection).await?
    }
}

/// Counts a request while it has no answer.
struct UnderWay(watch::Sender<usize>);

impl UnderWay {
    fn new(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count.clone())
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Returns when there was no request for too long.
async fn idle(mut under_way: watch::Receiver<usize>) {
    let mut patience = HEADER_TIMEOUT;
    loop {
        let is_idle = *under_way.borrow_and_update() == 0;
        let changed = if is_idle {
            match tokio::time::timeout(patience, under_way.changed()).await {
                Ok(changed) => changed,
                Err(_elapsed) => return,
            }
        } else {
            under_way.changed().await
        };
        if changed.is_err() {
            return;
        }
        patience = IDLE_TIMEOUT;
    }
}

/// Returns when there is another certificate.
async fn replaced(mut newest: Newest) {
    if newest.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}
