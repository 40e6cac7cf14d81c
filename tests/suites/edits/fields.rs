//! Fields that a route sets, adds and removes.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::{Edited, VERSIONS, talkative};
use crate::harness::{Client, HttpApp, TestMesh, app::nobody, body, ca::id};

/// Changes of a request below `/shop`, wherever the route stands.
const OF_REQUESTS: &str = "routes: [{path_prefix: /shop, request_headers: {set: [{name: X-Tier, value: gold}], \
    add: [{name: x-seen-by, value: a}, {name: x-seen-by, value: b}], remove: [X-Debug, cookie]}}]";
/// Changes of answers to the same.
const OF_ANSWERS: &str = "routes: [{path_prefix: /shop, response_headers: {set: [{name: server, value: shop}], \
    add: [{name: vary, value: x-tier}], remove: [x-debug]}}]";
/// What a caller sends.
const SENT: [(&str, &str); 6] = [
    ("x-tier", "forged"),
    ("x-tier", "twice"),
    ("x-debug", "1"),
    ("x-debug", "2"),
    ("x-seen-by", "browser"),
    ("cookie", "session=1"),
];

fn values<'a>(seen: &'a crate::harness::app::Seen, name: &str) -> Vec<&'a str> {
    seen.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}

#[tokio::test]
async fn a_request_is_changed_by_the_callers_sidecar_or_by_the_callees_and_others_are_not() {
    for (inbound, cluster) in [("", OF_REQUESTS), (OF_REQUESTS, "")] {
        let mesh = Edited::new(inbound, cluster).await;
        for version in VERSIONS {
            let before = mesh.app.count();
            mesh.get(version, "/shop/1", &SENT).await;
            mesh.get(version, "/shopping", &SENT).await;
            let [changed, as_sent] = &mesh.app.seen()[before..] else { panic!() };
            assert_eq!(values(changed, "x-tier"), ["gold"]);
            assert_eq!(values(changed, "x-seen-by"), ["browser", "a", "b"]);
            assert!(values(changed, "x-debug").is_empty() && values(changed, "cookie").is_empty());
            assert_eq!(values(as_sent, "x-tier"), ["forged", "twice"]);
            assert_eq!(values(as_sent, "x-debug"), ["1", "2"]);
            assert_eq!(
                (values(as_sent, "x-seen-by"), values(as_sent, "cookie")),
                (vec!["browser"], vec!["session=1"])
            );
        }
    }
}

#[tokio::test]
async fn an_answer_is_changed_by_either_sidecar_and_what_is_not_named_stays() {
    for (inbound, cluster) in [("", OF_ANSWERS), (OF_ANSWERS, "")] {
        let mesh = Edited::new(inbound, cluster).await;
        for version in VERSIONS {
            let changed = mesh.get(version, "/shop", &[]).await;
            assert_eq!((changed.status, &*changed.text), (StatusCode::OK, "done"));
            assert_eq!(
                (changed.all("server"), changed.all("vary")),
                (vec!["shop"], vec!["accept", "x-tier"])
            );
            assert_eq!((changed.all("x-debug"), changed.all("set-cookie")), (vec![], vec!["a=1"]));
            let as_sent = mesh.get(version, "/", &[]).await;
            assert_eq!(
                (as_sent.all("server"), as_sent.all("x-debug")),
                (vec!["internal/1.2"], vec!["a", "b"])
            );
        }
    }
}

#[tokio::test]
async fn the_callers_sidecar_has_the_last_word_on_an_answer_and_the_callees_on_a_request() {
    let both = |who: &str| {
        format!(
            "routes: [{{path_prefix: /, request_headers: {{set: [{{name: x-by, value: {who}}}]}}, \
             response_headers: {{set: [{{name: x-by, value: {who}}}]}}}}]"
        )
    };
    let mesh = Edited::new(&both("callee"), &both("caller")).await;
    for version in VERSIONS {
        assert_eq!(mesh.get(version, "/", &[]).await.all("x-by"), ["caller"]);
    }
    assert!(mesh.app.seen().iter().all(|seen| seen.header("x-by") == Some("callee")));
}

#[tokio::test]
async fn an_answer_of_the_sidecars_own_is_left_alone() {
    let mesh = TestMesh::new();
    let keys = "retry: {max_retries: 0}, routes: [{path_prefix: /, response_headers: {set: [{name: x-by, value: a}, \
                {name: content-type, value: b}]}}]";
    let web = mesh.caller(&[nobody()], keys).await;
    for version in VERSIONS {
        let answer = Client::connect(web.address(), version).await.get("/").await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["x-outrider-reason"], "connect_failed");
        assert!(!answer.headers().contains_key("x-by") && answer.headers()["content-type"] != "b");
    }
}

#[tokio::test]
async fn a_caller_cannot_have_a_change_taken_off_again_by_naming_it_in_connection() {
    let mesh = Edited::new("", OF_REQUESTS).await;
    mesh.get(Version::HTTP_11, "/shop", &[("connection", "x-tier, x-seen-by"), ("x-tier", "forged")]).await;
    let seen = mesh.app.only();
    assert_eq!((values(&seen, "x-tier"), values(&seen, "x-seen-by")), (vec!["gold"], vec!["a", "b"]));
}

