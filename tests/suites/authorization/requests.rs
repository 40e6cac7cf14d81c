//! Requests, from a caller's app through both sidecars or from a peer that is played here.

use std::sync::atomic::Ordering;

use http::{Method, StatusCode, Version, header};
use outrider::model::flag::ResponseFlag;

use super::{Bench, WEB, verdicts, web_may};
use crate::harness::{
    Client, HttpApp, TestMesh, body,
    ca::id,
    client::{field, request},
};

#[tokio::test]
async fn what_no_rule_fits_is_denied_and_its_connection_goes_on() {
    let bench = Bench::new(&web_may("hosts: [orders], methods: [GET], path_prefixes: [/items]")).await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]",
        TestMesh::cluster("orders", &[bench.orders.address()], ""),
    );
    let web = bench.mesh.start_as("web", &bench.mesh.ca.leaf(WEB), &yaml).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let mut client = Client::connect(web.address(), version).await;
        for (method, path, may) in [
            (Method::GET, "/items/7", true),
            (Method::POST, "/items/7", false),
            (Method::GET, "/items?of=/admin", true),
            (Method::GET, "/itemsold", false),
            (Method::GET, "/admin?of=/items", false),
            (Method::GET, "/items", true),
        ] {
            let before = bench.app.count();
            let answer = client.send(request(method.clone(), path, body::empty())).await.unwrap();
            let expected = if may { StatusCode::OK } else { StatusCode::FORBIDDEN };
            assert_eq!(answer.status(), expected, "{version:?} {method} {path}");
            assert_eq!(bench.app.count() - before, usize::from(may), "what the app saw of {method} {path}");
            let reason = field(&answer, "x-outrider-reason").map(str::to_owned);
            assert_eq!(reason.as_deref(), (!may).then_some("not_authorized"));
            drop(body::text(answer.into_body()).await);
        }
    }
    assert_eq!(bench.verdicts(), [6, 6, 0]);
    assert_eq!(web.retries(), 0, "a denial is repeated nowhere");
    assert_eq!(
        bench.orders.listener("in").accepted.load(Ordering::Relaxed),
        1,
        "one connection all the time"
    );
    let unrouted = &bench.orders.listener("in").unrouted[ResponseFlag::RBAC as usize];
    assert_eq!(unrouted.load(Ordering::Relaxed), 6);
}

#[tokio::test]
async fn a_host_is_compared_whatever_its_spelling() {
    let bench = Bench::new(&web_may("hosts: [orders, 'carts:80']")).await;
    let mut web = bench.peer(WEB).await;
    for (host, may) in [
        ("orders", true),
        ("ORDERS", true),
        ("orders.", true),
        ("orders:8080", true),
        ("carts:80", true),
        ("carts", false),
        ("carts:81", false),
        ("orders.evil", false),
        ("admin", false),
    ] {
        let mut asks = request(Method::GET, "/", body::empty());
        asks.headers_mut().insert(header::HOST, host.parse().unwrap());
        let status = web.send(asks).await.unwrap().status();
        assert_eq!(status, if may { StatusCode::OK } else { StatusCode::FORBIDDEN }, "{host}");
    }
}

#[tokio::test]
async fn without_a_rule_everything_is_denied_and_without_the_section_nothing() {
    for (authorization, expected) in [("{rules: []}", StatusCode::FORBIDDEN), ("{}", StatusCode::FORBIDDEN)] {
        let bench = Bench::new(authorization).await;
        assert_eq!(bench.peer(WEB).await.get("/").await.unwrap().status(), expected);
        assert_eq!((bench.app.count(), bench.verdicts()), (0, [0, 1, 0]));
    }
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    assert_eq!(Client::http1(web.address()).await.get("/").await.unwrap().status(), StatusCode::OK);
    assert_eq!(verdicts(&orders, "in"), [0; 3], "nobody was asked");
}

#[tokio::test]
async fn callers_are_known_by_the_parts_of_their_ids() {
    let rules =
        "{rules: [{name: shop, from_namespaces: [shop]}, {name: one, from: ['spiffe://test.outrider/one']}]}";
    let mut bench = Bench::new(rules).await;
    for (caller, rule) in [
        (WEB, "shop"),
        ("ns/shop/sa/any", "shop"),
        ("one", "one"),
        ("one/more", "denied"),
        ("ns/shopping/sa/web", "denied"),
        ("ns/sho/sa/web", "denied"),
        ("ns/shop/sa/web/more", "denied"),
        ("x/ns/shop/sa/web", "denied"),
        ("shop", "denied"),
    ] {
        let status = bench.peer(caller).await.get("/").await.unwrap().status();
        let expected = if rule == "denied" { StatusCode::FORBIDDEN } else { StatusCode::OK };
        assert_eq!(status, expected, "{caller}");
        let trail = bench.trail().await;
        assert_eq!(trail.authorization.as_deref(), Some(rule), "{caller}");
        let (flag, reason) = (trail.flag, trail.reason.as_deref());
        let is_denied = (flag, reason) == (Some(ResponseFlag::RBAC), Some("not_authorized"));
        assert_eq!(is_denied, rule == "denied", "{flag:?} {reason:?}");
        assert!(!trail.is_failed(), "whoever may not call has not been failed");
    }
}

#[tokio::test]
async fn the_list_of_callers_and_the_rules_must_both_agree() {
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let yaml = format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}', allow: ['{}', '{}']}}]\n\
         authorization: {{rules: [{{name: a, from: ['{}', '{}']}}]}}",
        app.address(),
        id("listed"),
        id("both"),
        id("ruled"),
        id("both"),
    );
    let orders = mesh.start("orders", &yaml).await;
    for (caller, expected) in [("both", Some(200)), ("listed", Some(403)), ("ruled", None)] {
        let yaml = format!(
            "outbound: [{{listen: '127.0.0.1:0'}}]\nclusters: [{}]",
            TestMesh::cluster("orders", &[orders.address()], "retry: {max_retries: 0}, queue_timeout: 0s"),
        );
        let sidecar = mesh.start(caller, &yaml).await;
        let answer = Client::http1(sidecar.address()).await.get("/").await.unwrap();
        let status = answer.status().as_u16();
        assert_eq!(status, expected.unwrap_or(503), "{caller}: {answer:?}");
    }
    assert_eq!((app.count(), verdicts(&orders, "in")), (1, [1, 1, 0]));
}

#[tokio::test]
async fn a_rule_is_about_its_ports_of_the_app() {
    let (mesh, shop, admin) = (TestMesh::new(), HttpApp::named("shop").await, HttpApp::named("admin").await);
    let yaml = format!(
        "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}, {{name: admin, listen: '127.0.0.1:0', app: '{}'}}]\n\
         authorization: {{rules: [{{name: a, from: ['{}'], ports: [{}], paths: [/a]}}]}}",
        shop.address(),
        admin.address(),
        id("web"),
        shop.address().port(),
    );
    let orders = mesh.start("orders", &yaml).await;
    for (listener, path, expected) in [
        ("in", "/a", StatusCode::OK),
        ("admin", "/a", StatusCode::FORBIDDEN),
        // Paths are looked at where a rule does.
        ("in", "/a;b", StatusCode::BAD_REQUEST),
        ("admin", "/a;b", StatusCode::FORBIDDEN),
    ] {
        let web = mesh.caller(&[orders.address_of(listener)], "").await;
        let status = Client::http1(web.address()).await.get(path).await.unwrap().status();
        assert_eq!(status, expected, "{listener} {path}");
    }
    assert_eq!((shop.count(), admin.count()), (1, 0));
}
