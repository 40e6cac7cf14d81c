//! Another configuration comes into force while everything runs: in one step or not at all, and nothing is cut.

mod connections;
mod listeners;
mod load;

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use http::{Method, StatusCode};
use outrider::app::Rejected;

use self::load::Load;
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::{call, request},
    eventually, soon,
};

/// Closes idle connections soon, so that a test sees it.
const DRAIN: &str = "drain: {idle_grace: 200ms, deadline: 10s}";

/// `web` → `orders`, and the configuration of `web` to be changed.
struct Bench {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Bench {
    async fn new(app: HttpApp) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.start("web", &web(&[orders.address()], "")).await;
        Self { mesh, app, orders, web }
    }

    async fn reload(&mut self, yaml: &str) -> Result<(), Rejected> {
        self.mesh.reload(&mut self.web, "web", yaml).await
    }

    /// The callee's listener, so changed.
    async fn reload_orders(&mut self, keys: &str) {
        let yaml = callee(self.app.address(), keys);
        self.mesh.reload(&mut self.orders, "orders", &yaml).await.unwrap();
    }
}

fn callee(app: SocketAddr, keys: &str) -> String {
    format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', {keys}}}]\n{DRAIN}")
}

/// The configuration of `web` with one listener `out` and one cluster `orders`.
fn web(endpoints: &[SocketAddr], keys: &str) -> String {
    with_listeners("{name: out, listen: '127.0.0.1:0'}", endpoints, keys)
}

fn with_listeners(listeners: &str, endpoints: &[SocketAddr], keys: &str) -> String {
    let cluster = TestMesh::cluster("orders", endpoints, keys);
    format!("outbound: [{listeners}]\nclusters: [{cluster}]\n{DRAIN}")
}

#[tokio::test]
async fn clusters_come_and_go_under_load_and_no_request_fails() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let load = Load::start(bench.web.address());
    for round in 0..6 {
        load.go_on(60).await;
        let also = TestMesh::cluster("users", &endpoints, "");
        let keys = format!("connect_timeout: {}s, balance: round_robin", round + 1);
        let yaml = web(&endpoints, &keys);
        let yaml =
            if round % 2 == 0 { yaml.replace("clusters: [", &format!("clusters: [{also}, ")) } else { yaml };
        bench.reload(&yaml).await.unwrap();
        let snapshot = bench.web.app().snapshots.load();
        assert_eq!(snapshot.config.number, round + 2);
        assert_eq!(snapshot.routes.contains_key("users"), round % 2 == 0);
    }
    load.go_on(60).await;
    load.end().await;
    assert_eq!(bench.orders.listener("in").accepted.load(Ordering::Relaxed), 1, "its connection was kept");
}

#[tokio::test]
async fn endpoints_change_under_load_and_no_request_fails() {
    let mut bench = Bench::new(HttpApp::named("first").await).await;
    let second = HttpApp::named("second").await;
    let other = bench.mesh.callee("orders", second.address(), "").await;
    let load = Load::start(bench.web.address());
    for _ in 0..3 {
        load.go_on(60).await;
        bench.reload(&web(&[other.address()], "")).await.unwrap();
        let before = bench.app.count();
        load.go_on(60).await;
        // What was under way at the swap may still have come after it.
        assert!(bench.app.count() <= before + 8, "only what was in flight");
        eventually("connections to what is gone are closed", || {
            bench.orders.listener("in").active.load(Ordering::Relaxed) == 0
        })
        .await;
        bench.reload(&web(&[bench.orders.address()], "")).await.unwrap();
    }
    load.end().await;
    assert!(second.count() > 0);
}

