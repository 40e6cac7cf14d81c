//! What holds for the requests of a rule: what it says itself, and else what the chosen cluster says.

use std::time::{Duration, Instant};

use http::{Method, Response, StatusCode, Version};

use super::{Shop, ask, get, of_orders};
use crate::harness::{
    Client, HttpApp, TcpApp, TestMesh, body,
    client::{field, request},
    soon,
};

/// An app that never answers, behind its sidecar as `v1`, and `web` with these keys of the cluster and this rule.
async fn silent(keys: &str, rule: &str) -> (TcpApp, crate::harness::Sidecar, crate::harness::Sidecar) {
    let app = TcpApp::start(async |mut stream| {
        drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await);
    })
    .await;
    let mesh = TestMesh::new();
    let callee = mesh.callee("v1", app.address(), "").await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]\n\
         routes: [{{name: shop, hosts: [orders], rules: [{rule}]}}]",
        TestMesh::cluster("v1", &[callee.address()], keys),
    );
    let web = mesh.start("web", &yaml).await;
    (app, callee, web)
}

#[tokio::test]
async fn a_rules_timeout_comes_before_the_clusters_and_that_of_the_clusters_own_routes() {
    let keys = "request_timeout: 150ms, retry: {max_retries: 0}, routes: [{path_prefix: /slow, request_timeout: none}]";
    let rule = "{matches: [{path_prefix: /slow/er}], clusters: [{name: v1}], request_timeout: 900ms}, {clusters: [{name: v1}]}";
    let (_app, _callee, web) = silent(keys, rule).await;
    for (host, path, least) in [("orders", "/slow/er", 900), ("orders", "/slow", 150), ("v1", "/", 150)] {
        let begun = Instant::now();
        let mut client = Client::http1(web.address()).await;
        let (status, _, reason) =
            soon("the answer", ask(&mut client, Method::GET, path, &[("host", host)])).await;
        assert_eq!((status, reason.as_deref()), (StatusCode::GATEWAY_TIMEOUT, Some("request_timeout")));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(least), "{host} {path}: {took:?}");
    }
}

#[tokio::test]
async fn a_rules_retries_come_before_the_clusters() {
    let app = TcpApp::silent().await;
    let mesh = TestMesh::new();
    let callee = mesh.callee("v1", app.address(), "").await;
    let retry = "retry: {max_retries: 1, backoff_base: 1ms, budget_percent: 100}";
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]\nroutes: [{{name: shop, services: [v1], \
         rules: [{{matches: [{{path: /often}}], clusters: [{{name: v1}}], retry: {{max_retries: 3}}}}, \
         {{clusters: [{{name: v1}}]}}]}}]",
        TestMesh::cluster("v1", &[callee.address()], retry),
    );
    let web = mesh.start("web", &yaml).await;
    let mut client = Client::http1(web.address()).await;
    for (path, attempts) in [("/often", 4), ("/", 2)] {
        let before = app.connections();
        let (status, ..) = soon("the answer", ask(&mut client, Method::GET, path, &[("host", "v1")])).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(app.connections() - before, attempts, "{path}");
    }
}

#[tokio::test]
async fn a_clusters_own_changes_are_seen_by_it_alone_and_its_callers() {
    let stage = |name: &str| {
        format!(
            "request_headers: {{set: [{{name: x-stage, value: {name}}}], remove: [x-rule]}}, \
             response_headers: {{set: [{{name: x-by, value: {name}}}]}}"
        )
    };
    let rule = format!(
        "{{matches: [{{path: /b}}], clusters: [{{name: v2, {}}}, {{name: v1, weight: 0}}], {}}}, \
         {{clusters: [{{name: v1}}, {{name: v2, weight: 0, {}}}], {}}}",
        stage("canary"),
        "request_headers: {set: [{name: x-rule, value: b}]}",
        stage("never"),
        "request_headers: {set: [{name: x-rule, value: a}]}, response_headers: {set: [{name: x-by, value: all}]}",
    );
    let shop = Shop::new(&of_orders(&rule)).await;
    let mut client = shop.client(Version::HTTP_2).await;
    for (path, app, stage, of_rule, by) in
        [("/a", 1, None, Some("a"), "all"), ("/b", 2, Some("canary"), None, "canary")]
    {
        let mut request = request(Method::GET, path, body::empty());
        request.headers_mut().insert("host", "orders".parse().unwrap());
        let answer = client.send(request).await.unwrap();
        assert_eq!((answer.status(), field(&answer, "x-by")), (StatusCode::OK, Some(by)), "{path}");
        body::text(answer.into_body()).await;
        let seen = shop.apps[app].only();
        assert_eq!((seen.header("x-stage"), seen.header("x-rule")), (stage, of_rule), "{path}");
    }
}

