//! The pool on real sockets, in one thread whose runtime is told of nothing until the test waits.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use http::Request;
use http_body_util::BodyExt as _;

use super::{
    Error,
    connector::Connector,
    dial::{Dialer, Speak},
    http_client::Http1,
    place::Target,
    pool::{Lease, Pool},
    reclaim::{Hub, Mailbox},
};
use crate::{
    clock::Clock,
    model::{
        Cluster, ClusterSettings, Endpoint, EndpointSettings, cluster::Caps, fixture, pool_counts::Closed,
        runtime::EndpointRuntime, status::IdentityStatus, transport::Transport,
    },
    net::TcpNet,
    relay::replay::RequestBody,
    resilience::circuit_breaker::Overflow,
    tls::trust::Registry,
};

/// A worker's pool.
struct Worker {
    pool: Pool<TcpNet>,
    connector: Arc<Connector<TcpNet>>,
    mailbox: Option<Mailbox>,
}

impl Worker {
    fn of(hub: &Hub) -> Self {
        let clock = Clock::system();
        let trust = Registry::new(clock.clone(), Arc::new(IdentityStatus::default()));
        let (connector, mailbox) = Connector::new(Dialer { net: TcpNet, trust }, hub, &clock);
        Self { pool: Pool::new(Arc::clone(&connector)), connector, mailbox: Some(mailbox) }
    }

    async fn http1(&self, cluster: &Arc<Cluster>, endpoint: usize) -> Result<Http1, Error> {
        let target = Target { cluster, endpoint: &cluster.endpoints[endpoint], identity: None };
        match self.pool.lease(target, Speak::Http1, now()).await? {
            Lease::Http1 { connection, .. } => Ok(connection),
            Lease::Http2 { .. } => panic!("HTTP/2"),
        }
    }
}

/// An app that the test plays by hand, without a runtime.
struct App(TcpListener);

impl App {
    fn start() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    /// The next connection of the pool.
    fn accept(&self) -> TcpStream {
        self.0.accept().unwrap().0
    }
}

fn now() -> Instant {
    Clock::system().now()
}

fn cluster(apps: &[&App], caps: Caps) -> Arc<Cluster> {
    let settings = ClusterSettings { transport: Transport::App, caps, ..fixture::settings("orders") };
    let mut cluster = fixture::cluster(settings, 0, now());
    cluster.endpoints = apps
        .iter()
        .map(|app| {
            Arc::new(Endpoint {
                settings: EndpointSettings::new(app.address(), Arc::from([])),
                runtime: Arc::new(EndpointRuntime::new(now())),
                client: None,
            })
        })
        .collect();
    Arc::new(cluster)
}

const CAPS: Caps = Caps { max_requests: 1024, max_per_peer: 1024, max_connections: 1024, max_pending: 1024 };

fn request() -> Request<RequestBody> {
    Request::builder().uri("/").header("host", "orders").body(RequestBody::empty()).unwrap()
}

