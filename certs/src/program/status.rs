//! `/live`, `/ready` and `/metrics`, in plaintext: open to everybody, and always open to the kubelet.
//!
//! It restarts a program whose `/live` does not answer. So nobody can keep it out: one address has few connections, and
//! where all are taken, one that says nothing is closed for the newcomer ([`Quota`]).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use super::quota::{Quota, Share};
use super::tasks::Tasks;

/// Connections at a time.
pub const CONNECTIONS: usize = 64;
/// Connections at a time of one address: a kubelet asks for `/live` and `/ready` of each container, Prometheus once.
pub const CONNECTIONS_OF_ADDRESS: usize = 8;
/// Time for a request's head; whoever asks for health sends it at once.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(2);
/// Life of a connection, its one answer read or not.
pub const LIFETIME: Duration = Duration::from_secs(15);
/// Pause after an error of accept(): too few file descriptors do not come back by asking at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Bytes buffered per connection; no head that is meant for us is larger.
const MAX_BUFFER_BYTES: usize = 16 * 1024;

/// Places on a listener of this kind.
#[must_use]
pub fn places() -> Arc<Quota> {
    Quota::new(CONNECTIONS, CONNECTIONS_OF_ADDRESS)
}

/// Serves `router` until `tasks` are to stop. Connections that are open then end with their request.
pub async fn serve(listener: TcpListener, router: Router, tasks: Tasks) {
    let places = places();
    loop {
        let accepted = tokio::select! {
            biased;
            () = tasks.stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => start(stream, from.ip(), &router, (&places, &tasks)),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn start(stream: TcpStream, from: IpAddr, router: &Router, (places, tasks): (&Arc<Quota>, &Tasks)) {
    let Some(place) = places.take(Some(from), 1) else {
        return tracing::debug!(%from, "closed a connection for health or metrics as too many");
    };
    let (router, place) = (router.clone(), Arc::new(place));
    tasks.spawn(async move {
        tokio::select! {
            biased;
            () = place.lost() => tracing::debug!(%from, "closed a connection that said nothing, for another one"),
            () = tokio::time::sleep(LIFETIME) => tracing::debug!(%from, "closed a connection that was too slow"),
            () = Box::pin(connection(stream, router, Arc::clone(&place))) => {}
        }
    });
}

async fn connection(stream: TcpStream, router: Router, place: Arc<Share>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (serving, answer) = (place.serving(), router.clone().oneshot(request));
        async move {
            let answer = answer.await;
            drop(serving);
            answer
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_BUFFER_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection for health or metrics broke");
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpSocket;
    use tokio_util::sync::CancellationToken;

    use super::*;

    async fn connect(from: &str, to: SocketAddr) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        socket.connect(to).await.unwrap()
    }

    async fn ask(from: &str, to: SocketAddr) -> String {
        let mut stream = connect(from, to).await;
        stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn whoever_says_nothing_does_not_keep_the_kubelet_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/live", get(async || "live\n"));
        let tasks = Tasks::new(CancellationToken::new());
        let serving = serve(listener, router, tasks.clone());
        let asking = async {
            let mut silent = Vec::new();
            for _ in 0..3 * CONNECTIONS {
                silent.push(connect("127.0.0.2", address).await);
            }
            let begun = std::time::Instant::now();
            for from in ["127.0.0.3", "127.0.0.2"] {
                let answer = ask(from, address).await;
                assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("live\n"), "{from}: {answer}");
            }
            assert!(begun.elapsed() < HEAD_TIMEOUT, "nobody waited for the time of a head");
            let first = silent.first_mut().unwrap();
            assert_eq!(first.read(&mut [0]).await.unwrap_or(0), 0, "the oldest is closed");
            tasks.stop.cancel();
        };
        tokio::join!(serving, asking);
        tasks.finish(LIFETIME).await;
    }
}
