//! What is under way when the rules change: what they allow no more is ended, and nothing else is touched.

mod rules;
mod streams;

use std::{
    cell::Cell,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use outrider::model::{closed::Revoked, flag::ResponseFlag};
use tokio::{net::TcpStream, sync::mpsc};
use tokio_rustls::client::TlsStream;

use crate::harness::{
    BoxError, Client, HttpApp, Sidecar, TestMesh, body,
    ca::id,
    client::{field, request},
    eventually,
    peer::{self, ALPN_H2},
    soon, within,
};

const ALPN_H1: &[u8] = b"outrider-h1/1";
/// The sweeper has looked in the meantime.
const TWO_LOOKS: Duration = Duration::from_millis(2200);

/// `orders` with its sidecar, whose rules change; callers are played by the test.
struct Bench {
    mesh: TestMesh,
    app: std::net::SocketAddr,
    orders: Sidecar,
}

/// A listener that lets these in.
fn allowing(app: std::net::SocketAddr, who: &[&str], keys: &str) -> String {
    let ids: Vec<_> = who.iter().map(|who| format!("'{}'", id(who))).collect();
    let ids = ids.join(", ");
    format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', allow: [{ids}], {keys}}}]")
}

impl Bench {
    async fn new(app: std::net::SocketAddr, yaml: &str) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.start("orders", yaml).await;
        Self { mesh, app, orders }
    }

    /// One that lets `web` and `shop` in.
    async fn both(app: std::net::SocketAddr, keys: &str) -> Self {
        Self::new(app, &allowing(app, &["web", "shop"], keys)).await
    }

    async fn reload(&mut self, yaml: &str) {
        self.mesh.reload(&mut self.orders, "orders", yaml).await.unwrap();
    }

    /// `web` is taken off the list.
    async fn without_web(&mut self, keys: &str) {
        self.reload(&allowing(self.app, &["shop"], keys)).await;
    }

    async fn connect(&self, service: &str, alpn: &[u8]) -> TlsStream<TcpStream> {
        let config = peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf(service)), &[alpn]);
        peer::connect(self.orders.address(), config).await.unwrap()
    }

    async fn client(&self, service: &str, version: Version) -> Client {
        let alpn = if version == Version::HTTP_2 { ALPN_H2 } else { ALPN_H1 };
        Client::over(self.connect(service, alpn).await, version).await
    }

    /// What has been ended, by kind.
    fn ended(&self) -> [u64; 3] {
        let counts = self.orders.listener("in");
        Revoked::ALL.map(|kind| counts.revoked[kind as usize].load(Ordering::Relaxed))
    }

    fn flagged(&self) -> u64 {
        let counts = &self.orders.cluster("inbound/in").runtime.counts;
        counts.by_flag[ResponseFlag::RBAC as usize].load(Ordering::Relaxed)
    }
}

/// An answer that lasts: the app echoes.
struct Long {
    sender: mpsc::Sender<Result<Frame<Bytes>, BoxError>>,
    body: Incoming,
    /// Its connection, where nobody else holds it.
    _client: Option<Client>,
}

impl Long {
    async fn begin(mut client: Client, path: &str) -> Self {
        let long = Self::on(&mut client, path).await;
        Self { _client: Some(client), ..long }
    }

    /// On a connection that is held elsewhere.
    async fn on(client: &mut Client, path: &str) -> Self {
        Self::with(client, path, &[]).await
    }