#[tokio::test]
async fn what_needs_a_new_process_is_refused_by_name_and_nothing_changes() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let yaml = web(&endpoints, "").replace("clusters", "workers: 2\ntls: {key_exchange: [X25519]}\nclusters");
    let before = bench.web.app().snapshots.load();
    let refusal = bench.reload(&yaml).await.unwrap_err();
    let keys: Vec<_> = refusal.faults().into_iter().map(|fault| fault.path).collect();
    assert_eq!(keys, ["workers", "tls"]);
    assert!(refusal.faults()[0].remedy.contains("second process"), "{refusal:?}");
    assert_eq!(bench.web.app().snapshots.load().config.number, before.config.number);
    assert_eq!(call(bench.web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_request_keeps_what_it_began_with_and_the_next_goes_by_the_new() {
    let (release, released) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |request: http::Request<hyper::body::Incoming>| {
        let mut released = released.clone();
        async move {
            if request.uri().path() == "/held" {
                released.wait_for(|is_released| *is_released).await?;
            }
            Ok(http::Response::new(body::full("done")))
        }
    })
    .await;
    let mut bench = Bench::new(app).await;
    let mut client = Client::http1(bench.web.address()).await;
    let held = tokio::spawn(async move {
        let response = client.get("/held").await.unwrap();
        (response.status(), body::text(response.into_body()).await, client)
    });
    eventually("the request is held", || bench.app.count() == 1).await;
    // A cluster that is gone, an endpoint that is gone, and a timeout that would have ended it.
    bench.reload("outbound: [{name: out, listen: '127.0.0.1:0'}]").await.unwrap();
    assert_eq!(call(bench.web.address(), Method::GET).await.0, StatusCode::NOT_FOUND);
    bench.reload(&web(&[bench.orders.address()], "request_timeout: 50ms")).await.unwrap();
    let answer = Client::http1(bench.web.address()).await.get("/held").await.unwrap();
    assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
    release.send_replace(true);
    let (status, text, mut client) = soon("the held answer", held).await.unwrap();
    assert_eq!((status, text.as_str()), (StatusCode::OK, "done"));
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK, "and its connection goes on");
}

#[tokio::test]
async fn caps_change_in_place() {
    let mut bench = Bench::new(HttpApp::echo().await).await;
    let (sender, endless) = body::channel();
    let mut client = Client::http1(bench.web.address()).await;
    let open = client.send(request(Method::POST, "/", endless)).await.unwrap();
    bench.reload(&web(&[bench.orders.address()], "max_requests: 1")).await.unwrap();
    assert_eq!(
        call(bench.web.address(), Method::GET).await.0,
        StatusCode::SERVICE_UNAVAILABLE,
        "it counts on"
    );
    bench.reload(&web(&[bench.orders.address()], "max_requests: 2")).await.unwrap();
    assert_eq!(call(bench.web.address(), Method::GET).await.0, StatusCode::OK);
    drop(sender);
    body::text(open.into_body()).await;
}

#[tokio::test]
async fn the_newest_idle_time_counts_for_connections_from_before() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    assert_eq!(call(bench.web.address(), Method::GET).await.0, StatusCode::OK);
    let endpoints = [bench.orders.address()];
    bench.reload(&web(&endpoints, "pool_idle_timeout: 100ms")).await.unwrap();
    eventually("the kept connection is closed", || {
        bench.orders.listener("in").active.load(Ordering::Relaxed) == 0
    })
    .await;
    assert!(Duration::from_millis(100) < bench.web.cluster("orders").settings.timeouts.connect);
}

#[tokio::test]
async fn while_it_drains_nothing_reloads_and_after_a_reload_it_drains_all() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let two = "{name: out, listen: '127.0.0.1:0'}, {name: more, listen: '127.0.0.1:0'}";
    bench.reload(&with_listeners(two, &endpoints, "")).await.unwrap();
    let (out, more) = (bench.web.address_of("out"), bench.web.address_of("more"));
    assert_eq!(call(more, Method::GET).await.0, StatusCode::OK);
    soon("the drain", bench.web.app().drain()).await;
    for address in [out, more] {
        tokio::net::TcpStream::connect(address).await.unwrap_err();
    }
    let refusal = bench.reload(&web(&endpoints, "")).await.unwrap_err();
    assert!(matches!(refusal, Rejected::Draining), "{refusal:?}");
}

#[tokio::test]
async fn reloads_in_a_row_come_into_force_in_their_order() {
    let bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let settings = |seconds: u32| {
        let yaml = web(&endpoints, &format!("connect_timeout: {seconds}s"));
        bench.mesh.settings("web", &yaml)
    };
    let app = bench.web.app();
    let (first, second, third) =
        tokio::join!(app.reload(settings(11)), app.reload(settings(12)), app.reload(settings(13)));
    for reloaded in [first, second, third] {
        assert_eq!(reloaded.unwrap()["out"], bench.web.address());
    }
    assert_eq!(app.generation(), 4);
    assert_eq!(bench.web.cluster("orders").settings.timeouts.connect, Duration::from_secs(13));
}