/// One exchange, which the app answers with these bytes.
async fn exchange(connection: &mut Http1, app: &mut TcpStream, answer: &str) {
    let answering = async {
        // The request has been written once the driver has had its turn.
        let mut head = [0; 1024];
        app.set_nonblocking(true).unwrap();
        until(|| app.read(&mut head).is_ok()).await;
        app.write_all(answer.as_bytes()).unwrap();
    };
    let (answered, ()) = tokio::join!(connection.send(Box::new(request())), answering);
    answered.unwrap().into_body().collect().await.unwrap();
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A connection with one exchange behind it, given back, and its other end.
async fn kept(worker: &Worker, cluster: &Arc<Cluster>, app: &App, answer: &str) -> TcpStream {
    let mut connection = worker.http1(cluster, 0).await.unwrap();
    let mut far = app.accept();
    exchange(&mut connection, &mut far, answer).await;
    worker.pool.give_back(connection, now());
    far
}

fn reused(cluster: &Cluster) -> u64 {
    cluster.runtime.pool.reused.load(Ordering::Relaxed)
}

fn closed(cluster: &Cluster, why: Closed) -> u64 {
    cluster.runtime.pool.closed_for(why)
}

/// Lets every task have its turn until it is so.
async fn until(mut is_so: impl FnMut() -> bool) {
    let deadline = now() + Duration::from_secs(10);
    while !is_so() {
        assert!(now() < deadline, "it does not become so");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_good_connection_is_lent_again() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let mut far = kept(&worker, &cluster, &app, OK).await;
    let mut again = worker.http1(&cluster, 0).await.unwrap();
    exchange(&mut again, &mut far, OK).await;
    assert_eq!((reused(&cluster), cluster.runtime.pool.opened.load(Ordering::Relaxed)), (1, 1));
}

#[tokio::test]
async fn a_close_that_the_runtime_was_not_told_of_is_seen_before_reuse() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let far = kept(&worker, &cluster, &app, OK).await;
    // Nothing is awaited between this and the next use: neither runtime nor driver knows.
    drop(far);
    worker.http1(&cluster, 0).await.unwrap();
    assert_eq!(reused(&cluster), 0);
    until(|| closed(&cluster, Closed::Peer) == 1).await;
}

#[tokio::test]
async fn bytes_that_the_runtime_was_not_told_of_are_seen_before_reuse() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let mut far = kept(&worker, &cluster, &app, OK).await;
    far.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").unwrap();
    let _other = worker.http1(&cluster, 0).await.unwrap();
    assert_eq!(reused(&cluster), 0);
    until(|| closed(&cluster, Closed::UnexpectedBytes) == 1).await;
}

#[tokio::test]
async fn bytes_that_came_with_the_answer_end_the_connection_too() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let _far = kept(&worker, &cluster, &app, &format!("{OK}{OK}")).await;
    let _other = worker.http1(&cluster, 0).await.unwrap();
    assert_eq!(reused(&cluster), 0);
    until(|| closed(&cluster, Closed::UnexpectedBytes) == 1).await;
}

#[tokio::test]
async fn what_the_peer_says_of_its_patience_is_kept_to() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let said = |field: &str| OK.replace("\r\n\r\n", &format!("\r\nKeep-Alive: {field}\r\n\r\n"));
    for field in ["timeout=0", "max=0", "timeout=0, max=100"] {
        let _far = kept(&worker, &cluster, &app, &said(field)).await;
        let _other = worker.http1(&cluster, 0).await.unwrap();
        assert_eq!(reused(&cluster), 0, "{field}");
        app.accept();
    }
    let mut far = kept(&worker, &cluster, &app, &said("timeout=5, max=1")).await;
    let mut last = worker.http1(&cluster, 0).await.unwrap();
    exchange(&mut last, &mut far, &said("timeout=5, max=1")).await;
    worker.pool.give_back(last, now());
    let _other = worker.http1(&cluster, 0).await.unwrap();
    assert_eq!(reused(&cluster), 1, "the peer takes two in all");
}

#[tokio::test]
async fn an_http10_peer_must_say_that_it_keeps_the_connection() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    let _far = kept(&worker, &cluster, &app, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    let _other = worker.http1(&cluster, 0).await.unwrap();
    assert_eq!(reused(&cluster), 0);
    app.accept();
    let keeps = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok";
    let mut far = kept(&worker, &cluster, &app, keeps).await;
    let mut again = worker.http1(&cluster, 0).await.unwrap();
    exchange(&mut again, &mut far, keeps).await;
    assert_eq!(reused(&cluster), 1);
}

