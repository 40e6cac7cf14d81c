//! What is left of a time is told from hop to hop, and only shrinks.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use http::{Method, Request, Response, StatusCode, Version};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider::model::flag::ResponseFlag;

use super::{LATE, Pair, Work, assert_at, get, never, slow, timed};
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh,
    app::Seen,
    body::{self, Body},
    client::request,
    eventually,
    peer::{self, ALPN_H2},
    soon,
};

/// The time left to its caller, in milliseconds.
const TIMEOUT: &str = "x-outrider-timeout-ms";

fn left(seen: &Seen) -> Option<u64> {
    seen.header(TIMEOUT).map(|value| value.parse().unwrap())
}

/// An app that works for a while, and then calls `stock` through its own sidecar with what it has left. It answers with what
/// became of that.
async fn middle(works_for: Duration, sidecar: Arc<OnceLock<SocketAddr>>) -> HttpApp {
    HttpApp::start(move |request: Request<Incoming>| {
        let sidecar = Arc::clone(&sidecar);
        async move {
            let began = Instant::now();
            let told = request.headers()[TIMEOUT].to_str()?.parse()?;
            tokio::time::sleep(works_for).await;
            let left = Duration::from_millis(told).saturating_sub(began.elapsed()).as_millis().to_string();
            let mut client = Client::http1(*sidecar.get().unwrap()).await;
            let request = get(request.uri().path(), &[("host", "stock"), (TIMEOUT, &left)]);
            let response = client.send(request).await?;
            let status = response.status();
            let mut response = Response::new(body::full(body::text(response.into_body()).await));
            *response.status_mut() = status;
            Ok(response)
        }
    })
    .await
}

/// `web` → `orders` → `stock`.
struct Chain {
    _mesh: TestMesh,
    app: HttpApp,
    web: Sidecar,
    _orders: Sidecar,
    _stock: Sidecar,
}

impl Chain {
    async fn new(last: SocketAddr, works_for: Duration, keys: &str) -> Self {
        let mesh = TestMesh::new();
        let stock = mesh.callee("stock", last, "").await;
        let calls = Arc::new(OnceLock::new());
        let app = middle(works_for, Arc::clone(&calls)).await;
        let yaml = format!(
            "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]\n\
             outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            app.address(),
            TestMesh::cluster("stock", &[stock.address()], ""),
        );
        let orders = mesh.start("orders", &yaml).await;
        calls.set(orders.address_of("out")).unwrap();
        let web = mesh.caller(&[orders.address_of("in")], keys).await;
        Self { _mesh: mesh, app, web, _orders: orders, _stock: stock }
    }
}

#[tokio::test]
async fn the_time_left_shrinks_at_every_hop() {
    let works_for = Duration::from_millis(150);
    let last = HttpApp::named("stock").await;
    let chain = Chain::new(last.address(), works_for, "request_timeout: 30s").await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let began = Instant::now();
        let mut client = Client::connect(chain.web.address(), version).await;
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        let took = u64::try_from(began.elapsed().as_millis()).unwrap() + 2;
        let (orders, stock) = (chain.app.seen(), last.seen());
        let (orders, stock) = (left(orders.last().unwrap()).unwrap(), left(stock.last().unwrap()).unwrap());
        assert!((30_000 - took..=30_000).contains(&orders), "{orders} after at most {took} ms");
        assert!((30_000 - took..=orders - 149).contains(&stock), "{stock} of {orders}");
    }
}

#[tokio::test]
async fn a_deadline_ends_the_request_at_every_hop_and_the_work_of_the_last_app() {
    let work = Work::default();
    let last = never(&work).await;
    let chain = Chain::new(last.address(), Duration::ZERO, "request_timeout: 400ms").await;
    let mut client = Client::http2(chain.web.address()).await;
    let (status, reason, took) = timed(&mut client, get("/", &[])).await;
    assert_eq!((status, reason.as_deref()), (504, Some("request_timeout")));
    assert_at(took, 400);
    assert_eq!(chain.web.flagged(ResponseFlag::UT), 1);
    let told = left(&last.only()).unwrap();
    assert!((1..=400).contains(&told), "{told}");
    // The app speaks HTTP/1 and does not read while it works, so it is the sidecar that has let go of it.
    let in_flight = || {
        let cluster = chain._stock.cluster("inbound/in");
        cluster.runtime.in_flight.load(std::sync::atomic::Ordering::Relaxed)
    };
    eventually("nothing is in flight any more", || in_flight() == 0).await;
}

#[tokio::test]
async fn an_app_cannot_lengthen_its_peers_time_but_may_shorten_it() {
    let app = slow().await;
    let pair = Pair::new(app.address(), ("", "request_timeout: 300ms")).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = pair.client(version).await;
        let (_, reason, took) = timed(&mut client, get("/20000", &[(TIMEOUT, "60000")])).await;
        assert_eq!(reason.as_deref(), Some("request_timeout"));
        assert_at(took, 300);
        assert!(left(app.seen().last().unwrap()).unwrap() <= 300);
        let (status, reason, took) = timed(&mut client, get("/20000", &[(TIMEOUT, "150")])).await;
        assert_eq!((status, reason.as_deref()), (504, Some("deadline_exceeded")));
        assert_at(took, 150);
        assert!(left(app.seen().last().unwrap()).unwrap() <= 150);
    }
    assert_eq!((pair.web.flagged(ResponseFlag::UT), pair.web.flagged(ResponseFlag::DE)), (2, 2));
}

