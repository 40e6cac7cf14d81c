//! Authorization rules that change under what is under way: each kind of it, through both sidecars.

use std::{io, net::SocketAddr};

use http::{HeaderValue, Method, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use outrider::headers::websocket::accept;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    Bench, Long, TWO_LOOKS,
    streams::{echoes, telling},
};
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh, body,
    ca::id,
    client::{read_head, request},
    eventually, soon, within,
};

/// `orders` with a rule for each of these callers.
fn ruled(app: SocketAddr, listener: &str, rules: &[(&str, &str)]) -> String {
    let rules: Vec<String> =
        rules.iter().map(|(who, keys)| format!("{{name: {who}, from: ['{}'], {keys}}}", id(who))).collect();
    with(app, listener, &format!("{{rules: [{}]}}", rules.join(", ")))
}

fn with(app: SocketAddr, listener: &str, section: &str) -> String {
    let section = if section.is_empty() { String::new() } else { format!("authorization: {section}") };
    format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{app}', {listener}}}]\n{section}")
}

/// A caller's sidecar.
async fn caller(bench: &Bench, service: &str, listener: &str) -> Sidecar {
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', {listener}}}]\nclusters: [{}]",
        TestMesh::cluster("orders", &[bench.orders.address()], ""),
    );
    bench.mesh.start(service, &yaml).await
}

/// An app that takes every WebSocket, and echoes.
async fn talking() -> TcpApp {
    TcpApp::start(async |mut stream| {
        let (head, _is_whole) = read_head(&mut stream).await;
        let key = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("sec-websocket-key").then_some(value)
        });
        let accepted = accept(&HeaderValue::from_str(key.unwrap()).unwrap());
        let switch = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            accepted.to_str().unwrap()
        );
        stream.write_all(switch.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await
}

async fn websocket(caller: &Sidecar, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(caller.address()).await.unwrap();
    let wish = format!(
        "GET {path} HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(wish.as_bytes()).await.unwrap();
    let (head, _is_whole) = soon("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echoes(&mut stream).await;
    stream
}

async fn ends(stream: &mut TcpStream) {
    let ended = soon("it ends", stream.read(&mut [0])).await;
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
}

#[tokio::test]
async fn a_websocket_that_no_rule_allows_any_more_is_cut_and_others_go_on() {
    let app = talking().await;
    let rules = |of_web| ruled(app.address(), "", &[("web", of_web), ("shop", "methods: [GET]")]);
    let mut bench = Bench::new(app.address(), &rules("path_prefixes: [/a, /b]")).await;
    let (web, shop) = (caller(&bench, "web", "").await, caller(&bench, "shop", "").await);
    // Those of one caller are streams of one connection.
    let mut of_a = websocket(&web, "/a/1").await;
    let mut of_b = websocket(&web, "/b/1").await;
    let mut of_shop = websocket(&shop, "/a/1").await;
    bench.reload(&rules("path_prefixes: [/b]")).await;
    ends(&mut of_a).await;
    eventually("it is counted", || bench.ended() == [0, 1, 0]).await;
    assert!(!within(TWO_LOOKS, || bench.ended() != [0, 1, 0]).await, "{:?}", bench.ended());
    echoes(&mut of_b).await;
    echoes(&mut of_shop).await;
    // Rules about what no WebSocket is.
    bench.reload(&rules("path_prefixes: [/b], methods: [POST]")).await;
    ends(&mut of_b).await;
    echoes(&mut of_shop).await;
}

#[tokio::test]
async fn a_call_of_grpc_that_no_rule_allows_any_more_ends_with_its_status_and_its_neighbour_goes_on() {
    let app = HttpApp::start(async |request: http::Request<Incoming>| {
        let answer = Response::builder().header("content-type", "application/grpc");
        Ok(answer.body(body::forward(request.into_body())).unwrap())
    })
    .await;
    let rules = |calls: &str| ruled(app.address(), "", &[("web", &format!("grpc: [{calls}]"))]);
    let mut bench = Bench::new(app.address(), &rules("shop.Orders/Watch, shop.Carts")).await;
    let web = caller(&bench, "web", "").await;
    let mut client = Client::http2(web.address()).await;
    let mut calls = Vec::new();
    for path in ["/shop.Orders/Watch", "/shop.Carts/Watch"] {
        let (sender, endless) = body::channel();
        let mut call = request(Method::POST, path, endless);
        call.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
        let mut heard = soon("a head", client.send(call)).await.unwrap().into_body();
        sender.send(Ok(Frame::data("hello".into()))).await.unwrap();
        let first = soon("the echo", heard.frame()).await.unwrap().unwrap();
        assert_eq!(first.into_data().unwrap(), "hello");
        calls.push((sender, heard));
    }
    bench.reload(&rules("shop.Carts")).await;
    let frame = soon("trailers", calls[0].1.frame()).await.unwrap().unwrap();
    let trailers = frame.into_trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"7".parse().unwrap(), &"no_longer_allowed".parse().unwrap())
    );
    assert!(!within(TWO_LOOKS, || bench.ended() != [0, 1, 0]).await, "{:?}", bench.ended());
    let (sender, heard) = &mut calls[1];
    sender.send(Ok(Frame::data("still".into()))).await.unwrap();
    let more = soon("the echo", heard.frame()).await.unwrap().unwrap();
    assert_eq!(more.into_data().unwrap(), "still");
}

