//! Opaque streams to a port that carries either: requests in them are requests, and nothing else waits for that.

use std::sync::atomic::Ordering;

use http::{StatusCode, Version};
use outrider::model::{
    detection::{How, Spoken},
    flag::ResponseFlag,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

use super::{
    LISTENER, Pod, hear,
    within::{CERT, GET, answer, are_served, streams},
};
use crate::{
    frames::{Frame, OPAQUE, UNDECIDED, expect, next, send},
    harness::{Client, HttpApp, TcpApp, TestMesh, app::GREETING, body, client, eventually, soon},
};

/// The port's own keys: what it is without any.
const DETECT: &str = "";
const FORGED: &str = "GET / HTTP/1.1\r\nHost: orders\r\nX-Forwarded-Client-Cert: By=x;URI=admin\r\n\
                      X-Outrider-Attempt: 9\r\nConnection: close\r\n\r\n";

fn found(pod: &Pod, spoken: Spoken, how: How) -> u64 {
    let counts = pod.orders.listener(LISTENER);
    let mut found =
        counts.detections.read().filter(|(by, way, _)| (*by, *way) == (spoken.label(), how.label()));
    found.next().unwrap().2
}

#[tokio::test]
async fn requests_in_a_stream_are_served_as_requests_of_the_peer() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), DETECT).await;
    let mut stream = streams(&pod, app.address()).await;
    are_served(&mut stream, &app).await;
    assert_eq!(found(&pod, Spoken::Http1, How::Client), 3);
    // The connection goes on, for streams of either kind.
    send(&mut stream, &[Frame::open(UNDECIDED), Frame::Cancel]).await;
    expect(&mut stream, &[Frame::Accepted, Frame::Fin]).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(GET)]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.ends_with("orders"));
}

#[tokio::test]
async fn what_such_a_request_says_of_its_caller_is_not_believed() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), DETECT).await;
    let mut stream = streams(&pod, app.address()).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(FORGED.as_bytes())]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
    let seen = app.only();
    assert_eq!(seen.header("x-forwarded-client-cert"), Some(CERT));
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-outrider-")), "{seen:?}");
    // Nor is a tunnel through the app an answer to the question what it is.
    let tunnel = b"CONNECT admin:80 HTTP/1.1\r\nHost: admin:80\r\nConnection: close\r\n\r\n";
    send(&mut stream, &[Frame::Fin, Frame::open(OPAQUE), Frame::data(tunnel)]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 501 "));
    assert_eq!(app.count(), 1);
}

/// Node, NGINX or Python take each of these for a request.
#[tokio::test]
async fn a_request_that_is_not_well_formed_is_no_way_past_the_sidecar() {
    let app = HttpApp::named("orders").await;
    let pod = Pod::new(app.address(), DETECT).await;
    for line in [
        "GET  / HTTP/1.1\r\n",
        "GET /  HTTP/1.1\r\n",
        "GET\t/ HTTP/1.1\r\n",
        "GET / HTTP/1.1 \r\n",
        "GET / HTTP/1.10\r\n",
        "GET / HTTP/2.0\r\n",
        "\r\r\nGET / HTTP/1.1\r\n",
        "GET *a HTTP/1.1\r\n",
    ] {
        let mut stream = streams(&pod, app.address()).await;
        let sent = FORGED.replace("GET / HTTP/1.1\r\n", line);
        send(&mut stream, &[Frame::open(OPAQUE), Frame::data(sent.as_bytes())]).await;
        expect(&mut stream, &[Frame::Accepted]).await;
        let mut said = Vec::new();
        while let Some(Frame::Data(bytes)) = next(&mut stream).await {
            said.extend_from_slice(&bytes);
        }
        assert!(said.starts_with(b"HTTP/1.1 400 "), "{line:?}: {}", said.escape_ascii());
    }
    assert_eq!(app.count(), 0);
}

