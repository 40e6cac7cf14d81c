//! Opaque streams to a port for HTTP: looked at, whatever the caller's sidecar took them for.

use http::{StatusCode, Version};
use outrider::model::flag::ResponseFlag;
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::client::TlsStream;

use super::{LISTENER, Pod};
use crate::{
    frames::{Frame, OPAQUE, UNDECIDED, expect, next, send},
    harness::{Client, HttpApp, TcpApp, body, peer::ALPN_TCP},
};

const HTTP: &str = "protocol: http";
/// What the app is told of that peer.
pub(super) const CERT: &str = "By=spiffe://test.outrider/orders;URI=spiffe://test.outrider/web";
pub(super) const GET: &[u8] = b"GET /orders HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n";

pub(super) async fn streams(pod: &Pod, app: std::net::SocketAddr) -> TlsStream<TcpStream> {
    pod.secure(pod.dial(app).await, "web", ALPN_TCP).await.unwrap()
}

/// Reads the answer to [`GET`], which ends with the stream.
pub(super) async fn answer(stream: &mut TlsStream<TcpStream>) -> String {
    let mut answer = Vec::new();
    loop {
        match next(stream).await {
            Some(Frame::Data(bytes)) => answer.extend_from_slice(&bytes),
            Some(Frame::Fin) => return String::from_utf8(answer).unwrap(),
            other => panic!("{other:?} behind {:?}", String::from_utf8_lossy(&answer)),
        }
    }
}

fn refused(pod: &Pod) -> u64 {
    let counts = &pod.orders.listener(LISTENER).unrouted[ResponseFlag::DPE as usize];
    counts.load(std::sync::atomic::Ordering::Relaxed)
}

/// Sends [`GET`] in one stream after the other: with the opening, behind it, and where nothing was known at first. The app,
/// which says `orders`, gets each as a request of the peer.
pub(super) async fn are_served(stream: &mut TlsStream<TcpStream>, app: &HttpApp) {
    let whole = [Frame::open(OPAQUE), Frame::data(GET)];
    let late = [Frame::data(&GET[..5]), Frame::data(&GET[5..])];
    for (first, then) in
        [(&whole[..], &[][..]), (&[Frame::open(OPAQUE)], &late[..]), (&[Frame::open(UNDECIDED)], &late[..])]
    {
        let before = app.count();
        send(stream, first).await;
        expect(stream, &[Frame::Accepted]).await;
        send(stream, then).await;
        let answer = answer(stream).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\norders"), "{answer}");
        send(stream, &[Frame::Fin]).await;
        assert_eq!(app.seen()[before].header("x-forwarded-client-cert"), Some(CERT));
    }
}

#[tokio::test]
async fn requests_in_a_stream_are_served_as_requests_of_the_peer() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), HTTP).await;
    let mut stream = streams(&pod, app.address()).await;
    are_served(&mut stream, &app).await;
}

#[tokio::test]
async fn what_a_stream_says_of_its_caller_is_not_believed() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), HTTP).await;
    let mut stream = streams(&pod, app.address()).await;
    let forged = "GET / HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: By=x;URI=admin\r\n\
                  X-Outrider-Attempt: 9\r\nX-Outrider-App-Version: 2\r\nConnection: close\r\n\r\n";
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(forged.as_bytes())]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let seen = app.only();
    assert!(seen.header("x-forwarded-client-cert").unwrap().ends_with("URI=spiffe://test.outrider/web"));
    assert_eq!(seen.version, Version::HTTP_11);
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-outrider-")), "{seen:?}");
}

#[tokio::test]
async fn anything_else_is_refused_before_the_app_is_connected_to() {
    let app = TcpApp::greeter().await;
    let pod = Pod::new(app.address(), HTTP).await;
    let mut stream = streams(&pod, app.address()).await;
    let others = [&b"\0hello"[..], b"EHLO x\r\n", b"\x16\x03\x01\0\x05\x01", b"GET /\r\n\r\n"];
    for (count, bytes) in others.into_iter().enumerate() {
        send(&mut stream, &[Frame::open(OPAQUE), Frame::data(bytes)]).await;
        expect(&mut stream, &[Frame::refused("not_http")]).await;
        send(&mut stream, &[Frame::Cancel]).await;
        expect(&mut stream, &[Frame::Fin]).await;
        assert_eq!(refused(&pod), count as u64 + 1);
    }
    // Half a word and an end.
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(b"get"), Frame::Fin]).await;
    expect(&mut stream, &[Frame::refused("not_http")]).await;
    send(&mut stream, &[Frame::Cancel]).await;
    expect(&mut stream, &[Frame::Fin]).await;
    // One that was accepted, because it said nothing, is aborted.
    send(&mut stream, &[Frame::open(UNDECIDED)]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    send(&mut stream, &[Frame::data(b"\0hello")]).await;
    expect(&mut stream, &[Frame::Rst]).await;
    assert!(next(&mut stream).await.is_none());
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_silent_stream_hears_nothing_of_an_app_that_would_speak_first() {
    let app = TcpApp::greeter().await;
    let pod = Pod::new(app.address(), HTTP).await;
    let mut stream = streams(&pod, app.address()).await;
    for kind in [UNDECIDED, OPAQUE] {
        send(&mut stream, &[Frame::open(kind)]).await;
        expect(&mut stream, &[Frame::Accepted]).await;
        send(&mut stream, &[Frame::Fin]).await;
        expect(&mut stream, &[Frame::Fin]).await;
    }
    // Given up, and what was given up is over.
    send(&mut stream, &[Frame::open(UNDECIDED)]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    send(&mut stream, &[Frame::Cancel]).await;
    expect(&mut stream, &[Frame::Fin]).await;
    assert_eq!((app.connections(), refused(&pod)), (0, 0));
}

#[tokio::test]
async fn at_a_port_for_bytes_a_stream_passes_as_it_is() {
    let app = TcpApp::echo().await;
    let pod = Pod::new(app.address(), "protocol: tcp").await;
    let mut stream = streams(&pod, app.address()).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(GET), Frame::Fin]).await;
    expect(&mut stream, &[Frame::Accepted, Frame::data(GET), Frame::Fin]).await;
}

#[tokio::test]
async fn requests_of_a_sidecar_take_the_ordinary_way() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), HTTP).await;
    let stream = pod.secure(pod.dial(app.address()).await, "web", b"outrider-h2/1").await.unwrap();
    let mut client = Client::over(stream, Version::HTTP_2).await;
    let response = client.post("/", "two").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body::text(response.into_body()).await, "two");
    drop(client);
    // The list of protocols is the mesh's: one of anybody else is no way around it.
    let stranger = pod.secure(pod.dial(app.address()).await, "web", b"http/1.1").await;
    assert!(stranger.is_err() || stranger.unwrap().read_u8().await.is_err());
}