#[tokio::test]
async fn a_tcp_stream_that_no_rule_allows_any_more_is_reset_at_both_ends_and_others_go_on() {
    for protocol in ["tcp", "detect"] {
        let (app, mut told) = telling().await;
        let keys = format!("protocol: {protocol}");
        let rules = |who: &[(&str, &str)]| ruled(app.address(), &keys, who);
        let mut bench = Bench::new(app.address(), &rules(&[("web", ""), ("shop", "")])).await;
        let mut streams = Vec::new();
        let opaque = "protocol: tcp, cluster: orders";
        let callers = [caller(&bench, "web", opaque).await, caller(&bench, "shop", opaque).await];
        for caller in &callers {
            let mut stream = TcpStream::connect(caller.address()).await.unwrap();
            echoes(&mut stream).await;
            streams.push(stream);
        }
        bench.reload(&rules(&[("shop", "")])).await;
        let ended = soon("it ends", streams[0].read(&mut [0])).await;
        assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "{protocol}");
        assert_eq!(soon("the app hears of it", told.recv()).await, Some(Err(io::ErrorKind::ConnectionReset)));
        assert_eq!(bench.ended()[2], 1, "{protocol}");
        assert!(!within(TWO_LOOKS, || bench.ended()[2] != 1).await, "{:?}", bench.ended());
        echoes(&mut streams[1]).await;
        // Nor does it come back.
        let mut again = TcpStream::connect(callers[0].address()).await.unwrap();
        drop(again.write_all(b"on").await);
        ends(&mut again).await;
        echoes(&mut streams[1]).await;
    }
}

#[tokio::test]
async fn two_answers_on_one_connection_are_two_questions() {
    let app = HttpApp::echo().await;
    let rules = |paths: &str| ruled(app.address(), "", &[("web", &format!("path_prefixes: [{paths}]"))]);
    let mut bench = Bench::new(app.address(), &rules("/a, /b")).await;
    let mut client = bench.client("web", Version::HTTP_2).await;
    let (of_a, mut of_b) = (Long::on(&mut client, "/a").await, Long::on(&mut client, "/x/../b").await);
    bench.reload(&rules("/b")).await;
    of_a.breaks_off().await;
    of_b.goes_on().await;
    assert!(!within(TWO_LOOKS, || bench.ended() != [0, 1, 0]).await, "{:?}", bench.ended());
    of_b.goes_on().await;
    assert_eq!(client.get("/b").await.unwrap().status(), 200, "the connection stays");
}

#[tokio::test]
async fn a_path_in_its_one_spelling_is_clear_to_every_rule() {
    let app = HttpApp::echo().await;
    let rules =
        |more: &str| ruled(app.address(), "", &[("web", &format!("path_prefixes: [/.well-known{more}]"))]);
    let mut bench = Bench::new(app.address(), &rules("")).await;
    let mut client = bench.client("web", Version::HTTP_2).await;
    let mut long = Long::on(&mut client, "/.well-known/%c3%a4%3f/~a").await;
    bench.reload(&rules(", /more")).await;
    assert!(!within(TWO_LOOKS, || bench.ended() != [0; 3]).await, "{:?}", bench.ended());
    long.goes_on().await;
}

#[tokio::test]
async fn what_began_is_judged_by_what_was_kept_of_it() {
    let web = |keys: &str| format!("{{rules: [{{name: a, from: ['{}'], {keys}}}]}}", id("web"));
    let (audited, nothing) = ("{mode: audit, rules: []}".to_owned(), "{rules: []}".to_owned());
    let (without, by_domain) =
        (String::new(), "{rules: [{name: a, from_trust_domains: [test.outrider]}]}".to_owned());
    for version in [Version::HTTP_2, Version::HTTP_11] {
        for (before, after, ends) in [
            (&without, &nothing, true),
            (&audited, &nothing, true),
            (&web("headers: [{name: x-team, value: a}]"), &web("headers: [{name: x-team, value: b}]"), true),
            // Nobody had looked at that field when it came.
            (&web("headers: [{name: x-team, value: a}]"), &web("headers: [{name: x-there}]"), true),
            // It went to the app as it came, which some apps take for /admin.
            (&web("methods: [POST]"), &web("path_prefixes: [/items]"), true),
            (
                &web("headers: [{name: x-team}]"),
                &web("headers: [{name: x-team, value: a}], hosts: [orders]"),
                false,
            ),
            (&web("methods: [POST, GET]"), &by_domain, false),
            (&web("methods: [POST]"), &without, false),
        ] {
            let app = HttpApp::echo().await;
            let mut bench = Bench::new(app.address(), &with(app.address(), "", before)).await;
            let mut client = bench.client("web", version).await;
            let mut long =
                Long::with(&mut client, "/items;x/admin", &[("x-team", "a"), ("x-there", "1")]).await;
            bench.reload(&with(app.address(), "", after)).await;
            if ends {
                long.breaks_off().await;
                assert_eq!(bench.ended(), [0, 1, 0], "{before} {after}");
            } else {
                assert!(!within(TWO_LOOKS, || bench.ended() != [0; 3]).await, "{before} {after}");
                long.goes_on().await;
            }
        }
    }
}
