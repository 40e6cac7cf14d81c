//! Listeners come, go and change.

use std::{net::TcpListener, time::Duration};

use http::{Method, StatusCode};
use outrider::app::Rejected;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Bench, DRAIN, Load, callee, web, with_listeners};
use crate::harness::{
    Client, HttpApp, TestMesh,
    app::nobody,
    body,
    client::{call, field, request},
    eventually,
    mesh::reset_by,
    soon,
};

const OUT: &str = "{name: out, listen: '127.0.0.1:0'}";

/// An address of our own that nobody else uses, so that a listener can be told to be at it.
fn free_address() -> std::net::SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn listeners_come_and_go_and_what_is_gone_refuses() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let load = Load::start(bench.web.address());
    for _ in 0..3 {
        let more = free_address();
        let both = format!("{OUT}, {{name: more, listen: '{more}'}}");
        bench.reload(&with_listeners(&both, &endpoints, "")).await.unwrap();
        assert_eq!(bench.web.address_of("more"), more);
        assert_eq!(call(more, Method::GET).await.0, StatusCode::OK);
        bench.reload(&web(&endpoints, "")).await.unwrap();
        eventually("the port refuses", || std::net::TcpStream::connect(more).is_err()).await;
        load.go_on(30).await;
    }
    load.end().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_refuses_the_whole_reload() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    // Without SO_REUSEPORT, so that nobody can share it.
    let owner = TcpListener::bind("127.0.0.1:0").unwrap();
    let (free, taken) = (free_address(), owner.local_addr().unwrap());
    let endpoints = [bench.orders.address()];
    let listeners = format!("{{name: free, listen: '{free}'}}, {{name: taken, listen: '{taken}'}}");
    let yaml = with_listeners(&listeners, &endpoints, "connect_timeout: 9s");
    let refusal = bench.reload(&yaml).await.unwrap_err();
    let Rejected::Listen(_) = &refusal else { panic!("{refusal:?}") };
    let fault = &refusal.faults()[0];
    assert!(fault.path == "listener taken" && fault.problem.contains(&taken.to_string()), "{fault}");
    std::net::TcpStream::connect(free).expect_err("nothing of it is in force");
    assert_eq!(bench.web.app().generation(), 1);
    assert_eq!(call(bench.web.address(), Method::GET).await.0, StatusCode::OK);
    // Once the address is free, the same comes into force.
    drop(owner);
    bench.reload(&yaml).await.unwrap();
    for address in [free, taken] {
        assert_eq!(call(address, Method::GET).await.0, StatusCode::OK);
    }
}

#[tokio::test]
async fn a_kept_connection_of_a_listener_that_goes_is_told_so_before_it_is_closed() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let both = format!("{OUT}, {{name: more, listen: '127.0.0.1:0'}}");
    bench.reload(&with_listeners(&both, &endpoints, "")).await.unwrap();
    let more = bench.web.address_of("more");
    let mut kept = Client::http1(more).await;
    let answer = kept.get("/").await.unwrap();
    assert_eq!(field(&answer, "connection"), None);
    body::text(answer.into_body()).await;
    let mut unused = TcpStream::connect(more).await.unwrap();
    let slow_grace = with_listeners(OUT, &endpoints, "").replace("200ms", "2s");
    bench.reload(&slow_grace).await.unwrap();
    let answer = kept.get("/").await.unwrap();
    assert_eq!((answer.status(), field(&answer, "connection")), (StatusCode::OK, Some("close")));
    assert_eq!(soon("the unused one is closed", unused.read(&mut [0])).await.unwrap(), 0);
}