#[tokio::test]
async fn http2_in_a_stream_is_found_too() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), DETECT).await;
    let stream = streams(&pod, app.address()).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let framing = framed(far, stream);
    let calling = async {
        let mut client = Client::over(near, Version::HTTP_2).await;
        let response = soon("an answer", client.post("/orders", "two of them")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(body::text(response.into_body()).await, "two of them");
    };
    tokio::select! {
        () = calling => {}
        () = framing => panic!("the stream ended"),
    }
    let seen = app.only();
    assert_eq!((seen.version, seen.header("x-forwarded-client-cert")), (Version::HTTP_2, Some(CERT)));
    assert_eq!(found(&pod, Spoken::Http2, How::Client), 1);
}

/// Puts bytes into the frames of one opaque stream.
async fn framed(
    plain: tokio::io::DuplexStream,
    stream: tokio_rustls::client::TlsStream<tokio::net::TcpStream>,
) {
    let ((mut from_plain, mut to_plain), (mut from_peer, mut to_peer)) =
        (tokio::io::split(plain), tokio::io::split(stream));
    send(&mut to_peer, &[Frame::open(OPAQUE)]).await;
    expect(&mut from_peer, &[Frame::Accepted]).await;
    let up = async {
        let mut bytes = vec![0; 8 * 1024];
        while let Ok(count @ 1..) = from_plain.read(&mut bytes).await {
            send(&mut to_peer, &[Frame::data(&bytes[..count])]).await;
        }
    };
    let down = async {
        while let Some(Frame::Data(bytes)) = next(&mut from_peer).await {
            to_plain.write_all(&bytes).await.unwrap();
        }
    };
    tokio::join!(up, down);
}

#[tokio::test]
async fn other_streams_wait_for_nothing_whoever_speaks_first() {
    let (greeter, echo) = (TcpApp::greeter().await, TcpApp::echo().await);
    let pod = Pod::with("intercept: {}").await;
    for kind in [OPAQUE, UNDECIDED] {
        let mut stream = streams(&pod, greeter.address()).await;
        send(&mut stream, &[Frame::open(kind)]).await;
        expect(&mut stream, &[Frame::Accepted, Frame::data(GREETING)]).await;
        send(&mut stream, &[Frame::data(b"QUIT"), Frame::Fin]).await;
        expect(&mut stream, &[Frame::data(b"QUIT"), Frame::Fin]).await;
        for bytes in [&b"\0binary"[..], b"\x16\x03\x01\0\x05\x01", b"*1\r\n$4\r\nPING\r\n", b"GET /key\r\n"] {
            let mut stream = streams(&pod, echo.address()).await;
            send(&mut stream, &[Frame::open(kind)]).await;
            expect(&mut stream, &[Frame::Accepted]).await;
            send(&mut stream, &[Frame::data(bytes)]).await;
            expect(&mut stream, &[Frame::data(bytes)]).await;
        }
    }
    // None was let go because its time was up.
    assert_eq!((found(&pod, Spoken::Opaque, How::Server), found(&pod, Spoken::Opaque, How::Client)), (2, 8));
}

#[tokio::test]
async fn half_a_word_is_answered_and_ends_pass_as_they_are() {
    let keeper = TcpApp::start(async |mut stream| {
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ruok");
        stream.write_all(b"imok").await.unwrap();
    })
    .await;
    let reader = TcpApp::start(async |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).await.unwrap();
    })
    .await;
    let pod = Pod::with("intercept: {}").await;
    let mut stream = streams(&pod, keeper.address()).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(b"ruok")]).await;
    expect(&mut stream, &[Frame::Accepted, Frame::data(b"imok"), Frame::Fin]).await;
    let mut stream = streams(&pod, reader.address()).await;
    for (bytes, answer) in [(&b"get"[..], &b"3 bytes"[..]), (b"", b"0 bytes")] {
        let mut frames = vec![Frame::open(OPAQUE)];
        frames.extend((!bytes.is_empty()).then(|| Frame::data(bytes)));
        frames.push(Frame::Fin);
        send(&mut stream, &frames).await;
        expect(&mut stream, &[Frame::Accepted, Frame::data(answer), Frame::Fin]).await;
    }
}

