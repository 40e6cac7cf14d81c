//! Exceptions that end while they are used.

use std::time::{Duration, SystemTime};

use http::{StatusCode, Version};
use outrider::{clock::Clock, model::runtime::Refusal};
use tokio::io::AsyncWriteExt;

use super::{PERMISSIVE, Pod, is_reset, port, ports, talk};
use crate::harness::{
    HttpApp, TcpApp, body,
    client::{self, field},
    eventually, soon,
};

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_reload_takes_an_exception_away_from_connections_that_came_by_it() {
    let (http, tcp) = (HttpApp::named("orders").await, TcpApp::echo().await);
    let of = |keys: &str| ports(&[port(http.address(), keys), port(tcp.address(), keys)]);
    let mut pod = Pod::with(&of(PERMISSIVE)).await;
    let mut client = pod.client(http.address(), Version::HTTP_11).await;
    let response = client.get("/orders").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "orders");
    let mut stream = pod.dial(tcp.address()).await;
    talk(&mut stream, b"\0").await;

    pod.reload(&of("probes: [/healthz]")).await;
    let response = client.get("/healthz").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "orders", "what is still permitted");
    let response = client.get("/orders").await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(field(&response, "x-outrider-reason"), Some("not_allowed"));
    is_reset(stream).await;
    let mut stream = pod.dial(tcp.address()).await;
    stream.write_all(b"\0").await.unwrap();
    is_reset(stream).await;
    pod.refused(1, Refusal::Plaintext).await;
}

#[tokio::test]
async fn a_connection_that_has_left_http_does_not_outlive_its_exception() {
    let app = TcpApp::start(async |mut stream| {
        drop(client::read_head(&mut stream).await);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await;
    let of = |keys: &str| ports(&[port(app.address(), keys)]);
    let mut pod = Pod::with(&of(PERMISSIVE)).await;
    let mut stream = pod.dial(app.address()).await;
    let wish = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(wish).await.unwrap();
    let (head, _is_whole) = soon("an answer", client::read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    talk(&mut stream, b"on and on").await;
    pod.reload(&of("probes: [/healthz]")).await;
    drop(super::ending(&mut stream).await);
}

#[tokio::test]
async fn an_exception_of_another_port_is_none_of_this_one() {
    let (first, second) = (TcpApp::echo().await, TcpApp::echo().await);
    let pod =
        Pod::with(&ports(&[port(first.address(), PERMISSIVE), port(second.address(), "probes: [/]")])).await;
    talk(&mut pod.dial(first.address()).await, b"\0").await;
    let mut stream = pod.dial(second.address()).await;
    stream.write_all(b"\0").await.unwrap();
    is_reset(stream).await;
    assert_eq!(second.connections(), 0);
}

#[tokio::test]
async fn when_the_day_begins_plaintext_is_over() {
    let (http, tcp) = (HttpApp::named("orders").await, TcpApp::echo().await);
    // Tomorrow, in UTC, and a clock that is just before it.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let tomorrow = SystemTime::UNIX_EPOCH + DAY * u32::try_from(now.as_secs() / DAY.as_secs() + 1).unwrap();
    let date = time::OffsetDateTime::from(tomorrow).date();
    let keys = format!("plaintext: permissive, plaintext_until: {date}");
    let clock = Clock::simulated(tomorrow - Duration::from_secs(3), 1);
    let pod =
        Pod::at(clock.clone(), &ports(&[port(http.address(), &keys), port(tcp.address(), &keys)])).await;
    let mut client = pod.client(http.address(), Version::HTTP_11).await;
    let mut stream = pod.dial(tcp.address()).await;
    if clock.wall() < tomorrow - Duration::from_secs(1) {
        let response = client.get("/").await.unwrap();
        assert_eq!(body::text(response.into_body()).await, "orders");
        talk(&mut stream, b"\0").await;
    }
    eventually("the day has begun", || clock.wall() >= tomorrow).await;
    is_reset(stream).await;
    let mut stream = pod.dial(tcp.address()).await;
    stream.write_all(b"\0").await.unwrap();
    drop(super::ending(&mut stream).await);
    match client.get("/").await {
        Ok(response) => assert_eq!(response.status(), StatusCode::FORBIDDEN),
        Err(_closed) => panic!("the connection is closed only after an answer"),
    }
    pod.refused(1, Refusal::Plaintext).await;
}
