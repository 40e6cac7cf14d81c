//! Whose word counts, and how an app's own calls come by their trace.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use http::{Request, Response, Version};
use hyper::body::Incoming;
use outrider::{clock::Clock, model::trace::Origin};

use super::{SPAN, TRACE, TRACED, Trails, ask, callee, caller, parts, place, span, text};
use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body, soon, told::ToldNet};

/// `web` → `shop`, whose app calls `orders` for each request: with the fields of these names of what it got, and no others.
struct Shop {
    _mesh: TestMesh,
    _apps: (HttpApp, HttpApp),
    web: Sidecar,
    sidecars: [Sidecar; 2],
}

impl Shop {
    async fn new(passed_on: &'static [&'static str]) -> Self {
        let mesh = TestMesh::new();
        let orders_app = HttpApp::named("orders").await;
        let orders = mesh.start("orders", &callee(orders_app.address(), TRACED)).await;
        let out: Arc<OnceLock<SocketAddr>> = Arc::default();
        let proxy = Arc::clone(&out);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let proxy = *proxy.get().unwrap();
            async move {
                let kept = |name: &&'static str| {
                    let value = request.headers().get(*name)?.to_str().unwrap();
                    Some((*name, value.to_owned()))
                };
                let fields: Vec<_> = passed_on.iter().filter_map(kept).collect();
                let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
                ask(proxy, &fields).await;
                Ok(Response::new(body::full("shop")))
            }
        })
        .await;
        let inbound = format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]", app.address());
        let shop =
            mesh.start("shop", &format!("{inbound}\n{}", caller(&[orders.address()], TRACED, ""))).await;
        out.set(shop.address_of("out")).unwrap();
        let cluster = TestMesh::cluster("shop", &[shop.address_of("in")], "");
        let yaml =
            format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]\n{TRACED}");
        let web = mesh.start("web", &yaml).await;
        Self { _mesh: mesh, _apps: (app, orders_app), web, sidecars: [shop, orders] }
    }

    async fn ask(&self) {
        let sent = format!("00-{TRACE}-{SPAN}-00");
        let fields = [("host", "shop"), ("traceparent", sent.as_str())];
        assert_eq!(ask(self.web.address(), &fields).await.status(), 200);
    }
}

#[tokio::test]
async fn an_app_that_passes_on_the_trace_is_the_parent_of_its_own_calls() {
    let shop = Shop::new(&["traceparent", "x-request-id"]).await;
    let mut trails = Trails::of(&shop.sidecars[0]);
    shop.ask().await;
    // The app's own call is over before it answers.
    let (outbound, inbound) = (trails.next().await, trails.next().await);
    assert_eq!(place(&outbound).origin, Origin::Told);
    assert_eq!(place(&outbound).parent, place(&inbound).own);
}

#[tokio::test]
async fn an_app_that_passes_on_only_the_request_id_stays_in_the_trace() {
    let shop = Shop::new(&["x-request-id"]).await;
    let mut trails = Trails::of(&shop.sidecars[0]);
    let mut last = Trails::of(&shop.sidecars[1]);
    shop.ask().await;
    let (outbound, inbound) = (trails.next().await, trails.next().await);
    assert_eq!(outbound.request_id, inbound.request_id);
    assert_eq!(place(&outbound).origin, Origin::RequestId);
    assert_eq!(place(&outbound).trace.to_string(), TRACE);
    assert_eq!((place(&outbound).parent, place(&outbound).own), (place(&inbound).own, None));
    assert!(!place(&outbound).is_sampled, "as whoever began the trace decided");
    let last = last.next().await;
    assert_eq!(place(&last).trace.to_string(), TRACE);
    assert_eq!(text(place(&last).parent), Some(span(&outbound, 0)));
}

#[tokio::test]
async fn an_app_that_passes_on_nothing_begins_a_trace_with_each_call() {
    let shop = Shop::new(&[]).await;
    let mut trails = Trails::of(&shop.sidecars[0]);
    shop.ask().await;
    let outbound = trails.next().await;
    assert_eq!(place(&outbound).origin, Origin::Here);
    assert_ne!(place(&outbound).trace.to_string(), TRACE);
}

#[tokio::test]
async fn what_a_stranger_says_of_traces_is_taken_off_and_not_believed() {
    let (mesh, net, app) = (TestMesh::new(), ToldNet::default(), HttpApp::named("orders").await);
    let keys = "plaintext: permissive, plaintext_until: 2999-01-01";
    let port = format!("{{port: {}, {keys}}}", app.address().port());
    let telemetry = "telemetry: {traces: {endpoint: 'http://127.0.0.1:9', sample_percent: 0}}";
    let yaml = format!("intercept: {{inbound: {{ports: [{port}]}}}}\n{telemetry}");
    let orders = mesh.start_in(net.clone(), Clock::system(), "orders", &yaml).await;
    let mut trails = Trails::of(&orders);
    let stream = net.dial(orders.address_of("intercept-inbound"), app.address()).await.unwrap();
    let mut client = Client::over(stream, Version::HTTP_11).await;
    let sent = format!("00-{TRACE}-{SPAN}-01");
    let b3 = format!("{TRACE}-{SPAN}-1");
    let fields = [("traceparent", sent.as_str()), ("tracestate", "a=1"), ("b3", &b3), ("x-b3-flags", "1")];
    soon("an answer", client.send(super::with(&fields))).await.unwrap();
    let trail = trails.next().await;
    let seen = app.only();
    let told = parts(seen.header("traceparent").unwrap());
    assert_ne!(told.0, TRACE);
    assert_eq!(told.2, "00", "nor is it for a stranger to say what is sampled");
    assert_eq!((seen.header("tracestate"), seen.header("x-b3-flags")), (None, None));
    assert!(!seen.header("b3").unwrap().contains(TRACE));
    assert_eq!((place(&trail).origin, place(&trail).parent), (Origin::Here, None));
    assert_eq!(text(place(&trail).own), Some(told.1));
}

#[tokio::test]
async fn to_a_service_outside_the_mesh_the_apps_fields_pass_as_it_wrote_them() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("outside").await);
    let cluster = format!("{{name: orders, tls: none, endpoints: [{{address: '{}'}}]}}", app.address());
    let yaml = format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]\n{TRACED}");
    let web = mesh.start("web", &yaml).await;
    let mut trails = Trails::of(&web);
    let sent = format!("00-{TRACE}-{SPAN}-01");
    ask(web.address(), &[("traceparent", &sent), ("tracestate", "A"), ("b3", "?")]).await;
    let seen = app.only();
    assert_eq!(seen.header("traceparent"), Some(sent.as_str()));
    assert_eq!((seen.header("tracestate"), seen.header("b3")), (Some("A"), Some("?")));
    let trail = trails.next().await;
    assert_eq!(text(place(&trail).parent).as_deref(), Some(SPAN));
    assert!(trail.attempts[0].span.is_some(), "there is a span of it all the same");
}
