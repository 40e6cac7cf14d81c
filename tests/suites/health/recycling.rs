//! Connections of peers end for their age, and nothing is lost by it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{StatusCode, Version};
use tokio::task::JoinSet;

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::field,
    eventually,
    peer::{self, client_config},
    soon,
};

const STANDARD_H2: &[u8] = b"h2";
const STANDARD_H1: &[u8] = b"http/1.1";

async fn callee(mesh: &TestMesh, app: &HttpApp, keys: &str, limits: &str) -> Sidecar {
    let yaml = format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', {keys}}}]\nlimits: {{{limits}}}",
        app.address()
    );
    mesh.start("orders", &yaml).await
}

fn recycled(sidecar: &Sidecar) -> u64 {
    sidecar.listener("in").recycled.load(Ordering::Relaxed)
}

/// A client that balances by connection: each new one goes to the next of the addresses that it knows.
struct ByConnection<'a> {
    mesh: &'a TestMesh,
    version: Version,
    known: Arc<Mutex<Vec<std::net::SocketAddr>>>,
    turn: Arc<AtomicUsize>,
}

impl ByConnection<'_> {
    async fn connect(&self) -> Client {
        let address = {
            let known = self.known.lock().unwrap();
            known[self.turn.fetch_add(1, Ordering::Relaxed) % known.len()]
        };
        let alpn = if self.version == Version::HTTP_2 { STANDARD_H2 } else { STANDARD_H1 };
        let leaf = self.mesh.ca.leaf("web");
        let stream =
            peer::connect(address, client_config(&self.mesh.ca, Some(&leaf), &[alpn])).await.unwrap();
        Client::over(stream, self.version).await
    }

    /// Asks until told to stop. A connection that takes no more, as its client can tell before it sends, is replaced.
    async fn ask(&self, stop: &AtomicBool, asked: &AtomicU64) {
        let mut client = self.connect().await;
        while !stop.load(Ordering::Relaxed) {
            if is_closed(&mut client).await {
                client = self.connect().await;
            }
            let response = client.post("/", "a body").await.expect("a request is lost");
            assert_eq!(response.status(), StatusCode::OK);
            let is_last = field(&response, "connection") == Some("close");
            body::drain(response.into_body()).await.expect("an answer is lost");
            asked.fetch_add(1, Ordering::Relaxed);
            if is_last {
                client = self.connect().await;
            }
        }
    }
}

async fn is_closed(client: &mut Client) -> bool {
    match client {
        Client::Http1(sender) => sender.ready().await.is_err(),
        Client::Http2(sender) => sender.ready().await.is_err(),
    }
}

#[tokio::test]
async fn callers_that_balance_by_connection_find_a_new_endpoint_and_lose_nothing() {
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let mesh = TestMesh::new();
        let (old, new) = (HttpApp::named("old").await, HttpApp::named("new").await);
        let first = callee(&mesh, &old, "peer: standard", "max_connection_age: 1s").await;
        let second = callee(&mesh, &new, "peer: standard", "max_connection_age: 1s").await;
        let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
        let known = Arc::new(Mutex::new(vec![first.address()]));
        let client = ByConnection { mesh: &mesh, version, known: Arc::clone(&known), turn: Arc::default() };
        let driver = async {
            eventually("the load runs", || asked.load(Ordering::Relaxed) > 100).await;
            assert_eq!(new.count(), 0);
            known.lock().unwrap().push(second.address());
            eventually("the new one has a part of the load", || new.count() > 100).await;
            eventually("connections have come and gone", || recycled(&first) + recycled(&second) >= 8).await;
            stop.store(true, Ordering::Relaxed);
        };
        let callers = futures_util::future::join_all((0..4).map(|_| client.ask(&stop, &asked)));
        soon("the load ends", async { tokio::join!(driver, callers) }).await;
    }
}

#[tokio::test]
async fn ages_differ_by_a_tenth_either_way() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = callee(&mesh, &app, "peer: standard", "max_connection_age: 2s").await;
    let known = Arc::new(Mutex::new(vec![orders.address()]));
    let client = ByConnection { mesh: &mesh, version: Version::HTTP_2, known, turn: Arc::default() };
    let mut ends = JoinSet::new();
    let began = Instant::now();
    for _ in 0..20 {
        let mut client = client.connect().await;
        drop(client.get("/").await.unwrap());
        ends.spawn(async move {
            while !is_closed(&mut client).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Instant::now()
        });
    }
    let connecting = began.elapsed();
    let ends = soon("all end", ends.join_all()).await;
    let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
    assert!(first - began >= Duration::from_millis(1800), "{:?}", first - began);
    assert!(last - first > Duration::from_millis(40), "all at once: {:?} after {connecting:?}", last - first);
    assert_eq!(recycled(&orders), 20);
}

#[tokio::test]
async fn what_is_under_way_outlasts_its_connections_age() {
    let mesh = TestMesh::new();
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let app = HttpApp::gated(&gate).await;
    let orders = callee(&mesh, &app, "", "max_connection_age: 1s").await;
    let web = mesh.caller(&[orders.address()], "retry: {max_retries: 0}").await;
    let address = web.address();
    let slow = tokio::spawn(async move { crate::harness::client::call(address, http::Method::POST).await });
    eventually("its connection has grown old", || recycled(&orders) == 1).await;
    gate.add_permits(2);
    assert_eq!(slow.await.unwrap(), (StatusCode::OK, "at last".to_owned()));
    assert_eq!(crate::harness::client::call(address, http::Method::POST).await.0, StatusCode::OK);
    assert_eq!(
        orders.listener("in").accepted.load(Ordering::Relaxed),
        2,
        "the next has a connection of its own"
    );
}

#[tokio::test]
async fn the_own_apps_connections_are_left_alone() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = callee(&mesh, &app, "", "max_connection_age: none").await;
    let yaml = format!(
        "outbound: [{{name: in, listen: '127.0.0.1:0'}}]\nclusters: [{}]\nlimits: {{max_connection_age: 1s}}",
        TestMesh::cluster("orders", &[orders.address()], "")
    );
    let web = mesh.start("web", &yaml).await;
    let (mut http1, mut http2) = (Client::http1(web.address()).await, Client::http2(web.address()).await);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1600) {
        for client in [&mut http1, &mut http2] {
            let response = client.get("/").await.unwrap();
            assert_eq!(field(&response, "connection"), None);
            body::drain(response.into_body()).await.unwrap();
        }
    }
    assert_eq!((recycled(&web), recycled(&orders)), (0, 0));
}
