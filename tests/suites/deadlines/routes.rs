//! Routes: which requests have a timeout and retries of their own.

use super::{Pair, assert_at, get, slow, timed, with};
use crate::harness::{
    HttpApp, TcpApp, TestMesh, body,
    client::{field, request},
    eventually, soon,
};
use http::{Method, Response, StatusCode, Version};

#[tokio::test]
async fn a_route_has_its_own_timeout_and_everything_else_the_clusters() {
    let app = slow().await;
    let routes = "request_timeout: 20s, routes: [{path_prefix: /quick, request_timeout: 200ms}, \
                  {path_prefix: /quick/not, request_timeout: none}, {path: /exact/20000, request_timeout: 100ms}, \
                  {methods: [PUT], headers: [{name: x-hurry, value: 'yes'}], request_timeout: 150ms}]";
    let pair = Pair::new(app.address(), ("", routes)).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for (request, millis) in [
            (get("/quick/20000", &[]), 200),
            (get("/exact/20000?a=b", &[]), 100),
            (with(Method::PUT, "/slow/20000", &[("x-hurry", "yes")]), 150),
        ] {
            let (status, reason, took) = timed(&mut pair.client(version).await, request).await;
            assert_eq!((status, reason.as_deref()), (504, Some("request_timeout")));
            assert_at(took, millis);
        }
        for request in [
            get("/quick/not/400", &[]),
            get("/quicker/400", &[]),
            get("/slow/400", &[("x-hurry", "yes")]),
            with(Method::PUT, "/slow/400", &[("x-hurry", "no")]),
        ] {
            assert_eq!(timed(&mut pair.client(version).await, request).await.0, 200);
        }
    }
}

#[tokio::test]
async fn a_route_has_its_own_retries() {
    let app = TcpApp::silent().await;
    let keys = "retry: {max_retries: 2, backoff_base: 1ms, budget_percent: 100}, \
                routes: [{path: /once, retry: {max_retries: 0}}, {path: /often, retry: {max_retries: 4}}]";
    let pair = Pair::new(app.address(), ("", keys)).await;
    let mut client = pair.client(Version::HTTP_11).await;
    for (path, attempts) in [("/", 3), ("/once", 1), ("/often", 5)] {
        let before = app.connections();
        let response = soon("the answer", client.get(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        body::text(response.into_body()).await;
        assert_eq!(app.connections() - before, attempts, "{path}");
    }
}

#[tokio::test]
async fn a_reload_changes_routes_and_no_request_under_way() {
    let (release, released) = tokio::sync::watch::channel(false);
    let app = HttpApp::start(move |_request| {
        let mut released = released.clone();
        async move {
            released.wait_for(|is_released| *is_released).await?;
            Ok(Response::new(body::full("done")))
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "").await;
    let yaml = |keys: &str| {
        let cluster = TestMesh::cluster("orders", &[orders.address()], keys);
        format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]")
    };
    let mut web = mesh.start("web", &yaml("routes: [{path: /held, request_timeout: none}]")).await;
    let mut client = crate::harness::Client::http2(web.address()).await;
    let held = tokio::spawn(async move {
        let response = client.get("/held").await.unwrap();
        (response.status(), client)
    });
    eventually("the request is held", || app.count() == 1).await;
    mesh.reload(&mut web, "web", &yaml("routes: [{path: /held, request_timeout: 50ms}]")).await.unwrap();
    let mut other = crate::harness::Client::http2(web.address()).await;
    let response = soon("the answer", other.get("/held")).await.unwrap();
    assert_eq!(field(&response, "x-outrider-reason"), Some("request_timeout"), "the new route holds");
    release.send_replace(true);
    let (status, mut client) = soon("the held answer", held).await.unwrap();
    assert_eq!(status, StatusCode::OK, "the old one held");
    mesh.reload(&mut web, "web", &yaml("")).await.unwrap();
    let answer = client.send(request(Method::GET, "/held", body::empty())).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "and its connection goes on without any");
}

/// A cluster that cannot be reached: connecting takes longer than the route allows.
#[tokio::test]
async fn a_timeout_ends_also_what_has_not_been_sent_yet() {
    // It takes connections, and says nothing in their handshakes.
    let mute = TcpApp::start(async |mut stream| {
        drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await);
    })
    .await;
    let mesh = TestMesh::new();
    let keys = "connect_timeout: 60s, routes: [{path: /a, request_timeout: 200ms}]";
    let web = mesh.caller(&[mute.address()], keys).await;
    let mut client = crate::harness::Client::http1(web.address()).await;
    let (status, reason, took) = timed(&mut client, get("/a", &[])).await;
    assert_eq!((status, reason.as_deref()), (504, Some("request_timeout")));
    assert_at(took, 200);
    let (_, reason, took) = timed(&mut client, get("/b", &[("x-outrider-timeout-ms", "150")])).await;
    assert_eq!(reason.as_deref(), Some("deadline_exceeded"));
    assert_at(took, 150);
}
