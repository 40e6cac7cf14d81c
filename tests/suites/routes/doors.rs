//! By whatever way a request comes, and whatever it carries: gRPC, WebSocket, connections that the kernel brings.

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use outrider::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Shop, ask, of_orders, yaml};
use crate::harness::{Client, HttpApp, TcpApp, TestMesh, client::read_head, soon, told::ToldNet};

#[tokio::test]
async fn calls_of_grpc_go_by_service_and_method() {
    let shop = Shop::new(&of_orders(
        "{matches: [{grpc: shop.Orders}], clusters: [{name: v1}]}, \
         {matches: [{grpc: shop.Orders/Get}], clusters: [{name: v2}]}, {clusters: [{name: orders}]}",
    ))
    .await;
    let grpc = ("content-type", "application/grpc+proto");
    let mut client = shop.client(Version::HTTP_2).await;
    for (path, fields, service) in [
        ("/shop.Orders/Get", &[grpc][..], "v2"),
        ("/shop.Orders/Put", &[grpc], "v1"),
        ("/shop.OrdersTwo/Get", &[grpc], "orders"),
        ("/shop.Orders/Get", &[("content-type", "application/json")], "orders"),
    ] {
        let (status, text, _) = ask(&mut client, Method::POST, path, fields).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, service), "{path} {fields:?}");
    }
}

/// An app that switches to WebSocket and says its name.
async fn chat(name: &'static str) -> TcpApp {
    TcpApp::start(move |mut stream: TcpStream| async move {
        let (head, _) = read_head(&mut stream).await;
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        if let Some(key) = key {
            let proof = outrider::headers::websocket::accept(&key.parse().unwrap());
            let proof = proof.to_str().unwrap();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
                 sec-websocket-accept: {proof}\r\n\r\n{name}"
            );
            drop(stream.write_all(answer.as_bytes()).await);
            // Until the other side ends.
            drop(stream.read_to_end(&mut Vec::new()).await);
        }
    })
    .await
}

#[tokio::test]
async fn a_web_socket_goes_by_the_rule_for_a_get_of_its_path() {
    let (plain, other) = (chat("plain").await, chat("other").await);
    let mesh = TestMesh::new();
    let first = mesh.callee("v1", plain.address(), "").await;
    let second = mesh.callee("v2", other.address(), "").await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}, {}]\nroutes: [{{name: chat, hosts: [orders], rules: [\
         {{matches: [{{path: /chat, methods: [GET]}}], clusters: [{{name: v2}}]}}, {{clusters: [{{name: v1}}]}}]}}]",
        TestMesh::cluster("v1", &[first.address()], ""),
        TestMesh::cluster("v2", &[second.address()], ""),
    );
    let web = mesh.start("web", &yaml).await;
    for (path, name) in [("/chat", "other"), ("/elsewhere", "plain")] {
        let mut stream = TcpStream::connect(web.address()).await.unwrap();
        let asked = format!(
            "GET {path} HTTP/1.1\r\nhost: orders\r\nupgrade: websocket\r\nconnection: upgrade\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(asked.as_bytes()).await.unwrap();
        let (head, _) = soon("the answer", read_head(&mut stream)).await;
        assert!(head.starts_with("HTTP/1.1 101"), "{head}");
        let mut said = vec![0; name.len()];
        soon("it speaks", stream.read_exact(&mut said)).await.unwrap();
        assert_eq!(said, name.as_bytes(), "{path}");
    }
}

/// Where a request comes from that was brought by a connection to that address.
async fn brought(net: &ToldNet, at: SocketAddr, to: &str, host: &str, path: &str) -> super::Came {
    let stream = net.dial(at, to.parse().unwrap()).await.unwrap();
    let mut client = Client::over(stream, Version::HTTP_11).await;
    soon("the answer", ask(&mut client, Method::GET, path, &[("host", host)])).await
}

#[tokio::test]
async fn what_the_kernel_brings_goes_by_the_service_that_was_dialled() {
    let shop = Shop::new("[]").await;
    let routes = "[{name: shop, services: [orders], rules: [{matches: [{path_prefix: /new}], clusters: [{name: v2}]}, \
                  {matches: [{path_prefix: /old}], clusters: [{name: orders}]}]}, \
                  {name: hosts, hosts: ['*.shop.example'], rules: [{clusters: [{name: v1}]}]}]";
    let keys = "addresses: ['192.0.2.1:80']";
    let yaml = yaml(&shop.callees, "", routes)
        .replacen(
            "outbound: [{name: out, listen: '127.0.0.1:0'}]",
            "intercept: {outbound: {unknown: deny}}",
            1,
        )
        .replacen("{name: orders,", &format!("{{name: orders, {keys},"), 1);
    let net = ToldNet::default();
    let web = shop.mesh.start_in(net.clone(), Clock::system(), "web", &yaml).await;
    let at = web.address_of("intercept-outbound");
    let endpoint = shop.callees[0].address().to_string();
    for (to, host, path, service) in [
        // Whatever host it names: whom it dialled counts.
        ("192.0.2.1:80", "orders", "/new/1", "v2"),
        ("192.0.2.1:80", "v1", "/new/1", "v2"),
        ("192.0.2.1:80", "a.shop.example", "/old", "orders"),
        // Who dials an endpoint has chosen.
        (endpoint.as_str(), "orders", "/new/1", "orders"),
        // Nobody is known there: the host counts.
        ("192.0.2.9:80", "a.shop.example", "/any", "v1"),
        ("192.0.2.9:80", "orders", "/new", "v2"),
    ] {
        let (status, text, reason) = brought(&net, at, to, host, path).await;
        assert_eq!((status, text.as_str()), (StatusCode::OK, service), "{to} {host} {path} {reason:?}");
    }
    for (to, host, path, reason) in [
        ("192.0.2.1:80", "orders", "/", "no_rule"),
        ("192.0.2.9:80", "orders", "/", "no_rule"),
        ("192.0.2.9:80", "shop.example", "/", "no_route"),
    ] {
        let (status, _, told) = brought(&net, at, to, host, path).await;
        assert_eq!((status, told.as_deref()), (StatusCode::NOT_FOUND, Some(reason)), "{to} {host} {path}");
    }
}

#[tokio::test]
async fn a_destination_that_nobody_knows_and_no_rule_names_is_passed_on_as_ever() {
    let (shop, far) = (Shop::new("[]").await, HttpApp::named("far").await);
    let routes = "[{name: hosts, hosts: [a.example], rules: [{clusters: [{name: v1}]}]}]";
    let yaml = yaml(&shop.callees, "", routes).replacen(
        "outbound: [{name: out, listen: '127.0.0.1:0'}]",
        "intercept: {outbound: {unknown: passthrough}}",
        1,
    );
    let net = ToldNet::default();
    let web = shop.mesh.start_in(net.clone(), Clock::system(), "web", &yaml).await;
    let (at, to) = (web.address_of("intercept-outbound"), far.address().to_string());
    assert_eq!(brought(&net, at, &to, "a.example", "/").await.1, "v1");
    assert_eq!(brought(&net, at, &to, "b.example", "/").await.1, "far");
}