#[tokio::test]
async fn under_a_full_cap_an_unused_connection_to_another_endpoint_makes_room() {
    let (worker, one, two) = (Worker::of(&Hub::default()), App::start(), App::start());
    let cluster = cluster(&[&one, &two], Caps { max_connections: 1, ..CAPS });
    let _far = kept(&worker, &cluster, &one, OK).await;
    let in_use = worker.http1(&cluster, 1).await.unwrap();
    until(|| closed(&cluster, Closed::Reclaimed) == 1).await;
    // What is in use makes no room.
    let refused = worker.http1(&cluster, 0).await.unwrap_err();
    assert!(matches!(refused, Error::Overflow(Overflow::Connections)), "{refused}");
    assert_eq!(cluster.runtime.connections.load(Ordering::Relaxed), 1);
    drop(in_use);
    until(|| cluster.runtime.connections.load(Ordering::Relaxed) == 0).await;
}

#[tokio::test]
async fn under_a_full_cap_an_unused_connection_of_another_worker_makes_room() {
    let (hub, app) = (Hub::default(), App::start());
    let cluster = cluster(&[&app], Caps { max_connections: 2, ..CAPS });
    let asking = Worker::of(&hub);
    // The other worker is on a thread of its own, as they are; it has one connection unused and one in use.
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let (address, shared) = (app, Arc::clone(&cluster));
    let other = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let mut worker = Worker::of(&hub);
            let far = kept(&worker, &shared, &address, OK).await;
            let in_use = worker.pool.fresh(
                Target { cluster: &shared, endpoint: &shared.endpoints[0], identity: None },
                Speak::Http1,
                now(),
            );
            let in_use = in_use.await.unwrap();
            ready.send(()).unwrap();
            let mailbox = worker.mailbox.take().unwrap();
            let answering = mailbox.answer(|cluster| worker.connector.reclaim(cluster));
            // Ends when this worker is given up, at the end of the test.
            let _over = tokio::time::timeout(Duration::from_secs(2), answering).await;
            drop((far, in_use, address));
        });
    });
    is_ready.await.unwrap();
    let first = asking.http1(&cluster, 0).await.unwrap();
    // It is counted on the other thread, once it is closed there; its slot came first.
    until(|| closed(&cluster, Closed::Reclaimed) == 1).await;
    // Nothing is unused any more: that is known at once, not only after a timeout.
    let asked = now();
    let refused = asking.http1(&cluster, 0).await.unwrap_err();
    assert!(matches!(refused, Error::Overflow(Overflow::Connections)), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(1));
    drop(first);
    other.join().unwrap();
}

#[tokio::test]
async fn only_so_many_wait_for_a_connection() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], Caps { max_pending: 0, ..CAPS });
    for speak in [Speak::Http1, Speak::Http2] {
        let target = Target { cluster: &cluster, endpoint: &cluster.endpoints[0], identity: None };
        let refused = worker.pool.lease(target, speak, now()).await.unwrap_err();
        assert!(matches!(refused, Error::Overflow(Overflow::Pending)), "{refused}");
    }
    assert_eq!(cluster.runtime.pending.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_failed_dial_is_told_to_all_who_wait_for_it() {
    let (worker, app) = (Worker::of(&Hub::default()), App::start());
    let cluster = cluster(&[&app], CAPS);
    // It accepts and never speaks: not HTTP/2 within the connect timeout, which is shortened here.
    let mut settings = ClusterSettings::clone(&cluster.settings);
    settings.timeouts.connect = Duration::from_millis(200);
    let (limits, runtime) = (Arc::clone(&cluster.limits), Arc::clone(&cluster.runtime));
    let cluster = Arc::new(Cluster::new(Arc::new(settings), limits, cluster.endpoints.clone(), runtime));
    let target = Target { cluster: &cluster, endpoint: &cluster.endpoints[0], identity: None };
    let leases = (0..50).map(|_| worker.pool.lease(target, Speak::Http2, now()));
    for outcome in futures_util::future::join_all(leases).await {
        assert!(matches!(outcome.unwrap_err(), Error::Timeout));
    }
    assert_eq!(cluster.runtime.pool.opened.load(Ordering::Relaxed), 1, "they wait together");
}