#[tokio::test]
async fn no_request_gets_past_by_being_slow() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            let mut bytes = vec![0; 3];
            stream.read_exact(&mut bytes).await.unwrap();
            tell.send(bytes).await.unwrap();
            let mut rest = Vec::new();
            drop(stream.read_to_end(&mut rest).await);
            tell.send(rest).await.unwrap();
        }
    })
    .await;
    let pod = Pod::new(app.address(), DETECT).await;
    let mut stream = streams(&pod, app.address()).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(&FORGED.as_bytes()[..3])]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert_eq!(soon("it is let go", told.recv()).await.unwrap(), b"GET");
    send(&mut stream, &[Frame::data(&FORGED.as_bytes()[3..])]).await;
    expect(&mut stream, &[Frame::Rst]).await;
    assert_eq!(next(&mut stream).await, None);
    assert_eq!(soon("the app's end", told.recv()).await.unwrap(), b"");
    let orders = pod.orders.cluster(&format!("inbound/{}", app.address().port()));
    eventually("it is counted", || {
        orders.runtime.counts.by_flag[ResponseFlag::DPE as usize].load(Ordering::Relaxed) == 1
    })
    .await;
}

#[tokio::test]
async fn an_explicit_listener_may_carry_either_and_knows_them_apart() {
    let (mesh, http, tcp) = (TestMesh::new(), HttpApp::echo().await, TcpApp::greeter().await);
    let orders = mesh.callee("orders", http.address(), "protocol: detect").await;
    // Requests as such, and in bytes that nobody has looked at.
    let web = mesh.caller(&[orders.address()], "").await;
    assert_eq!(Client::http1(web.address()).await.get("/").await.unwrap().status(), StatusCode::OK);
    let blind = mesh.tcp_caller(&[orders.address()], "").await;
    let answer = client::exchange(blind.address(), FORGED.as_bytes()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{answer:?}");
    for seen in http.seen() {
        assert_eq!(seen.header("x-forwarded-client-cert"), Some(CERT));
    }
    assert_eq!(http.count(), 2);
    let greeter = mesh.callee("greeter", tcp.address(), "protocol: detect").await;
    let cluster = TestMesh::cluster("greeter", &[greeter.address()], "");
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: greeter}}]\nclusters: [{cluster}]"
    );
    let web = mesh.start("web", &yaml).await;
    let mut stream = tokio::net::TcpStream::connect(web.address()).await.unwrap();
    hear(&mut stream, GREETING).await;
}

#[tokio::test]
async fn whoever_may_only_send_requests_may_send_them_in_bytes_and_nothing_else() {
    let app = HttpApp::named("orders").await;
    let rule = "{name: web, from: ['spiffe://test.outrider/web'], path_prefixes: [/orders]}";
    let yaml = format!("intercept: {{}}\nauthorization: {{rules: [{rule}]}}");
    let pod = Pod::with(&yaml).await;
    let mut stream = streams(&pod, app.address()).await;
    send(&mut stream, &[Frame::open(OPAQUE), Frame::data(GET)]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.ends_with("orders"));
    send(&mut stream, &[Frame::Fin, Frame::open(OPAQUE), Frame::data(FORGED.as_bytes())]).await;
    expect(&mut stream, &[Frame::Accepted]).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 403 "));
    let others = [&b"\0hello"[..], b"EHLO x\r\n", b"\x16\x03\x01\0\x05\x01", b"GET /orders\r\n\r\n"];
    for bytes in others {
        send(&mut stream, &[Frame::Fin][..usize::from(bytes == others[0])]).await;
        send(&mut stream, &[Frame::open(OPAQUE), Frame::data(bytes)]).await;
        expect(&mut stream, &[Frame::refused("not_authorized")]).await;
        send(&mut stream, &[Frame::Cancel]).await;
        expect(&mut stream, &[Frame::Fin]).await;
    }
    assert_eq!(app.count(), 1);
    // Who may do nothing is told at once.
    let stranger = pod.secure(pod.dial(app.address()).await, "shop", crate::harness::peer::ALPN_TCP).await;
    let mut stranger = stranger.unwrap();
    send(&mut stranger, &[Frame::open(UNDECIDED)]).await;
    expect(&mut stranger, &[Frame::refused("not_authorized")]).await;
    assert_eq!(app.connections(), 1, "that of the one request");
}
