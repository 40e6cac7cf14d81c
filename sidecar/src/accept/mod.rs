//! The accept stage: sockets come in, each becomes a task, and the loop survives whatever happens to one.

mod admission;
mod handshakes;

use std::{future::Future, io, net::SocketAddr, sync::atomic::Ordering, time::Duration};

use rustix::io::Errno;

pub use admission::{Admission, Admitted, max_open};
pub use handshakes::{Handshakes, Place};

use crate::{
    drain::{Drain, Phase},
    model::runtime::ListenerRuntime,
    net,
};

/// Pause after an accept that failed for want of resources (EMFILE, ENFILE, ENOBUFS, ENOMEM): connections that end
/// meanwhile free some, and the loop does not spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// Accepts until the drain begins; then takes what the kernel has already accepted for us. Cancel-safe: a dropped call
/// loses no connection.
///
/// `serve` makes the task of one connection. What is not admitted is closed at once: a queue would only hide the
/// overload.
pub async fn run<L, F>(
    listener: &L,
    admission: Admission,
    drain: Drain,
    serve: impl Fn(L::Stream, SocketAddr) -> F,
) where
    L: net::Listener,
    F: Future<Output = ()> + Send + 'static,
{
    let _source = drain.source();
    let counts = &admission.counts;
    let mut failures = Failures::default();
    let take = |stream: L::Stream, peer: SocketAddr| {
        let Some(admitted) = admission.admit() else { return };
        // Boxed: every layer around a future that it moves doubles its room.
        let served = Box::pin(serve(stream, peer));
        drain.spawn(async move {
            served.await;
            drop(admitted);
        });
    };
    let mut watcher = drain.watcher();
    loop {
        tokio::select! {
            biased;
            () = watcher.reached(Phase::Draining) => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    failures.end();
                    take(stream, peer);
                }
                Err(error) => failures.survive(&error, counts).await,
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
            Err(error) => failures.survive(&error, counts).await,
        }
    }
}

/// Failed accepts in a row.
#[derive(Debug, Default)]
struct Failures(u64);

impl Failures {
    fn end(&mut self) {
        self.0 = 0;
    }

    /// One failed accept: the connection is gone, or the process is short of something.
    async fn survive(&mut self, error: &io::Error, counts: &ListenerRuntime) {
        counts.accept_errors.fetch_add(1, Ordering::Relaxed);
        if is_the_connections(error) {
            return;
        }
        self.0 += 1;
        // Fifty times a second for as long as it lasts: the 1st, 2nd, 4th, 8th … are enough to know.
        if self.0.is_power_of_two() {
            tracing::warn!(%error, in_a_row = self.0, "cannot accept; trying again");
        }
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }
}

/// Whether an accept failed for the one connection it would have brought, so that the next may succeed at once:
/// aborted, forbidden by a firewall, or one of the network's errors that Linux passes on here (accept(2)).
fn is_the_connections(error: &io::Error) -> bool {
    const THEIRS: [Errno; 12] = [
        Errno::CONNABORTED,
        Errno::CONNRESET,
        Errno::INTR,
        Errno::PERM,
        Errno::PROTO,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::OPNOTSUPP,
        Errno::NOPROTOOPT,
        Errno::NONET,
    ];
    Errno::from_io_error(error).is_some_and(|errno| THEIRS.contains(&errno))
}

#[cfg(test)]
mod tests {
    use std::{io::Read, sync::Arc, sync::atomic::AtomicUsize};

    use futures_util::FutureExt;
    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::{
        model::load::Load,
        net::{Listener, Net, TcpNet},
    };

    /// More than a task of tokio's may do before it must yield (128).
    const WAITING: usize = 200;

    fn admission(counts: &Arc<ListenerRuntime>) -> Admission {
        let load = Arc::new(Load::new(WAITING, None));
        let max_connections = Arc::new(AtomicUsize::new(WAITING));
        Admission { max_connections, counts: Arc::clone(counts), load, sheds_on_memory: true }
    }

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
        run(&listener, admission(&counts), drain.clone(), greet).await;
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

    /// Fails as told, then accepts as the real one.
    struct Flaky {
        errors: std::sync::Mutex<Vec<i32>>,
        inner: tokio::net::TcpListener,
    }

    impl Listener for Flaky {
        type Stream = tokio::net::TcpStream;

        async fn accept(&self) -> io::Result<(Self::Stream, SocketAddr)> {
            let error = self.errors.lock().unwrap().pop();
            match error {
                Some(errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Listener::accept(&self.inner).await,
            }
        }

        fn accept_now(&self) -> io::Result<Option<(Self::Stream, SocketAddr)>> {
            self.inner.accept_now()
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Listener::local_addr(&self.inner)
        }
    }

    #[tokio::test]
    async fn whatever_an_accept_says_the_next_is_made() {
        let theirs = [Errno::CONNABORTED, Errno::INTR, Errno::PERM, Errno::PROTO];
        let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::INVAL];
        let errors: Vec<i32> = theirs.iter().chain(&ours).map(|errno| errno.raw_os_error()).collect();
        let count = errors.len() as u64;
        let inner = TcpNet.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = Listener::local_addr(&inner).unwrap();
        let (drain, counts) = (Drain::new(), Arc::<ListenerRuntime>::default());
        let listener = Flaky { errors: errors.into(), inner };
        let admission = admission(&counts);
        let client = tokio::task::spawn_blocking(move || {
            std::net::TcpStream::connect(address).unwrap().read_exact(&mut [0])
        });
        let stop = async {
            client.await.unwrap().unwrap();
            drain.advance(Phase::Draining);
        };
        tokio::join!(run(&listener, admission, drain.clone(), greet), stop);
        assert_eq!(counts.accept_errors.load(Ordering::Relaxed), count);
        for errno in theirs {
            assert!(is_the_connections(&errno.into()), "{errno}");
        }
        for errno in ours {
            assert!(!is_the_connections(&errno.into()), "{errno}");
        }
    }
}