#[tokio::test]
async fn a_rules_limit_is_its_own_in_each_of_its_clusters_and_outlives_a_reload() {
    let rule = |more: &str| {
        of_orders(&format!(
            "{{name: few, matches: [{{path: /few}}], clusters: [{{name: v1, weight: 0}}, {{name: v2}}], \
             rate_limits: [{{requests: 2, per: 24h}}]}}, {{clusters: [{{name: v2}}]{more}}}"
        ))
    };
    let mut shop = Shop::new(&rule("")).await;
    let mut client = shop.client(Version::HTTP_2).await;
    for _ in 0..2 {
        assert_eq!(get(&mut client, "/few", &[]).await, "v2");
    }
    shop.reload(&rule(", request_timeout: 9s")).await;
    let (status, _, reason) = ask(&mut client, Method::GET, "/few", &[]).await;
    assert_eq!((status, reason.as_deref()), (StatusCode::TOO_MANY_REQUESTS, Some("rate_limited")));
    assert_eq!(get(&mut client, "/others", &[]).await, "v2");
    assert_eq!(get(&mut client, "/few", &[("host", "v2")]).await, "v2", "by no rule");
}

#[tokio::test]
async fn the_own_app_has_routes_with_their_own_time_limits_and_faults() {
    let app = HttpApp::start(async |request: http::Request<hyper::body::Incoming>| {
        if request.uri().path().starts_with("/slow") {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(body::full("done")))
    })
    .await;
    let mesh = TestMesh::new();
    let routes = "routes: [{name: slow, path_prefix: /slow, request_timeout: 100ms}, \
                  {name: few, path: /few, rate_limits: [{requests: 1, per: 24h, by: caller}]}, \
                  {name: broken, grpc: shop.Orders/Broken, fault: {abort: 503, abort_grpc: 9}}]";
    let orders = mesh.callee("orders", app.address(), routes).await;
    let web = mesh.caller(&[orders.address()], "retry: {max_retries: 0}").await;
    let mut client = Client::http2(web.address()).await;
    assert_eq!(get(&mut client, "/", &[]).await, "done");
    let (status, _, reason) = soon("an answer", ask(&mut client, Method::GET, "/slow/1", &[])).await;
    assert_eq!((status, reason.as_deref()), (StatusCode::GATEWAY_TIMEOUT, Some("request_timeout")));
    assert_eq!(get(&mut client, "/few", &[]).await, "done");
    let (status, ..) = ask(&mut client, Method::GET, "/few", &[]).await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let mut call = request(Method::POST, "/shop.Orders/Broken", body::empty());
    for (name, value) in grpc {
        call.headers_mut().insert(name, value.parse().unwrap());
    }
    let answer = client.send(call).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "9");
    assert_eq!(get(&mut client, "/shop.Orders/Broken", &[]).await, "done", "no call");
    // All but the last are counted when they are over; each by its route, at the callee.
    let ended = |route: &str| {
        let caller = crate::harness::ca::id("web");
        let edge = [
            ("direction", "inbound"),
            ("source", caller.as_str()),
            ("destination", "inbound/in"),
            ("route", route),
        ];
        crate::metrics::scrape(&orders).sum("outrider_edge_requests_total", &edge)
    };
    crate::harness::eventually("all are counted", || {
        ended("") == 2.0 && ended("slow") == 1.0 && ended("few") == 2.0 && ended("broken") == 1.0
    })
    .await;
}

