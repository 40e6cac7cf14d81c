//! One stream: connect, make sure that it is the controller, say and hear.

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{Request, Response};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider_certs::{
    SpiffeId,
    verify::{self, Role},
};
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::sync::mpsc;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::{Streaming, body::Body};

use super::{
    Keeper,
    api::outrider_discovery_v1::{
        Hello, WatchRequest, WatchResponse, discovery_client::DiscoveryClient, watch_request,
    },
    state,
};
use crate::{
    model::Identity,
    net::{Net, reach},
};

/// From the name's look-up to the stream's first word.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A stream on which nothing was heard for so long is dead: three heartbeats.
const SILENCE: Duration = Duration::from_secs(30);
/// Messages on their way to the connection.
const MAX_OUTGOING: usize = 16;
/// Largest message: some ten thousand endpoints.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// Largest header block of an answer; a few hundred bytes are usual.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// What may be under way to us.
const WINDOW_BYTES: u32 = 1024 * 1024;
/// The authority of requests: who the server is was settled by TLS.
const ORIGIN: &str = "https://outrider-controller";

/// Why a stream ended, or never came to be.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("its address cannot be found: {0}")]
    Resolve(#[source] io::Error),
    #[error("it cannot be reached: {0}")]
    Connect(#[source] io::Error),
    #[error("the server there is nobody whom we trust: {0}")]
    Handshake(#[source] io::Error),
    #[error("the server there is not the controller: {0}")]
    Unverified(#[from] verify::Error),
    #[error("the server there is not the controller but {0}")]
    NotTheController(SpiffeId),
    #[error("no answer within {CONNECT_TIMEOUT:?}")]
    Timeout,
    #[error("the connection broke: {0}")]
    Broke(#[from] hyper::Error),
    #[error("it said {:?}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("it ended the stream")]
    Ended,
    #[error("nothing was heard for {SILENCE:?}")]
    Silence,
    #[error("it said what it may not say: {0}")]
    Fault(#[from] state::Fault),
    #[error("its root is not trusted any more: {0}")]
    NoLongerTrusted(#[source] verify::Error),
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// A stream that ended by our own wish: another is to take its place at once.
pub(super) struct Renew;

/// The other end of a connection.
struct Peer {
    chain: Vec<CertificateDer<'static>>,
    identity: Arc<Identity>,
}

/// Talks for as long as it goes well.
pub(super) async fn talk<N: Net>(keeper: &mut Keeper<N>) -> Result<Renew, Error> {
    let begun = async {
        let (stream, peer) = connect(keeper).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(MAX_HEADER_BYTES)
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok::<_, Error>((sender, connection, peer))
    };
    let begun = tokio::time::timeout(CONNECT_TIMEOUT, Box::pin(begun)).await;
    let (sender, connection, peer) = begun.map_err(|_elapsed| Error::Timeout)??;
    let mut connection = pin!(connection);
    let (to, mut from) = mpsc::channel::<WatchRequest>(MAX_OUTGOING);
    let outgoing = futures_util::stream::poll_fn(move |context| from.poll_recv(context));
    let mut client = DiscoveryClient::with_origin(Sender(sender), http::Uri::from_static(ORIGIN))
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    let hello = Hello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pod: keeper.pod(),
        ports: Vec::new(),
        pod_uid: keeper.settings.pod_uid.clone().unwrap_or_default(),
    };
    let hello = WatchRequest { message: Some(watch_request::Message::Hello(hello)) };
    // There is room.
    drop(to.try_send(hello));
    let watching = async {
        let opening = tokio::time::timeout(CONNECT_TIMEOUT, client.watch(outgoing));
        let incoming = opening.await.map_err(|_elapsed| Error::Timeout)??.into_inner();
        converse(keeper, (to, incoming), &peer).await
    };
    tokio::select! {
        biased;
        ended = watching => ended,
        broken = &mut connection => Err(broken.map_or_else(Error::Broke, |()| Error::Ended)),
    }
}

async fn converse<N: Net>(
    keeper: &mut Keeper<N>,
    (to, mut incoming): (mpsc::Sender<WatchRequest>, Streaming<WatchResponse>),
    peer: &Peer,
) -> Result<Renew, Error> {
    keeper.state.begin();
    keeper.take_wishes();
    let mut heard: Instant = keeper.clock.now();
    loop {
        let snapshots = keeper.snapshots.clone();
        let is_other = |identity: &Option<Arc<Identity>>| {
            identity.as_ref().is_some_and(|identity| !Arc::ptr_eq(identity, &peer.identity))
        };
        let (wanted, next_look) = (Arc::clone(&keeper.wanted), keeper.next_look);
        tokio::select! {
            biased;
            message = incoming.message() => {
                let Some(message) = message? else { return Err(Error::Ended) };
                heard = keeper.clock.now();
                keeper.hear(message)?;
            }
            Ok(permit) = to.reserve(), if keeper.state.has_next() => {
                if let Some(message) = keeper.state.next() {
                    permit.send(message);
                }
            }
            () = wanted.arrived() => keeper.take_wishes(),
            newer = snapshots.until(|snapshot| is_other(&snapshot.identity)) => {
                // The next stream shows the new certificate; this one's other end must still be trusted until then.
                if let Some(identity) = &newer.identity {
                    verify::peer(&peer.chain, &identity.bundles, Role::Server, keeper.clock.wall())
                        .map_err(Error::NoLongerTrusted)?;
                }
                return Ok(Renew);
            }
            () = tokio::time::sleep_until((heard + SILENCE).into()) => return Err(Error::Silence),
            () = tokio::time::sleep_until(next_look.into()) => keeper.look(),
        }
    }
}

/// A connection whose other end is the controller.
async fn connect<N: Net>(keeper: &Keeper<N>) -> Result<(TlsStream<N::Stream>, Peer), Error> {
    let snapshot = keeper.snapshots.until(|snapshot| snapshot.identity.is_some()).await;
    let identity = snapshot.identity.clone().expect("it was waited for");
    drop(snapshot);
    let (tcp, address) =
        reach::reach(&keeper.net, &keeper.settings.address).await.map_err(|error| match error {
            reach::Error::Resolve(source) => Error::Resolve(source),
            reach::Error::Connect(source) => Error::Connect(source),
        })?;
    // Not sent (no SNI) and not compared: who the server is follows from its SPIFFE ID.
    let name = ServerName::from(address.ip());
    let tls = TlsConnector::from(Arc::clone(&identity.tls.client_standard_h2));
    let stream = tls.connect(name, tcp).await.map_err(Error::Handshake)?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
    let found = verify::peer_of_verified(&chain)?.id().clone();
    if found != keeper.settings.spiffe_id {
        return Err(Error::NotTheController(found));
    }
    Ok((stream, Peer { chain, identity }))
}

/// An HTTP/2 connection as the generated client wants it.
#[derive(Clone)]
struct Sender(http2::SendRequest<Body>);

impl tower::Service<Request<Body>> for Sender {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Incoming>, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
