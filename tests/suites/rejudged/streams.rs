//! Bytes: opaque streams, and connections that have left HTTP.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::client::TlsStream;

use super::{Bench, allowing, id};
use crate::{
    frames::{Frame, OPAQUE, UNDECIDED, expect, next, send},
    harness::{TcpApp, client, eventually, peer::ALPN_TCP, soon},
};

/// An app that echoes, and tells how each of its connections ends.
pub(super) async fn telling() -> (TcpApp, mpsc::Receiver<Result<(), std::io::ErrorKind>>) {
    let (tell, told) = mpsc::channel(8);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = [0; 1024];
            let ended = loop {
                match stream.read(&mut bytes).await {
                    Ok(0) => break Ok(()),
                    Ok(count) => stream.write_all(&bytes[..count]).await.unwrap(),
                    Err(error) => break Err(error.kind()),
                }
            };
            assert!(tell.send(ended).await.is_ok());
        }
    })
    .await;
    (app, told)
}

#[tokio::test]
async fn an_opaque_stream_of_a_caller_that_is_taken_off_the_list_is_reset_at_both_ends() {
    for (keys, kind) in
        [("protocol: tcp", OPAQUE), ("protocol: tcp", UNDECIDED), ("protocol: detect", OPAQUE)]
    {
        let (app, mut told) = telling().await;
        let mut bench = Bench::both(app.address(), keys).await;
        let (mut web, mut shop) =
            (bench.connect("web", ALPN_TCP).await, bench.connect("shop", ALPN_TCP).await);
        for stream in [&mut web, &mut shop] {
            send(stream, &[Frame::open(kind)]).await;
            expect(stream, &[Frame::Accepted]).await;
            send(stream, &[Frame::data(b"\0before")]).await;
            expect(stream, &[Frame::data(b"\0before")]).await;
        }
        bench.without_web(keys).await;
        expect(&mut web, &[Frame::Rst]).await;
        assert_eq!(next(&mut web).await, None);
        assert_eq!(
            soon("the app hears of it", told.recv()).await,
            Some(Err(std::io::ErrorKind::ConnectionReset))
        );
        eventually("it is counted", || bench.flagged() == 1 && bench.ended()[2] == 1).await;
        send(&mut shop, &[Frame::data(b"\0after")]).await;
        expect(&mut shop, &[Frame::data(b"\0after")]).await;
    }
}

#[tokio::test]
async fn a_stream_on_which_nobody_has_spoken_ends_too() {
    let (app, mut told) = telling().await;
    let mut bench = Bench::both(app.address(), "protocol: detect").await;
    let mut web = bench.connect("web", ALPN_TCP).await;
    send(&mut web, &[Frame::open(UNDECIDED)]).await;
    expect(&mut web, &[Frame::Accepted]).await;
    bench.without_web("protocol: detect").await;
    expect(&mut web, &[Frame::Rst]).await;
    assert!(soon("the app hears of it", told.recv()).await.unwrap().is_err());
}

/// `orders` with a rule that allows `shop` everything, and one for `web` that has these keys.
fn ruled(app: std::net::SocketAddr, listener: &str, keys: &str) -> String {
    let rule = format!("{{name: web, from: ['{}']{keys}}}", id("web"));
    let rest = format!("{{name: shop, from: ['{}']}}", id("shop"));
    let listener = allowing(app, &["web", "shop"], listener);
    format!("{listener}\nauthorization: {{rules: [{rule}, {rest}]}}")
}

#[tokio::test]
async fn a_rule_about_requests_allows_no_stream_that_began_before_it() {
    let (app, _told) = telling().await;
    let rules = |keys: &str| ruled(app.address(), "protocol: detect", keys);
    let mut bench = Bench::new(app.address(), &rules("")).await;
    let (mut web, mut shop) = (bench.connect("web", ALPN_TCP).await, bench.connect("shop", ALPN_TCP).await);
    for stream in [&mut web, &mut shop] {
        send(stream, &[Frame::open(OPAQUE), Frame::data(b"\0")]).await;
        expect(stream, &[Frame::Accepted, Frame::data(b"\0")]).await;
    }
    bench.reload(&rules(", methods: [GET]")).await;
    expect(&mut web, &[Frame::Rst]).await;
    assert_eq!(bench.ended(), [0, 0, 1]);
    send(&mut shop, &[Frame::data(b"\0on")]).await;
    expect(&mut shop, &[Frame::data(b"\0on")]).await;
}

/// An app that switches to whatever it is asked for, and echoes.
async fn obliging() -> TcpApp {
    TcpApp::start(async |mut stream| {
        drop(client::read_head(&mut stream).await);
        let switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
        stream.write_all(switch).await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await
}

/// A connection of that caller that the app has switched to another protocol.
async fn leave_http(bench: &Bench, service: &str) -> TlsStream<TcpStream> {
    let mut stream = bench.connect(service, super::ALPN_H1).await;
    let wish = b"GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n";
    stream.write_all(wish).await.unwrap();
    let (head, _is_whole) = soon("an answer", client::read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    echoes(&mut stream).await;
    stream
}

#[tokio::test]
async fn whoever_is_allowed_requests_and_no_stream_any_more_loses_a_connection_that_has_left_http() {
    let app = obliging().await;
    let rules = |keys: &str| ruled(app.address(), "", keys);
    let mut bench = Bench::new(app.address(), &rules("")).await;
    let (mut web, mut shop) = (leave_http(&bench, "web").await, leave_http(&bench, "shop").await);
    bench.reload(&rules(", methods: [GET]")).await;
    let ended = soon("it ends", web.read(&mut [0])).await;
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    assert_eq!(bench.ended(), [0, 1, 0]);
    echoes(&mut shop).await;
}

#[tokio::test]
async fn a_connection_that_has_left_http_is_cut() {
    let app = obliging().await;
    let mut bench = Bench::both(app.address(), "").await;
    let mut streams = Vec::new();
    for service in ["web", "shop"] {
        streams.push(leave_http(&bench, service).await);
    }
    bench.without_web("").await;
    let [web, shop] = &mut streams[..] else { unreachable!() };
    let ended = soon("it ends", web.read(&mut [0])).await;
    assert!(!matches!(ended, Ok(1..)), "{ended:?}");
    eventually("it is counted", || bench.flagged() == 1).await;
    echoes(shop).await;
}

pub(super) async fn echoes<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: &mut S) {
    stream.write_all(b"on").await.unwrap();
    let mut heard = [0; 2];
    soon("the echo", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"on");
}
