//! Every other `Upgrade` travels as HTTP/1.1, on a connection of its own.

use http::{StatusCode, Version};
use tokio::io::AsyncWriteExt;

use super::{Line, Side, Sides, call_http1, read_request, value};
use crate::harness::{Client, HttpApp, TcpApp, TestMesh, body, client::field, eventually, soon};

/// An app that switches to what it is asked for first, after it has read a body of that many bytes.
async fn obliging(body_bytes: usize) -> (TcpApp, Sides) {
    let (give, sides) = tokio::sync::mpsc::unbounded_channel();
    let app = TcpApp::start(move |mut stream| {
        let give = give.clone();
        async move {
            let Some(asked) = read_request(&mut stream).await else { return };
            let mut body = vec![0; body_bytes];
            drop(tokio::io::AsyncReadExt::read_exact(&mut stream, &mut body).await);
            let protocol = asked.headers["upgrade"].to_str().unwrap().split(',').next().unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: {protocol}\r\nX-App: 1\r\n\r\nhello"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
            drop(give.send((asked, Side::Http1(stream))));
        }
    })
    .await;
    (app, sides)
}

fn upgrade(protocols: &str) -> String {
    format!("GET /x HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: {protocols}\r\n\r\n")
}

#[tokio::test]
async fn any_protocol_can_be_switched_to() {
    let (app, mut sides) = obliging(0).await;
    let line = Line::to(app, Version::HTTP_11).await;
    for (asked_for, passed_on, agreed) in
        [("foo/1.0", "foo/1.0", "foo/1.0"), ("h2c, foo, bar", "foo, bar", "foo")]
    {
        let (told, mut near) = call_http1(line.web.address(), &upgrade(asked_for)).await;
        assert_eq!(told.status, StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!((told.header("upgrade"), told.header("connection")), (Some(agreed), Some("Upgrade")));
        assert_eq!((told.header("x-app"), told.header("sec-websocket-accept")), (Some("1"), None));
        let (asked, mut far) = soon("the app is asked", sides.recv()).await.unwrap();
        assert_eq!(asked.headers["upgrade"], passed_on);
        assert_eq!(asked.headers["connection"], "Upgrade");
        // What came with the app's head is not lost.
        assert_eq!(soon("the greeting", near.read_exact(5)).await.unwrap(), b"hello");
        near.write(&body::pattern(100_000)).await.unwrap();
        assert!(soon("the bytes", far.read_exact(100_000)).await.unwrap() == body::pattern(100_000));
        far.finish().await;
        assert_eq!(soon("the end", near.read_to_end()).await.unwrap(), b"");
        near.write(b"the rest").await.unwrap();
        near.finish().await;
        assert_eq!(soon("the rest", far.read_to_end()).await.unwrap(), b"the rest");
        eventually("it is over", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
    }
    let connections = std::sync::Arc::clone(&line.web.cluster("orders").endpoints[0].runtime);
    eventually("its connections are not kept", || {
        connections.connections.load(std::sync::atomic::Ordering::Relaxed) == 0
    })
    .await;
    let tls = connections.tls().unwrap();
    assert_eq!(tls.alpn, "outrider-h1/1");
}

#[tokio::test]
async fn a_request_with_a_body_switches_when_the_body_has_been_sent() {
    let (app, mut sides) = obliging(5).await;
    let line = Line::to(app, Version::HTTP_11).await;
    let request = "POST /exec HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                   Content-Length: 5\r\n\r\nstart";
    let (told, mut near) = call_http1(line.web.address(), request).await;
    assert_eq!(told.status, StatusCode::SWITCHING_PROTOCOLS);
    let (asked, mut far) = soon("the app is asked", sides.recv()).await.unwrap();
    assert_eq!((asked.method.as_str(), &asked.headers["content-length"]), ("POST", &value("5")));
    near.write(b"more").await.unwrap();
    assert_eq!(soon("the bytes", far.read_exact(4)).await.unwrap(), b"more");
}

#[tokio::test]
async fn a_switch_to_what_nobody_asked_for_is_refused() {
    let app = TcpApp::start(async |mut stream| {
        drop(read_request(&mut stream).await);
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: bar\r\n\r\n";
        drop(stream.write_all(answer.as_bytes()).await);
        drop(tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await);
    })
    .await;
    let line = Line::to(app, Version::HTTP_11).await;
    let (told, _side) = call_http1(line.web.address(), &upgrade("foo")).await;
    assert_eq!(
        (told.status, told.header("x-outrider-reason")),
        (StatusCode::BAD_GATEWAY, Some("bad_response"))
    );
    assert_eq!(line.app.connections(), 1, "not asked again");
}

#[tokio::test]
async fn a_switch_to_another_version_of_http_is_not_passed_on() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let request = http::Request::get("/")
        .header("connection", "Upgrade, HTTP2-Settings")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAARAAAAAAAIAAAAA");
    let mut client = Client::http1(web.address()).await;
    let response = client.send(request.body(body::empty()).unwrap()).await.unwrap();
    assert_eq!((response.status(), field(&response, "upgrade")), (StatusCode::OK, None));
    let seen = app.only();
    assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None));
    // It is an ordinary request, and so is the next one.
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn an_app_of_http2_is_not_bothered_with_it() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "app_protocol: http2").await;
    let web = mesh.caller(&[orders.address()], "").await;
    let (told, _side) = call_http1(web.address(), &upgrade("foo")).await;
    assert_eq!(told.status, StatusCode::OK);
    assert_eq!(app.only().version, Version::HTTP_2);
}

#[tokio::test]
async fn a_switch_before_the_end_of_the_body_is_refused() {
    let (app, mut sides) = obliging(0).await;
    let line = Line::to(app, Version::HTTP_11).await;
    let request = "POST /exec HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\
                   Content-Length: 5\r\n\r\nsta";
    let (told, _near) = call_http1(line.web.address(), request).await;
    assert_eq!(
        (told.status, told.header("x-outrider-reason")),
        (StatusCode::BAD_GATEWAY, Some("bad_response"))
    );
    let (_asked, mut far) = soon("the app is asked", sides.recv()).await.unwrap();
    // Its connection ends; of the body it may have got what there was.
    let rest = soon("the end", far.read_to_end()).await.unwrap_or_default();
    assert!(b"sta".starts_with(&rest), "{rest:?}");
    eventually("nothing is under way", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
}
