//! WebSocket opens in every combination of its two forms, and carries what it should.

use http::{Method, StatusCode, Version};

use super::{super::PAIRS, ACCEPT, KEY, Line, app, call, call_http1, echo, handed_over, handshake, value};
use crate::harness::{TcpApp, body, client::read_head, eventually, soon};

#[tokio::test]
async fn it_opens_in_each_form_and_the_app_sees_its_own() {
    for (calling, called) in PAIRS {
        let (serve, mut sides) = handed_over();
        let line = Line::to(app(called, serve).await, called).await;
        let (told, mut near) = call(line.web.address(), calling).await;
        let (asked, mut far) = soon("the app is asked", sides.recv()).await.unwrap();

        // What the caller is told.
        if calling == Version::HTTP_2 {
            assert_eq!(told.status, StatusCode::OK);
            assert_eq!((told.header("upgrade"), told.header("connection")), (None, None));
            assert_eq!(told.header("sec-websocket-accept"), None);
        } else {
            assert_eq!(told.status, StatusCode::SWITCHING_PROTOCOLS);
            assert_eq!(
                (told.header("upgrade"), told.header("connection")),
                (Some("websocket"), Some("Upgrade"))
            );
            assert_eq!(told.header("sec-websocket-accept"), Some(ACCEPT));
            assert_eq!((told.header("content-length"), told.header("transfer-encoding")), (None, None));
        }
        assert_eq!(told.header("sec-websocket-protocol"), Some("chat.v2"));
        let extensions = Some("permessage-deflate; client_max_window_bits=11");
        assert_eq!(told.header("sec-websocket-extensions"), extensions);
        assert_eq!(told.header("set-cookie"), Some("a=1"));

        // What the app is asked.
        assert_eq!(asked.path.split('?').next().unwrap(), "/chat");
        assert_eq!(asked.headers["sec-websocket-protocol"], "chat.v1, chat.v2");
        assert_eq!(asked.headers["sec-websocket-extensions"], "permessage-deflate; client_max_window_bits");
        assert_eq!(asked.headers["sec-websocket-version"], "13");
        assert!(!asked.headers.contains_key("content-length"), "{asked:?}");
        if called == Version::HTTP_2 {
            assert_eq!((asked.method, asked.protocol.as_deref()), (Method::CONNECT, Some("websocket")));
            assert!(!asked.headers.contains_key("sec-websocket-key"), "no key in this form");
        } else {
            assert_eq!(asked.method, Method::GET);
            assert_eq!(
                (&asked.headers["upgrade"], &asked.headers["connection"]),
                (&value("websocket"), &value("Upgrade"))
            );
            assert_ne!(asked.headers["sec-websocket-key"], KEY, "a fresh one");
        }

        // And bytes both ways.
        near.write(b"ping").await.unwrap();
        assert_eq!(soon("the bytes", far.read_exact(4)).await.unwrap(), b"ping");
        far.write(b"pong").await.unwrap();
        assert_eq!(soon("the bytes", near.read_exact(4)).await.unwrap(), b"pong");
        eventually("it counts as active", || line.active() == (1, 1)).await;
        assert_eq!(line.in_flight(), (1, 1), "and holds its place");
    }
}

#[tokio::test]
async fn a_thousand_messages_come_back_in_every_combination() {
    for (calling, called) in PAIRS {
        let line = Line::to(echo(called).await, called).await;
        let mut side = line.open(calling).await;
        for i in 0..1000 {
            side.says_back(format!("message {i}").as_bytes()).await;
        }
        side.says_back(&body::pattern(50_000)).await;
        side.finish().await;
        assert_eq!(soon("the end", side.read_to_end()).await.unwrap(), b"");
        eventually("nothing is left of it", || line.active() == (0, 0) && line.in_flight() == (0, 0)).await;
        let counts = &line.web.cluster("orders").runtime.upgrades;
        let read = |count: &std::sync::atomic::AtomicU64| count.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(read(&counts.total), 1);
        assert_eq!((read(&counts.sent_bytes), read(&counts.received_bytes)), (60_890, 60_890));
        assert!(read(&counts.duration_us) > 0);
        assert_eq!(line.web.flagged(outrider::model::flag::ResponseFlag::DC), 0);
    }
}

#[tokio::test]
async fn what_an_app_speaks_is_what_its_caller_speaks_unless_told() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let app = echo(version).await;
        let mesh = crate::harness::TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "").await;
        let web = mesh.caller(&[orders.address()], "").await;
        let (_told, mut side) = call(web.address(), version).await;
        side.says_back(b"hello").await;
    }
}

#[tokio::test]
async fn many_share_the_connection_between_the_sidecars() {
    let line = Line::to(echo(Version::HTTP_11).await, Version::HTTP_11).await;
    let mut sides = Vec::new();
    for _ in 0..20 {
        sides.push(line.open(Version::HTTP_11).await);
    }
    for (i, side) in sides.iter_mut().enumerate() {
        side.says_back(format!("{i}").as_bytes()).await;
    }
    assert_eq!(line.orders.listener("in").accepted.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!(line.app.connections(), 20);
}

#[tokio::test]
async fn an_answer_with_the_wrong_proof_is_no_switch() {
    for accept in ["Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n", ""] {
        let app = TcpApp::start(move |mut stream| async move {
            drop(read_head(&mut stream).await);
            let answer = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{accept}\r\nsecret"
            );
            drop(tokio::io::AsyncWriteExt::write_all(&mut stream, answer.as_bytes()).await);
            drop(tokio::io::AsyncReadExt::read(&mut stream, &mut [0]).await);
        })
        .await;
        let line = Line::to(app, Version::HTTP_11).await;
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let (told, mut side) = call(line.web.address(), version).await;
            assert_eq!(told.status, StatusCode::BAD_GATEWAY);
            assert_eq!(told.header("x-outrider-reason"), Some("bad_response"));
            let rest = soon("the end", side.read_to_end()).await.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&rest).contains("secret"));
        }
        assert_eq!(line.web.retries(), 0, "what was sent is not sent again");
    }
}

#[tokio::test]
async fn other_fields_of_the_handshake_are_treated_as_those_of_any_request() {
    let (serve, mut sides) = handed_over();
    let line = Line::to(app(Version::HTTP_11, serve).await, Version::HTTP_11).await;
    let lines = "X-Outrider-Attempt: 7\r\nX-Forwarded-Client-Cert: forged\r\nCookie: a=1\r\nProxy-Authorization: x\r\n";
    let (told, _near) = call_http1(line.web.address(), &handshake(lines)).await;
    assert_eq!(told.status, StatusCode::SWITCHING_PROTOCOLS);
    let (asked, _far) = soon("the app is asked", sides.recv()).await.unwrap();
    assert!(
        !asked.headers.contains_key("x-outrider-attempt")
            && !asked.headers.contains_key("proxy-authorization")
    );
    assert!(asked.headers["x-forwarded-client-cert"].to_str().unwrap().contains("spiffe://"));
    assert_eq!(asked.headers["cookie"], "a=1");
    assert_eq!(asked.headers["host"], "orders");
}