    async fn with(client: &mut Client, path: &str, fields: &[(&'static str, &'static str)]) -> Self {
        let (sender, endless) = body::channel();
        let mut asks = request(Method::POST, path, endless);
        for (name, value) in fields {
            asks.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let response = soon("a head", client.send(asks)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let mut long = Self { sender, body: response.into_body(), _client: None };
        long.goes_on().await;
        long
    }

    async fn goes_on(&mut self) {
        self.sender.send(Ok(Frame::data(Bytes::from_static(b"and on")))).await.unwrap();
        let mut heard = 0;
        while heard < 6 {
            let frame = soon("the echo", self.body.frame()).await.unwrap().unwrap();
            heard += frame.into_data().unwrap().len();
        }
    }

    /// It breaks off, and not as if it were whole.
    async fn breaks_off(mut self) -> hyper::Error {
        soon("the answer breaks off", self.body.frame()).await.expect("no end").unwrap_err()
    }
}

#[tokio::test]
async fn an_answer_of_a_caller_that_is_taken_off_the_list_breaks_off_and_others_go_on() {
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let app = HttpApp::echo().await;
        let mut bench = Bench::both(app.address(), "").await;
        let web = Long::begin(bench.client("web", version).await, "/").await;
        let mut shop = Long::begin(bench.client("shop", version).await, "/").await;
        bench.without_web("").await;
        web.breaks_off().await;
        eventually("it is counted", || bench.flagged() == 1).await;
        shop.goes_on().await;
        eventually("so is its connection", || bench.ended() == [1, 1, 0]).await;
        shop.goes_on().await;
        assert!(!within(TWO_LOOKS, || bench.ended() != [1, 1, 0]).await, "{:?}", bench.ended());
    }
}

#[tokio::test]
async fn a_call_of_grpc_ends_with_permission_denied() {
    let app = HttpApp::start(async |request: http::Request<Incoming>| {
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok(answer.body(body::forward(request.into_body())).unwrap())
    })
    .await;
    let mut bench = Bench::both(app.address(), "").await;
    let mut client = bench.client("web", Version::HTTP_2).await;
    let (_sender, endless) = body::channel();
    let mut call = request(Method::POST, "/shop.Orders/Watch", endless);
    call.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let mut body = client.send(call).await.unwrap().into_body();
    bench.without_web("").await;
    let frame = soon("trailers", body.frame()).await.unwrap().unwrap();
    let trailers = frame.into_trailers().unwrap();
    assert_eq!(trailers["grpc-status"], "7");
    assert_eq!(trailers["grpc-message"], "no_longer_allowed");
}

#[tokio::test]
async fn a_request_that_waits_for_its_answer_is_answered_403() {
    let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(0));
    for version in [Version::HTTP_2, Version::HTTP_11] {
        let app = HttpApp::gated(&gate).await;
        let mut bench = Bench::both(app.address(), "").await;
        let mut client = bench.client("web", version).await;
        let waiting = tokio::spawn(async move { client.get("/").await });
        eventually("the app has it", || app.count() == 1).await;
        bench.without_web("").await;
        let response = soon("an answer", waiting).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(field(&response, "x-outrider-reason"), Some("no_longer_allowed"));
        assert_eq!(bench.flagged(), 1);
    }
}

#[tokio::test]
async fn an_idle_connection_of_somebody_who_may_not_connect_any_more_is_closed() {
    for alpn in [ALPN_H2, ALPN_H1, peer::ALPN_TCP] {
        let app = HttpApp::echo().await;
        let keys = if alpn == peer::ALPN_TCP { "protocol: tcp" } else { "" };
        let mut bench = Bench::both(app.address(), keys).await;
        let (web, shop) = (bench.connect("web", alpn).await, bench.connect("shop", alpn).await);
        let open = || bench.orders.listener("in").active.load(Ordering::Relaxed);
        eventually("both are open", || open() == 2).await;
        let counts = bench.orders.listener("in");
        bench.without_web(keys).await;
        eventually("one is closed", || counts.active.load(Ordering::Relaxed) == 1).await;
        assert!(!within(TWO_LOOKS, || counts.active.load(Ordering::Relaxed) != 1).await);
        drop((web, shop));
    }
}

#[tokio::test]
async fn who_is_let_in_again_at_once_keeps_the_connection() {
    let app = HttpApp::named("orders").await;
    for _ in 0..10 {
        let mut bench = Bench::both(app.address(), "").await;
        let mut client = bench.client("web", Version::HTTP_2).await;
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        bench.without_web("").await;
        let not_yet = Cell::new(Instant::now());
        eventually("it is judged", || {
            let is_judged = bench.ended() == [1, 0, 0];
            if !is_judged {
                not_yet.set(Instant::now());
            }
            is_judged
        })
        .await;
        let both = allowing(app.address(), &["web", "shop"], "");
        bench.reload(&both).await;
        // It is closed a second after it is judged: on a machine that stalled so long, this was not at once.
        if not_yet.get().elapsed() > Duration::from_millis(900) {
            continue;
        }
        assert!(!within(TWO_LOOKS, || bench.orders.listener("in").active.load(Ordering::Relaxed) != 1).await);
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
        return;
    }
    panic!("never in time");
}