#[tokio::test]
async fn a_time_that_is_none_is_no_time_and_one_that_is_over_sends_nothing() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), ("", "")).await;
    let mut client = pair.client(Version::HTTP_11).await;
    for odd in ["-1", "1.5", "soon", "99999999999", ""] {
        assert_eq!(timed(&mut client, get("/", &[(TIMEOUT, odd)])).await.0, 200, "{odd:?}");
        assert_eq!(left(app.seen().last().unwrap()), None, "{odd:?}");
    }
    let before = app.count();
    let (status, reason, _) = timed(&mut client, get("/", &[(TIMEOUT, "0")])).await;
    assert_eq!((status, reason.as_deref(), app.count()), (504, Some("deadline_exceeded"), before));
}

#[tokio::test]
async fn nobody_is_told_a_time_that_there_is_not() {
    let app = HttpApp::named("orders").await;
    let pair = Pair::new(app.address(), ("", "")).await;
    assert_eq!(pair.client(Version::HTTP_11).await.get("/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(left(&app.only()), None);
}

#[tokio::test]
async fn nothing_of_it_leaves_the_mesh() {
    let app = HttpApp::named("legacy").await;
    let mesh = TestMesh::new();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{{name: orders, tls: none, \
         request_timeout: 20s, endpoints: [{{address: '{}'}}]}}]",
        app.address(),
    );
    let web = mesh.start("web", &yaml).await;
    let mut client = Client::http1(web.address()).await;
    assert_eq!(client.send(get("/", &[(TIMEOUT, "9000")])).await.unwrap().status(), StatusCode::OK);
    assert_eq!(left(&app.only()), None);
}

/// A caller with a proper certificate, whose HTTP/2 the test writes.
async fn peer(mesh: &TestMesh, orders: &Sidecar, alpn: &[u8]) -> http2::SendRequest<Body> {
    let config = peer::client_config(&mesh.ca, Some(&mesh.ca.leaf("web")), &[alpn]);
    let stream = peer::connect(orders.address(), config).await.unwrap();
    let (sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(driver);
    sender
}

fn told(millis: &str) -> Request<Body> {
    let mut request = request(Method::GET, "https://orders/400", body::empty());
    request.headers_mut().insert(TIMEOUT, millis.parse().unwrap());
    request
}

#[tokio::test]
async fn a_sidecar_that_does_not_end_its_request_itself_is_answered_in_time() {
    let app = slow().await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let mut sender = peer(&mesh, &orders, ALPN_H2).await;
    let began = Instant::now();
    let response = soon("the answer", sender.send_request(told("100"))).await.unwrap();
    assert!((Duration::from_millis(100)..LATE).contains(&began.elapsed()));
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(response.headers()["x-outrider-reason"], "deadline_exceeded");
    assert!(!response.headers().contains_key("x-outrider-processed"), "nobody repeats it");
    assert!(left(&app.only()).unwrap() <= 100);
}

#[tokio::test]
async fn what_a_standard_peer_says_of_its_time_is_ignored() {
    let app = slow().await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "peer: standard").await;
    let mut sender = peer(&mesh, &orders, b"h2").await;
    let response = soon("the answer", sender.send_request(told("50"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "it took 400 ms");
    assert_eq!(left(&app.only()), None);
}

#[tokio::test]
async fn every_attempt_is_told_less_and_none_begins_after_the_deadline() {
    // It ends each connection without an answer.
    let app = HttpApp::start(async |_request| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err("no".into())
    })
    .await;
    let keys =
        "retry: {max_retries: 10, backoff_base: 150ms, budget_percent: 100, budget_min_per_second: 1000}";
    let pair = Pair::new(app.address(), ("", keys)).await;
    let mut client = pair.client(Version::HTTP_11).await;
    let (status, reason, took) = timed(&mut client, get("/", &[(TIMEOUT, "700")])).await;
    // What is left may be too little to wait for another attempt: then the last failure stands.
    let ended = (status, reason.as_deref());
    let expected = [(504, Some("deadline_exceeded")), (503, Some("reset_before_answer"))];
    assert!(expected.contains(&ended), "{ended:?} {:?}", app.seen());
    assert!(took < Duration::from_millis(700) + LATE);
    let told: Vec<u64> = app.seen().iter().map(|seen| left(seen).unwrap()).collect();
    assert!(told.len() >= 2, "{told:?}");
    assert!(told.windows(2).all(|two| two[1] + 19 <= two[0]), "each worked for 20 ms: {told:?}");
    assert!(told.iter().all(|left| (1..=700).contains(left)), "{told:?}");
    // Its retries are over with it.
    let count = app.count();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(app.count(), count);
}
