//! The app behind a sidecar, in this process, so that a claim can see and steer what reaches it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// Size of one piece of a stream.
pub(super) const PIECE_BYTES: usize = 16 * 1024;
/// Rest between two pieces: slow enough to outlast what happens meanwhile.
const PIECE_REST: Duration = Duration::from_millis(10);

/// A running app. It answers with its name; `/held` only when it is told to; `/stream` with pieces until it is told to
/// end.
#[derive(Debug)]
pub(super) struct App {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    name: String,
    /// Requests that arrived.
    seen: AtomicU64,
    /// Requests that are held now.
    held: AtomicU64,
    is_released: watch::Sender<bool>,
}

impl App {
    pub(super) async fn start(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.expect("the address is free");
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            seen: AtomicU64::new(0),
            held: AtomicU64::new(0),
            is_released: watch::Sender::new(false),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { shared, accepting }
    }

    /// Requests that arrived so far.
    pub(super) fn seen(&self) -> u64 {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Requests that are held now.
    pub(super) fn held(&self) -> u64 {
        self.shared.held.load(Ordering::SeqCst)
    }

    /// Lets held requests and streams end.
    pub(super) fn release(&self) {
        self.shared.is_released.send_replace(true);
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        stream.set_nodelay(true).expect("an option of TCP");
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            let builder = auto::Builder::new(TokioExecutor::new());
            // How a connection ends is seen at its other end.
            drop(builder.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
    shared.seen.fetch_add(1, Ordering::SeqCst);
    let path = request.uri().path().to_owned();
    // A request that breaks off is its sender's business.
    drop(request.into_body().collect().await);
    let body = match path.as_str() {
        "/held" => {
            shared.held.fetch_add(1, Ordering::SeqCst);
            let _held = Held(Arc::clone(&shared));
            wait_for_release(&shared).await;
            Full::from("released").boxed()
        }
        "/stream" => {
            let pieces = stream::unfold(shared, async |shared| {
                tokio::time::sleep(PIECE_REST).await;
                let is_over = *shared.is_released.borrow();
                (!is_over).then(|| (Ok(Frame::data(Bytes::from_static(&[b'p'; PIECE_BYTES]))), shared))
            });
            BodyExt::boxed(StreamBody::new(pieces))
        }
        _ => Full::from(shared.name.clone()).boxed(),
    };
    Ok(Response::new(body))
}

async fn wait_for_release(shared: &Shared) {
    let mut is_released = shared.is_released.subscribe();
    is_released.wait_for(|is_released| *is_released).await.expect("the app lives");
}

struct Held(Arc<Shared>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::SeqCst);
    }
}