#[tokio::test]
async fn what_outlives_its_listener_is_judged_by_the_newest_rules_all_the_same() {
    let app = HttpApp::echo().await;
    let mut bench = Bench::both(app.address(), "").await;
    let mut kept = bench.client("web", Version::HTTP_11).await;
    assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK);
    let mut web = Long::begin(bench.client("web", Version::HTTP_2).await, "/").await;
    let mut shop = Long::begin(bench.client("shop", Version::HTTP_2).await, "/").await;
    // Connections are to carry something else from now on.
    let grace = "\ndrain: {idle_grace: 1h, deadline: 1h}";
    bench.reload(&(allowing(app.address(), &["web", "shop"], "protocol: detect") + grace)).await;
    web.goes_on().await;
    bench.reload(&(allowing(app.address(), &["shop"], "protocol: detect") + grace)).await;
    web.breaks_off().await;
    eventually("it is counted", || bench.ended()[1] == 1).await;
    shop.goes_on().await;
    assert!(kept.get("/").await.map_or(true, |answer| answer.status() == StatusCode::FORBIDDEN));
}

#[tokio::test]
async fn a_reload_that_is_about_something_else_ends_nothing() {
    let app = HttpApp::echo().await;
    let mut bench = Bench::both(app.address(), "").await;
    let mut long = Long::begin(bench.client("web", Version::HTTP_2).await, "/").await;
    for seconds in 2..4 {
        let keys = format!("connect_timeout: {seconds}s");
        bench.reload(&allowing(app.address(), &["web", "shop", "more"], &keys)).await;
        assert!(!within(TWO_LOOKS, || bench.ended() != [0; 3]).await, "{:?}", bench.ended());
        long.goes_on().await;
    }
}

/// What `web` may ask for.
fn rules(app: std::net::SocketAddr, keys: &str) -> String {
    let rule = format!("{{name: web, from: ['{}'], {keys}}}", id("web"));
    format!("{}\nauthorization: {{rules: [{rule}]}}", allowing(app, &["web"], ""))
}

#[tokio::test]
async fn requests_are_judged_again_one_by_one_by_what_they_asked_for() {
    let app = HttpApp::echo().await;
    let mut bench =
        Bench::new(app.address(), &rules(app.address(), "path_prefixes: [/items, /admin], methods: [POST]"))
            .await;
    let mut items = Long::begin(bench.client("web", Version::HTTP_2).await, "/items/1").await;
    let admin = Long::begin(bench.client("web", Version::HTTP_2).await, "/admin/1").await;
    bench.reload(&rules(app.address(), "path_prefixes: [/items]")).await;
    admin.breaks_off().await;
    items.goes_on().await;
    // Their connections may stay: the caller may connect.
    assert!(!within(TWO_LOOKS, || bench.ended() != [0, 1, 0]).await, "{:?}", bench.ended());
    items.goes_on().await;
    bench.reload(&rules(app.address(), "methods: [GET]")).await;
    items.breaks_off().await;
    assert_eq!(bench.ended(), [0, 2, 0]);
}

#[tokio::test]
async fn in_audit_mode_nothing_is_ended() {
    let app = HttpApp::echo().await;
    let mut bench = Bench::new(app.address(), &rules(app.address(), "methods: [POST]")).await;
    let mut long = Long::begin(bench.client("web", Version::HTTP_2).await, "/").await;
    let audit = rules(app.address(), "methods: [GET]").replace("{rules:", "{mode: audit, rules:");
    bench.reload(&audit).await;
    assert!(!within(TWO_LOOKS, || bench.ended() != [0; 3]).await, "{:?}", bench.ended());
    long.goes_on().await;
}
