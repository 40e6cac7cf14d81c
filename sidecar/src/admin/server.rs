//! Serving: accept loops with bounds, around the routes.

use std::{convert::Infallible, future::Future, io, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::{BoundSocket, State, routes};
use crate::drain::spawn_background;

/// Connections of the socket: a few operators and tools.
const MAX_SOCKET_CONNECTIONS: usize = 16;
/// Connections of the read-only listener. More than the socket's, and without keep-alive, so that idle strangers do
/// not keep probes out.
const MAX_READ_ONLY_CONNECTIONS: usize = 64;
/// Time for a request's head, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Life of a connection of the read-only listener, its one answer read or not: a reader who does not read has a slot
/// no longer than this. Head and request fit in.
const READ_ONLY_LIFETIME: Duration = Duration::from_secs(15);
/// Life of a connection of the socket: many requests, and dumps that somebody pages through.
const SOCKET_LIFETIME: Duration = Duration::from_secs(300);
/// Bytes buffered per connection; no head that is meant for us is larger.
const MAX_BUFFER_BYTES: usize = 16 * 1024;
/// Fields of a request's head.
const MAX_HEADERS: usize = 64;
/// Rest after a failed accept, which means that the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What connections of one listener may do.
#[derive(Clone, Copy, Debug)]
struct Terms {
    keep_alive: bool,
    /// From accept to close, whatever happens between.
    lifetime: Duration,
}

const READ_ONLY: Terms = Terms { keep_alive: false, lifetime: READ_ONLY_LIFETIME };
const SOCKET: Terms = Terms { keep_alive: true, lifetime: SOCKET_LIFETIME };

/// Serves `/live`, `/ready` and `/metrics` to anybody, until `shutdown` completes. Connections that are open then end
/// with their request.
pub async fn serve_read_only(
    listener: TcpListener,
    state: Arc<State>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = routes::read_only(state);
    let slots = Arc::new(Semaphore::new(MAX_READ_ONLY_CONNECTIONS));
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => start(stream, &router, &slots, READ_ONLY),
                Err(error) => pause(&error).await,
            }
        }
    };
    until(accepting, shutdown).await;
}

/// Serves everything to our own user and to root, until `shutdown` completes; then the socket's file goes, if it is
/// still ours.
pub async fn serve_socket(socket: BoundSocket, state: Arc<State>, shutdown: impl Future<Output = ()> + Send) {
    let router = routes::all(state);
    let slots = Arc::new(Semaphore::new(MAX_SOCKET_CONNECTIONS));
    let accepting = async {
        loop {
            match socket.listener().accept().await {
                Ok((stream, _)) if is_trusted(&stream) => start(stream, &router, &slots, SOCKET),
                Ok((_stranger, _)) => {
                    tracing::warn!("refused a connection of another user to the admin socket")
                }
                Err(error) => pause(&error).await,
            }
        }
    };
    until(accepting, shutdown).await;
}

pub(super) async fn until(accepting: impl Future<Output = Infallible>, shutdown: impl Future<Output = ()>) {
    tokio::select! {
        biased;
        () = shutdown => {}
        never = accepting => match never {},
    }
}

pub(super) async fn pause(error: &io::Error) {
    tracing::warn!(%error, "admin cannot accept a connection");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Whether the kernel says that the caller is our own user, or root.
pub(super) fn is_trusted(stream: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|caller| caller.uid() == own || caller.uid() == 0)
}

/// Serves one connection in a task of its own, or closes it if all slots are taken.
fn start<S>(stream: S, router: &Router, slots: &Arc<Semaphore>, terms: Terms)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Ok(slot) = Arc::clone(slots).try_acquire_owned() else {
        tracing::debug!("admin has too many connections; closed one");
        return;
    };
    spawn_background(serve_connection(stream, router.clone(), slot, terms));
}

async fn serve_connection<S>(stream: S, router: Router, slot: OwnedSemaphorePermit, terms: Terms)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(tower::service_fn(move |request: Request<Incoming>| {
        tower::ServiceExt::oneshot(router.clone(), request.map(Body::new))
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .keep_alive(terms.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(terms.lifetime, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "admin connection"),
        Err(_elapsed) => {
            tracing::debug!(lifetime = ?terms.lifetime, "admin closed a connection that was too slow")
        }
    }
    drop(slot);
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::Instant,
    };

    use super::*;

    /// A connection whose client has asked, and may read an answer of a megabyte through 64 bytes.
    async fn asked(slots: &Arc<Semaphore>, terms: Terms) -> DuplexStream {
        let router = Router::new().route("/", get(|| async { "x".repeat(1024 * 1024) }));
        let (mut client, server) = tokio::io::duplex(64);
        start(server, &router, slots, terms);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_loses_the_slot() {
        for terms in [READ_ONLY, SOCKET] {
            let slots = Arc::new(Semaphore::new(2));
            let began = Instant::now();
            let _deaf = [asked(&slots, terms).await, asked(&slots, terms).await];
            assert_eq!(slots.available_permits(), 0);
            let _slots = slots.acquire_many(2).await.unwrap();
            assert!(began.elapsed() <= terms.lifetime + Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_gets_the_whole_answer() {
        let slots = Arc::new(Semaphore::new(1));
        let mut answer = Vec::new();
        asked(&slots, READ_ONLY).await.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1024 * 1024, "{}", answer.len());
    }
}
