//! A caller that goes away: the work for it ends, two hops further on.

use std::{future::Future, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, Version};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use outrider::model::flag::ResponseFlag;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Pair, Work, never, set};
use crate::harness::{
    HttpApp, Sidecar, TcpApp, TestMesh,
    body::{self, Body},
    client::{read_head, request},
    eventually, soon,
};

/// An app that speaks HTTP/1: it reads a request's head, does what `more` says, and then waits until its caller goes away.
async fn waiting<F>(work: &Work, more: impl Fn(TcpStream) -> F + Clone + Send + Sync + 'static) -> TcpApp
where
    F: Future<Output = TcpStream> + Send,
{
    let work = work.clone();
    TcpApp::start(move |mut stream| {
        let (work, more) = (work.clone(), more.clone());
        async move {
            let (_head, is_whole) = read_head(&mut stream).await;
            assert!(is_whole);
            let _working = work.begin();
            let mut stream = more(stream).await;
            // Its end, or a reset.
            while let Ok(1..) = stream.read(&mut [0; 4096]).await {}
        }
    })
    .await
}

async fn at_once(work: &Work) -> TcpApp {
    waiting(work, async |stream| stream).await
}

/// A body that the app does not read for a while, so that it fills up everything on the way.
async fn unread(work: &Work, released: tokio::sync::watch::Receiver<bool>) -> TcpApp {
    waiting(work, move |stream| {
        let mut released = released.clone();
        async move {
            // An app that reads nothing cannot see an end either, so it is told when to look.
            drop(released.wait_for(|is_released| *is_released).await);
            stream
        }
    })
    .await
}

async fn assert_cancelled(pair: &Pair, work: &Work) {
    eventually("the app's work is cancelled", || work.dropped() == work.begun()).await;
    assert!(work.begun() > 0);
    let in_flight =
        |sidecar: &Sidecar, cluster: &str| sidecar.cluster(cluster).runtime.in_flight.load(Ordering::Relaxed);
    eventually("nothing is in flight", || {
        in_flight(&pair.web, "orders") == 0 && in_flight(&pair.orders, "inbound/in") == 0
    })
    .await;
}

#[tokio::test]
async fn an_http1_caller_that_leaves_while_it_waits_is_not_worked_for_any_more() {
    for is_reset in [false, true] {
        let work = Work::default();
        let app = at_once(&work).await;
        let pair = Pair::new(app.address(), ("", "")).await;
        let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: orders\r\n\r\n").await.unwrap();
        eventually("the app works", || work.begun() == 1).await;
        leave(stream, is_reset);
        assert_cancelled(&pair, &work).await;
        assert_eq!(pair.web.flagged(ResponseFlag::DC), 1);
    }
}

/// The upload is short enough for everybody on the way to have read it.
#[tokio::test]
async fn an_http1_caller_that_leaves_amid_its_upload_is_not_worked_for_any_more() {
    for is_reset in [false, true] {
        let work = Work::default();
        let app = at_once(&work).await;
        let pair = Pair::new(app.address(), ("", "")).await;
        let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 1000\r\n\r\na part")
            .await
            .unwrap();
        eventually("the app works", || work.begun() == 1).await;
        leave(stream, is_reset);
        assert_cancelled(&pair, &work).await;
        assert_eq!(pair.web.flagged(ResponseFlag::DC), 1);
    }
}

/// Nobody reads the upload any more, so nobody sees its end by reading.
#[tokio::test]
async fn an_http1_caller_that_breaks_an_upload_that_stands_still_is_not_worked_for_any_more() {
    let work = Work::default();
    let (release, released) = tokio::sync::watch::channel(false);
    let app = unread(&work, released).await;
    let pair = Pair::new(app.address(), ("", "")).await;
    let mut stream = TcpStream::connect(pair.web.address()).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 1000000000\r\n\r\n").await.unwrap();
    eventually("the app works", || work.begun() == 1).await;
    let chunk = vec![0; 64 * 1024];
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), stream.write(&chunk)).await {
        written.unwrap();
    }
    // An orderly end would wait at the caller's for room for all that is before it.
    leave(stream, true);
    eventually("it is noticed", || pair.web.flagged(ResponseFlag::DC) == 1).await;
    release.send_replace(true);
    assert_cancelled(&pair, &work).await;
}

