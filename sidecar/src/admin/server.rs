//! Serving: accept loops with bounds, around the routes.

use std::{
    convert::Infallible,
    future::Future,
    io,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use outrider_certs::program::{
    quota::{Quota, Share},
    status,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixStream},
};

use super::{BoundSocket, State, routes};
use crate::drain::spawn_background;

/// Connections of the socket: a few operators and tools.
const MAX_SOCKET_CONNECTIONS: usize = 16;
/// Time for a request's head on the socket, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
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
    /// Time for a request's head.
    head: Duration,
    /// From accept to close, whatever happens between.
    lifetime: Duration,
}

/// The address that was asked: the pod's, if it was the kubelet that asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalAddress(pub(super) IpAddr);

/// How a connection's time is renewed, by an answer that may last longer and is read as it comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Life(Arc<AtomicBool>);

impl Life {
    /// Another lifetime from the end of this one. An answer that is not read does not come to say so.
    pub(super) fn renew(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_renewed(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

/// Without keep-alive, and for a short time, so that idle strangers do not keep probes out.
const READ_ONLY: Terms = Terms { keep_alive: false, head: status::HEAD_TIMEOUT, lifetime: status::LIFETIME };
const SOCKET: Terms = Terms { keep_alive: true, head: HEAD_TIMEOUT, lifetime: SOCKET_LIFETIME };

/// Serves `/live`, `/ready`, `/metrics` and `/probe/…` to anybody, until `shutdown` completes. Connections that are open then end
/// with their request.
pub async fn serve_read_only(
    listener: TcpListener,
    state: Arc<State>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let router = routes::read_only(state);
    let places = status::places();
    let accepting = async {
        loop {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let local = stream.local_addr().ok().map(|address| LocalAddress(address.ip()));
                    start(stream, (&router, local), places.take(Some(from.ip()), 1), READ_ONLY);
                }
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
    let places = Quota::new(MAX_SOCKET_CONNECTIONS, MAX_SOCKET_CONNECTIONS);
    let accepting = async {
        loop {
            match socket.listener().accept().await {
                Ok((stream, _)) if is_trusted(&stream) => {
                    start(stream, (&router, None), places.take(None, 1), SOCKET);
                }
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

/// Serves one connection in a task of its own, until another one needs its place; or closes it if it has none.
fn start<S>(stream: S, (router, local): (&Router, Option<LocalAddress>), place: Option<Share>, terms: Terms)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(place) = place.map(Arc::new) else {
        tracing::debug!("admin has too many connections; closed one");
        return;
    };
    let served = serve_connection(stream, (router.clone(), local), Arc::clone(&place), terms);
    spawn_background(async move {
        tokio::select! {
            biased;
            () = place.lost() => tracing::debug!("admin has too many connections; closed an idle one"),
            () = Box::pin(served) => {}
        }
    });
}

async fn serve_connection<S>(
    stream: S,
    (router, local): (Router, Option<LocalAddress>),
    place: Arc<Share>,
    terms: Terms,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let life = Life::default();
    let shared = life.clone();
    let service = TowerToHyperService::new(tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(shared.clone());
        if let Some(local) = local {
            request.extensions_mut().insert(local);
        }
        let (serving, answer) =
            (place.serving(), tower::ServiceExt::oneshot(router.clone(), request.map(Body::new)));
        async move {
            let answer = answer.await;
            drop(serving);
            answer
        }
    }));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(terms.head)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        .keep_alive(terms.keep_alive)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    loop {
        match tokio::time::timeout(terms.lifetime, &mut connection).await {
            Ok(Ok(())) => break,
            Ok(Err(error)) => {
                tracing::debug!(%error, "admin connection");
                break;
            }
            Err(_elapsed) if life.is_renewed() => {}
            Err(_elapsed) => {
                tracing::debug!(lifetime = ?terms.lifetime, "admin closed a connection that was too slow");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{Extension, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
        time::Instant,
    };

    use super::*;

    /// A connection whose client has asked, and may read an answer of a megabyte through 64 bytes.
    async fn asked(places: &Arc<Quota>, terms: Terms) -> DuplexStream {
        let router = Router::new().route("/", get(|| async { "x".repeat(1024 * 1024) }));
        let (mut client, server) = tokio::io::duplex(64);
        start(server, (&router, None), places.take(None, 1), terms);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        client
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_read_loses_the_slot() {
        for terms in [READ_ONLY, SOCKET] {
            let places = Quota::new(2, 2);
            let began = Instant::now();
            let _deaf = [asked(&places, terms).await, asked(&places, terms).await];
            assert_eq!(places.held(), 2);
            while places.held() > 0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            assert!(began.elapsed() <= terms.lifetime + Duration::from_secs(1), "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_read_as_it_comes_may_last() {
        let lines = |Extension(life): Extension<Life>| async move {
            let ticks = futures_util::stream::unfold((life, 0), |(life, ticks)| async move {
                life.renew();
                tokio::time::sleep(SOCKET_LIFETIME / 2).await;
                (ticks < 8).then_some((Ok::<_, Infallible>("tick\n"), (life, ticks + 1)))
            });
            Body::from_stream(ticks)
        };
        let router = Router::new().route("/", get(lines));
        let places = Quota::new(1, 1);
        let (mut client, server) = tokio::io::duplex(64);
        start(server, (&router, None), places.take(None, 1), SOCKET);
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert_eq!(answer.matches("tick").count(), 8, "{answer}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_reads_gets_the_whole_answer() {
        let places = Quota::new(1, 1);
        let mut answer = Vec::new();
        asked(&places, READ_ONLY).await.read_to_end(&mut answer).await.unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200") && answer.len() > 1024 * 1024, "{}", answer.len());
    }
}
