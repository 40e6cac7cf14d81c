//! Why requests failed, in words, from the trail of each.

use http::{Request, StatusCode};
use hyper::Method;

use super::{Asked, PLAIN};
use crate::{
    harness::{Client, HttpApp, TcpApp, TestMesh, body, ca, client::call},
    processes::{mesh::Network, until},
};

/// A request with an ID, and its status.
async fn identified(web: &Asked, method: Method, id: &str) -> StatusCode {
    let content = if method == Method::POST { body::full("once") } else { body::empty() };
    let request = Request::builder().method(method).uri("/items/7").header("x-request-id", id);
    let mut client = Client::http1(web.address).await;
    client.send(request.body(content).unwrap()).await.unwrap().status()
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    // As it would be without the line breaks of its width.
    let flat = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(flat.contains(part), "`{part}` is missing in:\n{text}");
    }
}

#[tokio::test]
async fn a_503_without_an_endpoint_is_told_from_arrival_to_remedy() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], "queue_timeout: 20ms").await;
    assert_eq!(identified(&web, Method::GET, "r-1").await, StatusCode::SERVICE_UNAVAILABLE);
    let text = web.explains("r-1").await;
    assert_says(
        &text,
        &[
            "came in at listener `out` from the own app",
            "GET orders/items/7",
            "went to cluster `orders`, by configuration 1",
            "for an endpoint that may be asked (`queue_timeout`)",
            "nobody to ask: the cluster has no endpoint at all",
            "answered 503 with reason `no_endpoint`, flag UH",
            "The cluster has no endpoint that may be asked",
            "Usual causes:",
            "Look at:",
            "cluster `orders` has no endpoint",
        ],
    );
    let by_flag = web.explains("UH").await;
    assert_says(&by_flag, &["UH The cluster has no endpoint", "answered 503 with reason `no_endpoint`"]);
    let latest = web.says(&["explain"]).await;
    assert_says(&latest.out, &["503 orders GET /items/7", "UH no_endpoint", "ID r-1", "newest 1000"]);
}

#[tokio::test]
async fn a_retry_over_budget_is_told_as_such() {
    let (mesh, app) = (TestMesh::new(), TcpApp::silent().await);
    let first = mesh.callee("orders", app.address(), "").await;
    let second = mesh.callee("orders", app.address(), "").await;
    let keys = "retry: {budget_percent: 0, budget_min_per_second: 0}";
    let web = Asked::web(&mesh, &[first.address(), second.address()], keys).await;
    assert_eq!(identified(&web, Method::GET, "r-2").await, StatusCode::SERVICE_UNAVAILABLE);
    let text = web.explains("r-2").await;
    assert_says(&text, &["attempt 1 at", "not repeated: the retry budget has nothing left"]);
}

#[tokio::test]
async fn a_post_that_was_not_repeated_says_why() {
    let mesh = TestMesh::new();
    let app = HttpApp::start(|_request| async { Err("no answer".into()) }).await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = Asked::web(&mesh, &[orders.address()], "").await;
    assert!(identified(&web, Method::POST, "r-3").await.is_server_error());
    let text = web.explains("r-3").await;
    assert_says(&text, &["POST orders/items/7", "not repeated: the app may have seen it", "not idempotent"]);
}

#[tokio::test]
async fn a_request_that_was_repeated_with_success_is_told_too() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("orders").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let gone = TcpApp::start(async |stream| drop(stream)).await;
    let keys = "balance: round_robin, retry: {backoff_base: 1ms}";
    let web = Asked::web(&mesh, &[gone.address(), orders.address()], keys).await;
    for id in ["r-4", "r-5"] {
        assert_eq!(identified(&web, Method::GET, id).await, StatusCode::OK);
    }
    until("the repeated one is kept", async || {
        let said = web.says(&["explain"]).await;
        said.out.contains("2 attempts")
    })
    .await;
    let latest = web.says(&["explain"]).await.out;
    let id = if latest.contains("r-4") { "r-4" } else { "r-5" };
    let text = web.explains(id).await;
    assert_says(
        &text,
        &["attempt 1 failed", "repeated because", "attempt 2 at", "answered 200", "noticed nothing"],
    );
}

#[tokio::test]
async fn a_deadline_that_ran_out_is_told() {
    let mesh = TestMesh::new();
    let app = HttpApp::start(|_request| std::future::pending()).await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = Asked::web(&mesh, &[orders.address()], "request_timeout: 60ms").await;
    assert_eq!(identified(&web, Method::GET, "r-6").await, StatusCode::GATEWAY_TIMEOUT);
    let text = web.explains("r-6").await;
    assert_says(&text, &["attempt 1 at", "answered 504", "No answer in time"]);
}

#[tokio::test]
async fn a_denied_caller_is_told_at_either_end() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("orders").await;
    let address = Network::new().host(1).inbound();
    let allowing = |who: &str| {
        let id = ca::id(who);
        format!("inbound: [{{name: in, listen: '{address}', app: '{}', allow: ['{id}']}}]", app.address())
    };
    let orders = Asked::start(&mesh, "orders", address, &allowing("web")).await;
    let web = mesh.caller(&[address], PLAIN).await;
    let mut client = Client::http1(web.address()).await;
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    std::fs::write(&orders.config, TestMesh::config("orders", &allowing("other"))).unwrap();
    assert!(orders.says(&["reload"]).await.is_good);
    until("its open connection is refused", async || {
        client.get("/").await.is_ok_and(|answer| answer.status() == StatusCode::FORBIDDEN)
    })
    .await;
    let text = orders.explains("RBAC").await;
    let from = format!("from {}", ca::id("web"));
    assert_says(&text, &[&from, "answered 403 with reason `not_allowed`, flag RBAC", "allow list"]);
}

#[tokio::test]
async fn what_is_not_kept_is_not_taken_for_what_never_was() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let said = web.says(&["explain", "unknown-id"]).await;
    let flat = said.err.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!said.is_good && flat.contains("newest 1000 requests"), "{}", said.err);
    let said = web.says(&["explain", "uh"]).await;
    assert!(!said.is_good && said.err.contains("flag UH"), "{}", said.err);
    let meaning = web.says(&["explain", "RL"]).await;
    assert!(meaning.is_good, "{}", meaning.err);
    assert_says(&meaning.out, &["A rate limit", "It did not happen here lately"]);
    for target in ["/explain?flag=XX", "/explain?reason=x", "/explain?id=a&flag=UH", "/explain?what=1"] {
        assert_eq!(web.get(target).await.0, 400, "{target}");
    }
}

#[tokio::test]
async fn many_failures_are_kept_within_their_bound() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let mut client = Client::http1(web.address).await;
    for number in 0..300 {
        let request = Request::get("/").header("x-request-id", format!("id-{number}"));
        client.send(request.body(body::empty()).unwrap()).await.unwrap();
    }
    until("the last one is kept", async || web.get("/explain?id=id-299").await.0 == 200).await;
    let (_, answer) = web.get("/explain?limit=100").await;
    assert_eq!(
        (&answer["kept"]["requests"], answer["requests"].as_array().unwrap().len()),
        (&250.into(), 100)
    );
    assert_eq!(web.get("/explain?id=id-0").await.0, 404, "the oldest of those that failed alike goes");
    assert_eq!(call(web.address, Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
}