#[tokio::test]
async fn what_is_in_flight_survives_the_end_of_its_listener_and_of_its_cluster() {
    let mut bench = Bench::new(HttpApp::echo().await).await;
    let endpoints = [bench.orders.address()];
    let (http1, http2) = (body::channel(), body::channel());
    let mut first = Client::http1(bench.web.address()).await;
    let mut second = Client::http2(bench.web.address()).await;
    let answers = [
        first.send(request(Method::POST, "/", http1.1)).await.unwrap(),
        second.send(request(Method::POST, "/", http2.1)).await.unwrap(),
    ];
    let gone = "outbound: [{name: other, listen: '127.0.0.1:0'}]\ndrain: {idle_grace: 0s, deadline: 1s}";
    bench.reload(gone).await.unwrap();
    let out = bench.web.address_of("other");
    assert_eq!(call(out, Method::GET).await.0, StatusCode::NOT_FOUND, "there is no cluster");
    // Longer than a drain would leave it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    for sender in [http1.0, http2.0] {
        let word = hyper::body::Frame::data(bytes::Bytes::from_static(b"still here"));
        sender.send(Ok(word)).await.unwrap();
    }
    for answer in answers {
        let text = soon("the rest of the answer", body::text(answer.into_body())).await;
        assert_eq!(text, "still here");
    }
    bench.reload(&web(&endpoints, "")).await.unwrap();
    assert_eq!(call(bench.web.address_of("out"), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_listener_changes_its_name_and_kind_at_its_address_and_loses_no_connection() {
    let mut bench = Bench::new(HttpApp::named("orders").await).await;
    let endpoints = [bench.orders.address()];
    let address = free_address();
    let at = |name: &str| format!("{{name: {name}, listen: '{address}'}}");
    bench.reload(&with_listeners(&at("one"), &endpoints, "")).await.unwrap();
    let load = Load::start(address);
    for name in ["two", "three", "four", "five"] {
        load.go_on(60).await;
        bench.reload(&with_listeners(&at(name), &endpoints, "")).await.unwrap();
    }
    load.go_on(60).await;
    load.end().await;
    let tcp = format!("{{name: five, listen: '{address}', protocol: tcp, cluster: bytes}}");
    let cluster = TestMesh::cluster("bytes", &[nobody()], "");
    bench.reload(&format!("outbound: [{tcp}]\nclusters: [{cluster}]\n{DRAIN}")).await.unwrap();
    // It carries bytes, to nobody.
    reset_by(address).await;
}

#[tokio::test]
async fn another_app_and_another_default_cluster_hold_for_the_next_request_of_a_kept_connection() {
    let mut bench = Bench::new(HttpApp::named("old").await).await;
    let other = HttpApp::named("new").await;
    let endpoints = [bench.orders.address()];
    let mut client = Client::http2(bench.web.address()).await;
    let mut ask = async || {
        let response = client.get("/").await.unwrap();
        body::text(response.into_body()).await
    };
    assert_eq!(ask().await, "old");
    bench.mesh.reload(&mut bench.orders, "orders", &callee(other.address(), "")).await.unwrap();
    assert_eq!(ask().await, "new");
    // Nothing is routed by authority any more; the listener's own cluster takes it.
    let default = "{name: out, listen: '127.0.0.1:0', cluster: orders}";
    bench.reload(&with_listeners(default, &endpoints, "authorities: []")).await.unwrap();
    assert_eq!(ask().await, "new");
}

#[tokio::test]
async fn an_opaque_stream_survives_the_end_of_its_listeners() {
    let app = crate::harness::TcpApp::start(async |mut stream| {
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await;
    let mesh = TestMesh::new();
    let mut orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let mut web = mesh.tcp_caller(&[orders.address()], "").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    let mut echo = async |word: &[u8]| {
        stream.write_all(word).await.unwrap();
        let mut back = vec![0; word.len()];
        soon("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, word);
    };
    echo(b"before").await;
    let gone = "outbound: [{name: other, listen: '127.0.0.1:0'}]\ndrain: {idle_grace: 0s, deadline: 1s}";
    mesh.reload(&mut web, "web", gone).await.unwrap();
    mesh.reload(&mut orders, "orders", gone).await.unwrap();
    // Longer than a drain would leave it.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    echo(b"after").await;
    assert_eq!(app.connections(), 1);
}