#[tokio::test]
async fn a_rule_changes_requests_and_answers_for_whichever_of_its_clusters_it_chooses() {
    let rule = "{matches: [{path_prefix: /cart}], clusters: [{name: v1}, {name: v2}], sticky: {header: x-user}, \
                rewrite: {host: carts.internal, path_prefix: /v2/}, request_headers: {set: [{name: x-tier, value: gold}]}, \
                response_headers: {set: [{name: x-by, value: rule}]}}, {clusters: [{name: orders}]}";
    let shop = Shop::new(&of_orders(rule)).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = shop.client(version).await;
        for user in 0..20 {
            let mut asked = request(Method::GET, "/cart/%37?page=2", body::empty());
            asked.headers_mut().insert("x-user", user.to_string().parse().unwrap());
            let answer = client.send(asked).await.unwrap();
            assert_eq!(
                (answer.status(), &answer.headers()["x-by"]),
                (StatusCode::OK, &"rule".parse().unwrap())
            );
            body::text(answer.into_body()).await;
        }
    }
    let seen: Vec<_> = shop.apps[1..].iter().flat_map(HttpApp::seen).collect();
    assert_eq!(seen.len(), 40);
    assert!(shop.apps[1..].iter().all(|app| app.count() > 0), "{:?}", shop.counts());
    for seen in seen {
        let target = seen.uri.path_and_query().unwrap().as_str();
        assert_eq!((seen.authority(), target), ("carts.internal", "/v2/7?page=2"));
        assert_eq!(seen.header("x-tier"), Some("gold"));
    }
    assert_eq!(get(&mut shop.client(Version::HTTP_2).await, "/cartoon", &[]).await, "orders");
    assert_eq!(shop.apps[0].only().header("x-tier"), None);
}

#[tokio::test]
async fn a_rule_sends_callers_elsewhere_without_any_cluster() {
    let routes = "[{name: old, hosts: [old.example], rules: [{name: moved, matches: [{path_prefix: /a}], \
                  redirect: {host: new.example, path_prefix: /b, status: 301}}]}]";
    let shop = Shop::new(routes).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = shop.client(version).await;
        let mut asked = request(Method::GET, "/a/x/../y?q=1", body::empty());
        asked.headers_mut().insert("host", "old.example:8080".parse().unwrap());
        let answer = client.send(asked).await.unwrap();
        assert_eq!(answer.status(), StatusCode::MOVED_PERMANENTLY);
        assert_eq!(answer.headers()["location"], "http://new.example/b/y?q=1");
        assert!(!answer.headers().contains_key("x-outrider-reason"), "no failure");
        assert_eq!(body::text(answer.into_body()).await, "");
        let (status, ..) = ask(&mut client, Method::GET, "/other", &[("host", "old.example")]).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
    }
    assert_eq!(shop.counts(), [0, 0, 0]);
    let edge = [("route", "old/moved"), ("destination", "outrider/redirect"), ("status_class", "3xx")];
    let ended = || crate::metrics::scrape(&shop.web).sum("outrider_edge_requests_total", &edge);
    crate::harness::eventually("they are counted", || ended() == 2.0).await;
}

#[tokio::test]
async fn a_request_that_names_nobody_is_sent_only_where_the_rule_says_to_whom() {
    let mesh = TestMesh::new();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', cluster: v1}}]\nclusters: [{}]\n\
         routes: [{{name: old, services: [v1], rules: [{{matches: [{{path: /a}}], redirect: {{path: /b}}}}, \
         {{matches: [{{path: /c}}], redirect: {{host: new.example}}}}]}}]",
        TestMesh::cluster("v1", &[crate::harness::app::nobody()], ""),
    );
    let web = mesh.start("web", &yaml).await;
    for (path, status, location) in [("/a", "400", None), ("/c", "302", Some("http://new.example/c"))] {
        let asked = format!("GET {path} HTTP/1.0\r\n\r\n");
        let answer = crate::harness::client::exchange(web.address(), asked.as_bytes()).await;
        let text = String::from_utf8_lossy(&answer).to_lowercase();
        assert_eq!(text.split(' ').nth(1), Some(status), "{text}");
        let found = text.lines().find_map(|line| line.strip_prefix("location: "));
        assert_eq!(found, location, "{text}");
    }
}
