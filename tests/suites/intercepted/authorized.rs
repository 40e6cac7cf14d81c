//! Authorization rules at ports that the kernel brings connections to.

use std::sync::atomic::Ordering;

use http::{StatusCode, Version};
use outrider::model::flag::ResponseFlag;

use super::{LISTENER, PERMISSIVE, Pod, port, ports};
use crate::{
    frames::{Frame, OPAQUE, UNDECIDED, expect, send},
    harness::{HttpApp, TcpApp, client::field, peer::ALPN_TCP},
};

const WEB: &str = "spiffe://test.outrider/web";

fn with_rules(intercept: &str, rules: &str) -> String {
    format!("{intercept}\nauthorization: {{rules: [{rules}]}}")
}

fn verdicts(pod: &Pod) -> [u64; 3] {
    pod.orders.listener(LISTENER).authorized.each_ref().map(|count| count.load(Ordering::Relaxed))
}

#[tokio::test]
async fn the_port_of_a_rule_is_the_one_that_was_dialled() {
    let (first, second) = (HttpApp::named("first").await, HttpApp::named("second").await);
    let rule = format!("{{name: a, from: ['{WEB}'], ports: [{}]}}", first.address().port());
    let pod = Pod::with(&with_rules("intercept: {}", &rule)).await;
    for (app, expected) in [(&first, StatusCode::OK), (&second, StatusCode::FORBIDDEN)] {
        let answer = pod.peer(app.address(), "web").await.unwrap().get("/").await.unwrap();
        assert_eq!(answer.status(), expected);
    }
    assert_eq!((first.count(), second.count(), verdicts(&pod)), (1, 0, [1, 1, 0]));
}

#[tokio::test]
async fn a_stream_passes_only_by_a_rule_that_says_nothing_of_requests() {
    let app = TcpApp::echo().await;
    let about_requests = format!("{{name: requests, from: ['{WEB}'], methods: [GET]}}");
    let mut pod = Pod::with(&with_rules("intercept: {}", &about_requests)).await;
    let mut stream = pod.secure(pod.dial(app.address()).await, "web", ALPN_TCP).await.unwrap();
    // It may be requests: what it is says what comes on it.
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(b"hello\0")]).await;
    expect(&mut stream, &[Frame::refused("not_authorized")]).await;
    assert_eq!((app.connections(), verdicts(&pod)), (0, [0, 1, 0]));
    send(&mut stream, &[Frame::Cancel]).await;
    expect(&mut stream, &[Frame::Fin]).await;
    let mut undecided = pod.secure(pod.dial(app.address()).await, "web", ALPN_TCP).await.unwrap();
    send(&mut undecided, &[Frame::open(UNDECIDED)]).await;
    expect(&mut undecided, &[Frame::Accepted]).await;
    send(&mut undecided, &[Frame::data(b"hello\0")]).await;
    expect(&mut undecided, &[Frame::Rst]).await;
    assert_eq!((app.connections(), verdicts(&pod)), (0, [0, 2, 0]));
    let flags = &pod.orders.listener(LISTENER).unrouted[ResponseFlag::RBAC as usize];
    assert_eq!(flags.load(Ordering::Relaxed), 2);
    let both = format!("{about_requests}, {{name: streams, from: ['{WEB}']}}");
    pod.reload(&with_rules("intercept: {}", &both)).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(b"hello\0")]).await;
    expect(&mut stream, &[Frame::Accepted, Frame::data(b"hello\0")]).await;
    assert_eq!(verdicts(&pod), [1, 2, 0]);
}

#[tokio::test]
async fn requests_in_a_stream_are_judged_as_requests() {
    let app = HttpApp::named("orders").await;
    let http = ports(&[port(app.address(), "protocol: http")]);
    let rule = format!("{{name: a, from: ['{WEB}'], paths: [/items]}}");
    let pod = Pod::with(&with_rules(&http, &rule)).await;
    for (path, expected) in
        [("/items", "HTTP/1.1 200 "), ("/admin", "HTTP/1.1 403 "), ("/x/../admin", "HTTP/1.1 403 ")]
    {
        let mut stream = pod.secure(pod.dial(app.address()).await, "web", ALPN_TCP).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n");
        send(&mut stream, &[Frame::open(OPAQUE), Frame::data(request.as_bytes())]).await;
        expect(&mut stream, &[Frame::Accepted]).await;
        match crate::frames::next(&mut stream).await {
            Some(Frame::Data(bytes)) => {
                let answer = String::from_utf8_lossy(&bytes).into_owned();
                assert!(answer.starts_with(expected), "{path}: {answer}");
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((app.count(), verdicts(&pod)), (1, [1, 2, 0]));
}

#[tokio::test]
async fn whoever_has_no_identity_is_judged_by_the_exception_alone() {
    let app = HttpApp::named("orders").await;
    let permissive = ports(&[port(app.address(), PERMISSIVE)]);
    let pod = Pod::with(&with_rules(&permissive, "")).await;
    let mut plain = pod.client(app.address(), Version::HTTP_11).await;
    assert_eq!(plain.get("/a;b").await.unwrap().status(), StatusCode::OK);
    let denied = pod.peer(app.address(), "web").await.unwrap().get("/").await.unwrap();
    assert_eq!(denied.status(), StatusCode::FORBIDDEN);
    assert_eq!(field(&denied, "x-outrider-reason"), Some("not_authorized"));
    let probes = ports(&[port(app.address(), "probes: [/healthz]")]);
    let pod = Pod::with(&with_rules(&probes, "")).await;
    let mut plain = pod.client(app.address(), Version::HTTP_11).await;
    assert_eq!(plain.get("/healthz").await.unwrap().status(), StatusCode::OK);
    let refused = plain.get("/").await.unwrap();
    assert_eq!(field(&refused, "x-outrider-reason"), Some("not_allowed"));
    assert_eq!(verdicts(&pod), [0; 3]);
}