#[tokio::test]
async fn no_change_passes_for_what_the_sidecars_know() {
    let forged = "routes: [{path_prefix: /, request_headers: {set: [{name: x-forwarded-for, value: 192.0.2.1}, \
                  {name: forwarded, value: for=192.0.2.1}, {name: x-forwarded-proto, value: gopher}, \
                  {name: x-forwarded-host, value: a b}], remove: [x-request-id]}}]";
    let cert = format!("By={};URI={}", id("orders"), id("web"));
    for (inbound, cluster) in [("", forged), (forged, "")] {
        let mesh = Edited::new(inbound, cluster).await;
        for version in VERSIONS {
            mesh.get(version, "/", &[("x-request-id", "mine")]).await;
        }
        for seen in mesh.app.seen() {
            assert_eq!(seen.header("x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
            assert_eq!(seen.header("forwarded"), Some("for=192.0.2.1, for=127.0.0.1"));
            assert!(matches!(seen.header("x-forwarded-proto"), Some("http" | "https")), "{seen:?}");
            assert_eq!(seen.header("x-forwarded-host"), Some("orders"));
            assert_eq!(seen.header("x-forwarded-client-cert"), Some(&*cert));
            assert_eq!(seen.header("x-request-id").unwrap().len(), 36, "a new one");
        }
    }
}

#[tokio::test]
async fn a_request_that_is_repeated_is_changed_once() {
    let count = Arc::new(AtomicUsize::new(0));
    let app = HttpApp::start(move |request: Request<Incoming>| {
        let count = Arc::clone(&count);
        async move {
            body::drain(request.into_body()).await?;
            let is_first = count.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
            let status = if is_first { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
            Ok(Response::builder().status(status).body(body::empty())?)
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let keys = "retry: {max_retries: 1, backoff_base: 1ms, budget_percent: 100}, routes: [{path_prefix: /old, \
                rewrite: {path_prefix: /old/new}, request_headers: {add: [{name: x-seen-by, value: a}]}}]";
    let web = mesh.caller(&[orders.address()], keys).await;
    for version in VERSIONS {
        let answer = Client::connect(web.address(), version).await.get("/old/1").await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!((app.count(), web.retries()), (4, 2));
    for seen in app.seen() {
        assert_eq!((seen.uri.path(), values(&seen, "x-seen-by")), ("/old/new/1", vec!["a"]));
    }
}

#[tokio::test]
async fn what_an_answer_is_worth_is_decided_before_it_is_changed() {
    let app = talkative().await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    // gRPC in the head's words only: the changed type must not make a call of it.
    let keys = "routes: [{path_prefix: /, response_headers: {set: [{name: content-type, value: application/grpc}]}}], \
                retry: {max_retries: 1, statuses: [500], backoff_base: 1ms, budget_percent: 100}";
    let web = mesh.caller(&[orders.address()], keys).await;
    let answer = Client::http2(web.address()).await.get("/500").await.unwrap();
    assert_eq!((answer.status(), app.count()), (StatusCode::INTERNAL_SERVER_ERROR, 2));
    assert_eq!(answer.headers()["content-type"], "application/grpc");
}

#[tokio::test]
async fn a_service_outside_the_mesh_gets_what_its_route_says_and_nothing_of_ours() {
    let (mesh, app) = (TestMesh::new(), talkative().await);
    let keys = OF_REQUESTS.replace("{path_prefix: /shop", "{path_prefix: /shop, rewrite: {path_prefix: /v2}");
    let endpoint = app.address();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{endpoint}'}}], {keys}}}]"
    );
    let web = mesh.start("web", &yaml).await;
    for version in VERSIONS {
        Client::connect(web.address(), version).await.get("/shop/1").await.unwrap();
    }
    for seen in app.seen() {
        assert_eq!((seen.uri.path(), seen.header("x-tier")), ("/v2/1", Some("gold")));
        let ours = ["x-request-id", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-client-cert"];
        assert!(ours.iter().all(|name| seen.header(name).is_none()), "{seen:?}");
    }
    assert_eq!(app.count(), 2);
}

#[tokio::test]
async fn a_reload_changes_what_is_changed_from_then_on() {
    let mut mesh = Edited::new("", OF_REQUESTS).await;
    mesh.get(Version::HTTP_11, "/shop", &[]).await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
        TestMesh::cluster("orders", &[mesh.orders.address()], &OF_REQUESTS.replace("gold", "silver")),
    );
    mesh.mesh.reload(&mut mesh.web, "web", &yaml).await.unwrap();
    mesh.get(Version::HTTP_11, "/shop", &[]).await;
    let tiers: Vec<_> =
        mesh.app.seen().iter().map(|seen| seen.header("x-tier").unwrap().to_owned()).collect();
    assert_eq!(tiers, ["gold", "silver"]);
}
