//! The accept stage: sockets come in, each becomes a task, and the loop survives whatever happens to one.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    drain::{Drain, Phase},
    model::runtime::ListenerRuntime,
    net,
};

/// Pause after an accept that failed for want of resources (EMFILE, ENFILE, ENOBUFS, ENOMEM): connections that end
/// meanwhile free some, and the loop does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// Counts an open connection until it is dropped.
struct Active(Arc<ListenerRuntime>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the drain begins; then takes what the kernel has already accepted for us. Cancel-safe: a dropped call
/// loses no connection.
///
/// `serve` makes the task of one connection. More than `max_connections` at a time, asked anew for each, are closed at once: a queue would
/// only hide the overload.
pub async fn run<L, F>(
    listener: &L,
    max_connections: impl Fn() -> usize,
    counts: Arc<ListenerRuntime>,
    drain: Drain,
    serve: impl Fn(L::Stream, SocketAddr) -> F,
) where
    L: net::Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let _source = drain.source();
    let take = |stream: L::Stream, peer: SocketAddr| {
        counts.accepted.fetch_add(1, Ordering::Relaxed);
        if counts.active.fetch_add(1, Ordering::Relaxed) >= max_connections() {
            counts.active.fetch_sub(1, Ordering::Relaxed);
            counts.over_limit.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let active = Active(Arc::clone(&counts));
        let served = serve(stream, peer);
        drain.spawn(async move {
            served.await;
            drop(active);
        });
    };
    let mut watcher = drain.watcher();
    loop {
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Draining) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => take(stream, peer),
                Err(error) => survive(&error, &counts).await,
            }
        }
    }
    // Connections in the backlog would be reset by the close; serve them instead. Once it was empty or has been taken as
    // a whole, the socket is closed, however fast more come.
    for _ in 0..=net::BACKLOG {
        match listener.accept_now() {
            Ok(Some((stream, peer))) => take(stream, peer),
            Ok(None) => break,
            Err(_) if watcher.phase() == Phase::Forced => break,
            Err(error) => survive(&error, &counts).await,
        }
    }
}

/// One failed accept: the connection is gone (ECONNABORTED and the like), or the process is short of something.
async fn survive(error: &io::Error, counts: &ListenerRuntime) {
    counts.accept_errors.fetch_add(1, Ordering::Relaxed);
    let is_the_connections = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !is_the_connections {
        tracing::warn!(%error, "cannot accept; trying again");
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::net::{Listener, Net, TcpNet};

    /// More than a task of tokio's may do before it must yield (128).
    const WAITING: usize = 200;

    async fn greet(mut stream: tokio::net::TcpStream, _peer: SocketAddr) {
        stream.write_all(b"x").await.unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_when_the_drain_begins_is_served() {
        let listener = TcpNet.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = Listener::local_addr(&listener).unwrap();
        let clients: Vec<_> = (0..WAITING).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let (drain, counts) = (Drain::new(), Arc::<ListenerRuntime>::default());
        drain.advance(Phase::Draining);
        run(&listener, || WAITING, Arc::clone(&counts), drain.clone(), greet).await;
        drop(listener);
        drain.finished().await;
        assert_eq!(counts.accepted.load(Ordering::Relaxed), WAITING as u64);
        for mut client in clients {
            client.read_exact(&mut [0]).unwrap();
        }
        std::net::TcpStream::connect(address).unwrap_err();
    }

    #[tokio::test]
    async fn a_drain_is_not_finished_while_a_loop_may_bring_more() {
        let drain = Drain::new();
        let source = drain.source();
        assert_eq!(drain.in_flight(), 0);
        assert!(drain.finished().now_or_never().is_none());
        drop(source);
        drain.finished().now_or_never().unwrap();
    }
}
