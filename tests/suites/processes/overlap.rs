//! A sidecar is replaced by a new process beside the old one, and nobody notices.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::StatusCode;
use outrider::{
    accept::{self, Admission},
    admin,
    drain::{Drain, Phase},
    model::load::Load,
    net::{HandoverNet, Marks, Net, Tracked},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    drain::readiness,
    load::Plan,
    mesh::{Mesh, Network, Sidecar},
    run, until,
};

/// Replacements in a row.
const ROUNDS: u32 = 3;

/// Replaces the chosen sidecar several times under load of clients that keep their connections and of clients that
/// make one for each request.
async fn replace_under_load(mut mesh: Mesh, choose: impl Fn(&mut Mesh) -> &mut Sidecar) {
    let keeping = mesh.load(Plan::default());
    let fresh = mesh.load(Plan { keeps: false, ..Plan::default() });
    for round in 1..=ROUNDS {
        keeping.go_on(60).await;
        let status = choose(&mut mesh).replace(&format!("-{round}")).await;
        assert!(status.success(), "round {round}: {status}");
    }
    keeping.go_on(60).await;
    let plan = &choose(&mut mesh).plan;
    let first_log = std::fs::read_to_string(plan.folder.join(format!("{}.log", plan.name))).expect("a log");
    assert!(first_log.contains("a successor has taken our listening sockets over"), "{first_log}");
    let (keeping, fresh) = (keeping.finish().await, fresh.finish().await);
    keeping.assert_none_failed();
    fresh.assert_none_failed();
    assert_eq!(
        keeping.repeated, 0,
        "no kept connection is closed under a client that heeds `Connection: close`"
    );
}

#[test]
fn the_callers_sidecar_is_replaced_under_load_without_a_failed_request() {
    run(async {
        replace_under_load(Mesh::start(2).await, |mesh| &mut mesh.caller).await;
    });
}

#[test]
fn the_only_callees_sidecar_is_replaced_under_load_without_a_failed_request() {
    run(async {
        replace_under_load(Mesh::start(1).await, |mesh| &mut mesh.replicas[0].sidecar).await;
    });
}

#[test]
fn probes_do_not_hear_of_a_successor_before_it_is_ready() {
    run(async {
        let mut mesh = Mesh::start(1).await;
        let plan = mesh.caller.plan.clone();
        let (certificate, away) = (plan.folder.join("svid.pem"), plan.folder.join("away.pem"));
        std::fs::rename(&certificate, &away).expect("moved");
        let new = plan.start("-new");
        until("the successor is up", async || {
            new.ask("/status").await["process_id"] == serde_json::json!(new.process.pid())
        })
        .await;
        for _ in 0..50 {
            assert_eq!(readiness(plan.host).await, StatusCode::OK);
        }
        assert!(!new.is_ready().await, "without a certificate");
        std::fs::rename(&away, &certificate).expect("moved back");
        let new = new.ready().await;
        let mut old = std::mem::replace(&mut mesh.caller, new);
        assert!(old.stop().await.success());
        until("the successor answers", async || TcpStream::connect(plan.host.health()).is_ok()).await;
        assert_eq!(readiness(plan.host).await, StatusCode::OK);
    });
}

/// Replacements in the test of the hand-over alone: sockets that only shared their port lost a connection in every
/// tenth.
const HANDOVERS: usize = 60;

/// An accept loop with workers of its own, as a sidecar has them, that sends a byte back.
struct Echo {
    drain: Drain,
    net: HandoverNet,
    workers: Vec<JoinHandle<()>>,
    offering: tokio::task::JoinHandle<()>,
}

impl Echo {
    fn start(address: SocketAddr, handover: &Path, workers: usize) -> Self {
        let drain = Drain::new();
        let net = HandoverNet::new(
            handover.to_owned(),
            NonZeroUsize::new(workers).expect("workers"),
            Marks::default(),
        );
        let (told, bound) = std::sync::mpsc::sync_channel(workers);
        let one = |_| {
            let (drain, net, told) = (drain.clone(), net.clone(), told.clone());
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(async move {
                    let listener = net.bind(address).expect("bound");
                    told.send(()).expect("awaited");
                    let admission = Admission {
                        max_connections: Arc::new(AtomicUsize::new(100_000)),
                        counts: Arc::default(),
                        load: Arc::new(Load::new(100_000, None)),
                        sheds_on_memory: true,
                    };
                    accept::run(&listener, admission, drain.clone(), echo).await;
                    drop(listener);
                    drain.finished().await;
                });
            })
        };
        let threads = (0..workers).map(one).collect();
        (0..workers).for_each(|_| bound.recv().expect("a worker binds"));
        net.finish();
        let socket = admin::bind_socket(handover).expect("a socket");
        let serving = admin::serve_handover(socket, net.offers().clone(), std::future::pending());
        Self { drain, workers: threads, offering: tokio::spawn(serving), net }
    }

    /// Drains as a sidecar does.
    async fn stop(self) {
        self.drain.advance(Phase::Draining);
        let workers = self.workers;
        let joined = tokio::task::spawn_blocking(move || workers.into_iter().try_for_each(JoinHandle::join));
        joined.await.expect("no panic").expect("no panic");
        self.offering.abort();
        drop(self.net);
    }
}

async fn echo(mut stream: Tracked, _peer: SocketAddr) {
    let mut byte = [0];
    if stream.read_exact(&mut byte).await.is_ok() {
        drop(stream.write_all(&byte).await);
    }
}

/// Clients that make a connection for each byte, as fast as they can.
struct Hail {
    is_over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    lost: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Hail {
    fn start(address: SocketAddr, clients: usize) -> Self {
        let (is_over, done, lost) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<String>>>::default());
        let one = |_| {
            let (is_over, done, lost) = (Arc::clone(&is_over), Arc::clone(&done), Arc::clone(&lost));
            thread::spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    match connect_once(address) {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => {
                            lost.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
                        }
                    }
                }
            })
        };
        let threads = (0..clients).map(one).collect();
        Self { is_over, done, lost, threads }
    }

    fn finish(self) -> (u64, Vec<String>) {
        self.is_over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no panic"));
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.done.load(Ordering::Relaxed), lost)
    }
}

fn connect_once(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // Closed by a reset: so many connections in TIME-WAIT would use the ports up.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.write_all(b"x")?;
    stream.read_exact(&mut [0])
}

#[test]
fn a_hail_of_new_connections_survives_many_hand_overs_also_between_different_numbers_of_workers() {
    run(async {
        let folder = tempfile::tempdir().expect("a folder");
        let handover: PathBuf = folder.path().join("admin.sock.fd");
        let address = Network::new().host(1).inbound();
        let mut current = Echo::start(address, &handover, 1);
        let hail = Hail::start(address, 4);
        for round in 0..HANDOVERS {
            let next = Echo::start(address, &handover, [2, 3, 1][round % 3]);
            std::mem::replace(&mut current, next).stop().await;
        }
        let (done, lost) = hail.finish();
        current.stop().await;
        assert!(done > HANDOVERS as u64, "only {done} connections");
        assert!(lost.is_empty(), "{} of {done} connections were lost: {lost:?}", lost.len());
    });
}