/// The request has not got anywhere yet, so nobody has begun to read its body.
#[tokio::test]
async fn an_http1_caller_that_leaves_while_its_request_waits_for_a_connection_is_given_up() {
    let mute = TcpApp::start(async |mut stream| drop(stream.read_to_end(&mut Vec::new()).await)).await;
    let mesh = TestMesh::new();
    let web = mesh.caller(&[mute.address()], "connect_timeout: 5m").await;
    for (is_reset, count) in [(false, 1), (true, 2)] {
        let mut stream = TcpStream::connect(web.address()).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nhost: orders\r\ncontent-length: 1000\r\n\r\na part";
        stream.write_all(head).await.unwrap();
        let in_flight = || web.cluster("orders").runtime.in_flight.load(Ordering::Relaxed);
        eventually("it is under way", || in_flight() == 1).await;
        leave(stream, is_reset);
        eventually("it is noticed", || web.flagged(ResponseFlag::DC) == count && in_flight() == 0).await;
    }
}

fn leave(stream: TcpStream, is_reset: bool) {
    if is_reset {
        socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
    drop(stream);
}

#[tokio::test]
async fn an_http2_caller_that_resets_its_stream_or_leaves_is_not_worked_for_any_more() {
    for is_whole_connection in [false, true] {
        for keys in ["app_protocol: http2", "app_protocol: http1"] {
            let work = Work::default();
            let (http1, http2) = (at_once(&work).await, never(&work).await);
            let address = if keys.ends_with('1') { http1.address() } else { http2.address() };
            let pair = Pair::new(address, (keys, "")).await;
            let stream = TcpStream::connect(pair.web.address()).await.unwrap();
            let whole = socket2::SockRef::from(&stream).try_clone().unwrap();
            let io = hyper_util::rt::TokioIo::new(stream);
            let executor = hyper_util::rt::TokioExecutor::new();
            let (mut sender, driver) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
            tokio::spawn(driver);
            let sending = sender.send_request(request(Method::GET, "http://orders/", body::empty()));
            let call = tokio::spawn(async move { drop(sending.await) });
            eventually("the app works", || work.begun() == 1).await;
            if is_whole_connection {
                whole.shutdown(std::net::Shutdown::Both).unwrap();
            } else {
                call.abort();
            }
            assert_cancelled(&pair, &work).await;
            assert_eq!(pair.web.flagged(ResponseFlag::DC), 1);
        }
    }
}

#[tokio::test]
async fn a_caller_that_leaves_amid_the_answer_is_not_worked_for_any_more() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let work = Work::default();
        let app = endless(&work, "text/plain").await;
        let pair = Pair::new(app.address(), ("app_protocol: http2", "")).await;
        let mut client = pair.client(version).await;
        let mut response = soon("the head", client.get("/")).await.unwrap();
        soon("the first bytes", response.body_mut().frame()).await.unwrap().unwrap();
        drop((response, client));
        assert_cancelled(&pair, &work).await;
        assert_eq!(pair.web.flagged(ResponseFlag::DC), 1);
    }
}

#[tokio::test]
async fn a_grpc_call_that_its_caller_gives_up_is_not_worked_for_any_more() {
    let work = Work::default();
    let app = endless(&work, "application/grpc").await;
    let pair = Pair::new(app.address(), ("app_protocol: http2", "")).await;
    let mut client = pair.client(Version::HTTP_2).await;
    let (up, upload) = body::channel();
    let mut call = request(Method::POST, "/shop.Orders/Watch", upload);
    set(call.headers_mut(), &[("content-type", "application/grpc"), ("te", "trailers")]);
    let mut response = soon("the head", client.send(call)).await.unwrap();
    up.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01.")))).await.unwrap();
    soon("the first bytes", response.body_mut().frame()).await.unwrap().unwrap();
    // hyper's client resets a stream only when neither side of it is held any more.
    up.send(Err("given up".into())).await.unwrap();
    drop(response);
    assert_cancelled(&pair, &work).await;
    assert_eq!(pair.web.flagged(ResponseFlag::DC), 1);
}

/// An app that answers without end.
async fn endless(work: &Work, content_type: &'static str) -> HttpApp {
    let work = work.clone();
    HttpApp::start(move |request: Request<Incoming>| {
        let working = work.begin();
        let (down, out) = body::channel();
        tokio::spawn(async move {
            let (_working, _upload) = (working, request);
            while down.send(Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\x01.")))).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        async move { answer(content_type, out) }
    })
    .await
}

fn answer(content_type: &str, body: Body) -> crate::harness::app::Answered {
    Ok(Response::builder().header("content-type", content_type).body(body)?)
}
