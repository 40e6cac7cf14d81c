//! Plaintext from anybody, while a port permits it.

use std::{sync::atomic::Ordering, time::Duration};

use http::{Request, StatusCode, Version};
use outrider::model::{listener::Exception, runtime::Refusal};
use socket2::SockRef;
use tokio::{io::AsyncWriteExt, sync::mpsc};

use super::{NO_LONGER, PERMISSIVE, Pod, ending, hear, is_reset, port, ports, talk};
use crate::harness::{
    Client, HttpApp, TcpApp,
    app::{GREETING, nobody},
    body,
    client::{exchange_over, field},
    eventually, soon,
};

/// What the app is told of a caller that says a lot of others: from which addresses, by what scheme.
async fn forwarded(pod: &Pod, app: &HttpApp, version: Version, (addresses, scheme): (&str, &str)) {
    let before = app.count();
    let request = Request::post("/orders?id=1")
        .header("x-forwarded-client-cert", "By=x;URI=spiffe://test.outrider/admin")
        .header("x-forwarded-for", "198.51.100.7, 203.0.113.9")
        .header("x-forwarded-proto", "https")
        .header("x-outrider-app-version", "2")
        .header("x-outrider-attempt", "7")
        .body(body::full("two of them"))
        .unwrap();
    let mut client = pod.client(app.address(), version).await;
    let response = soon("an answer", client.send(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(body::text(response.into_body()).await, "two of them");
    let seen = &app.seen()[before];
    assert_eq!((seen.version, seen.uri.path()), (version, "/orders"));
    assert_eq!(seen.header("x-forwarded-client-cert"), None);
    assert_eq!(seen.header("x-forwarded-for"), Some(addresses));
    assert_eq!(seen.header("x-forwarded-proto"), Some(scheme));
    assert!(seen.headers.keys().all(|name| !name.as_str().starts_with("x-outrider-")), "{seen:?}");
}

#[tokio::test]
async fn a_trusted_hop_in_plaintext_tells_who_called_it_and_no_more() {
    let app = HttpApp::echo().await;
    for (hops, addresses) in [(1, "203.0.113.9, 127.0.0.1"), (2, "198.51.100.7, 203.0.113.9, 127.0.0.1")] {
        let pod = Pod::new(app.address(), &format!("{PERMISSIVE}, trusted_hops: {hops}")).await;
        forwarded(&pod, &app, Version::HTTP_11, (addresses, "https")).await;
    }
}

#[tokio::test]
async fn a_request_in_plaintext_reaches_the_app_with_the_address_that_it_came_from() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        forwarded(&pod, &app, version, ("127.0.0.1", "http")).await;
    }
    assert_eq!(pod.exceptions(), [2, 0, 0]);
    let bytes = pod.came_by(Exception::Plaintext);
    let carried = [&bytes.received_bytes, &bytes.sent_bytes].map(|bytes| bytes.load(Ordering::Relaxed));
    assert!(carried.iter().all(|bytes| *bytes > 100), "{carried:?}");
}

#[tokio::test]
async fn an_answer_of_our_own_tells_a_stranger_no_more_than_why() {
    let app = nobody();
    let pod = Pod::new(app, PERMISSIVE).await;
    let response = pod.client(app, Version::HTTP_11).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    assert_eq!(field(&response, "x-outrider-processed"), None);
    assert_eq!(body::text(response.into_body()).await, "outrider: connect_failed\n");
}

#[tokio::test]
async fn peers_come_in_by_mutual_tls_all_the_same_and_their_list_holds() {
    let app = HttpApp::echo().await;
    let keys = format!("{PERMISSIVE}, allow: ['spiffe://test.outrider/web']");
    let pod = Pod::new(app.address(), &keys).await;
    let response = pod.peer(app.address(), "web").await.unwrap().get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let cert = app.only().header("x-forwarded-client-cert").map(str::to_owned);
    assert_eq!(cert.unwrap(), "By=spiffe://test.outrider/orders;URI=spiffe://test.outrider/web");
    let shop = pod.peer(app.address(), "shop").await;
    assert!(shop.is_err() || shop.unwrap().get("/").await.is_err());
    pod.refused(1, Refusal::NotAllowed).await;
    assert_eq!((app.count(), pod.exceptions()), (1, [0; 3]));
}

#[tokio::test]
async fn a_peer_that_is_silent_at_first_is_a_peer() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let stream = pod.dial(app.address()).await;
    // The app was connected to, for it might have spoken first.
    eventually("the app is asked", || app.connections() == 1).await;
    let stream = pod.secure(stream, "web", b"outrider-h2/1").await.unwrap();
    let response = Client::over(stream, Version::HTTP_2).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(app.only().header("x-forwarded-client-cert").is_some());
    assert_eq!(pod.exceptions(), [0; 3]);
}

#[tokio::test]
async fn a_client_of_http_may_be_silent_at_first() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let stream = pod.dial(app.address()).await;
    eventually("the app is asked", || app.connections() == 1).await;
    let response = Client::over(stream, Version::HTTP_11).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(app.only().header("x-forwarded-for"), Some("127.0.0.1"));
}

#[tokio::test]
async fn an_app_that_speaks_first_is_heard() {
    let app = TcpApp::greeter().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let mut stream = pod.dial(app.address()).await;
    hear(&mut stream, GREETING).await;
    talk(&mut stream, b"QUIT\r\n").await;
    stream.shutdown().await.unwrap();
    assert_eq!(ending(&mut stream).await.unwrap(), b"");
    assert_eq!((app.connections(), pod.exceptions()), (1, [1, 0, 0]));
}

#[tokio::test]
async fn other_protocols_pass_as_they_are_with_their_half_closes() {
    let app = TcpApp::start(async |mut stream| {
        let mut request = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut request).await.unwrap();
        stream.write_all(format!("{} bytes", request.len()).as_bytes()).await.unwrap();
    })
    .await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    // The last is nothing yet when it ends.
    for bytes in [body::pattern(100_000), b"\0\r\n\xff".to_vec(), b"get".to_vec()] {
        let mut stream = pod.dial(app.address()).await;
        stream.write_all(&bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = ending(&mut stream).await.unwrap();
        assert_eq!(answer, format!("{} bytes", bytes.len()).as_bytes());
    }
}

#[tokio::test]
async fn an_abort_of_either_side_reaches_the_other_as_one() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            hear(&mut stream, b"\0hello").await;
            stream.write_all(b"\0hello").await.unwrap();
            match ending(&mut stream).await {
                Ok(bytes) if bytes == b"reset me" => {
                    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
                other => tell.send(other.map_err(|error| error.kind())).await.unwrap(),
            }
        }
    })
    .await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let mut stream = pod.dial(app.address()).await;
    talk(&mut stream, b"\0hello").await;
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    let ended = soon("the app sees an end", told.recv()).await.unwrap();
    assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));

    let mut stream = pod.dial(app.address()).await;
    talk(&mut stream, b"\0hello").await;
    stream.write_all(b"reset me").await.unwrap();
    stream.shutdown().await.unwrap();
    is_reset(stream).await;
}

#[tokio::test]
async fn bytes_for_an_app_that_is_not_there_are_reset() {
    let app = nobody();
    let pod = Pod::new(app, PERMISSIVE).await;
    let mut stream = pod.dial(app).await;
    stream.write_all(b"\0hello").await.unwrap();
    is_reset(stream).await;
}

#[tokio::test]
async fn a_port_for_http_takes_nothing_else() {
    let (http, other) = (HttpApp::echo().await, TcpApp::greeter().await);
    let keys = format!("protocol: http, {PERMISSIVE}");
    let pod = Pod::with(&ports(&[port(http.address(), &keys), port(other.address(), &keys)])).await;
    let response = pod.client(http.address(), Version::HTTP_11).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    for (count, bytes) in [&b"\0hello"[..], b"EHLO x\r\n", b"get\0"].into_iter().enumerate() {
        let mut stream = pod.dial(other.address()).await;
        stream.write_all(bytes).await.unwrap();
        is_reset(stream).await;
        pod.refused(count as u64 + 1, Refusal::Plaintext).await;
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn a_port_for_bytes_carries_requests_as_they_are() {
    let app = TcpApp::echo().await;
    let pod = Pod::new(app.address(), &format!("protocol: tcp, {PERMISSIVE}")).await;
    let mut stream = pod.dial(app.address()).await;
    talk(&mut stream, b"GET /  HTTP/1.1\r\nHost: orders\r\n\r\n").await;
    talk(&mut stream, b"\0").await;
}

#[tokio::test]
async fn a_preface_may_come_in_parts() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let mut sidecar = pod.dial(app.address()).await;
    tokio::spawn(async move {
        use tokio::io::AsyncReadExt as _;
        let mut far = far;
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        // As many packets, of which some at least are read one by one.
        for byte in preface {
            sidecar.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(tokio::io::copy_bidirectional(&mut far, &mut sidecar).await);
    });
    let response = Client::over(near, Version::HTTP_2).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(app.only().version, Version::HTTP_2);
}

#[tokio::test]
async fn long_heads_and_unknown_methods_are_http() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    let long = "x".repeat(9 * 1024);
    for request in [
        format!("GET / HTTP/1.1\r\nHost: orders\r\nX-Long: {long}\r\nConnection: close\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"),
        "BREW /tea HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n".to_owned(),
        "\r\nM-SEARCH / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n".to_owned(),
    ] {
        let before = app.count();
        let answer = exchange_over(pod.dial(app.address()).await, request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(app.seen()[before].header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn silence_and_what_tells_nothing_are_refused_in_time() {
    let app = HttpApp::echo().await;
    let pod = Pod::with(&format!(
        "{}\nlimits: {{handshake_timeout: 300ms}}",
        ports(&[port(app.address(), PERMISSIVE)])
    ))
    .await;
    for (count, bytes) in [&b""[..], b"GET / HTT", b"\x16\x03\x01"].into_iter().enumerate() {
        let mut stream = pod.dial(app.address()).await;
        stream.write_all(bytes).await.unwrap();
        is_reset(stream).await;
        pod.refused(count as u64 + 1, Refusal::Timeout).await;
    }
    assert_eq!((app.count(), pod.exceptions()), (0, [0; 3]));
}

#[tokio::test]
async fn from_its_day_on_plaintext_is_refused() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), NO_LONGER).await;
    let answer = exchange_over(pod.dial(app.address()).await, b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    pod.refused(1, Refusal::Plaintext).await;
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn one_address_has_a_bound() {
    let app = TcpApp::echo().await;
    let yaml =
        format!("{}\nlimits: {{max_connections_per_peer: 2}}", ports(&[port(app.address(), PERMISSIVE)]));
    let pod = Pod::with(&yaml).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = pod.dial(app.address()).await;
        talk(&mut stream, b"\0").await;
        held.push(stream);
    }
    let mut third = pod.dial(app.address()).await;
    third.write_all(b"\0").await.unwrap();
    is_reset(third).await;
    // Those who prove who they are have a bound of their own.
    assert!(pod.secure(pod.dial(app.address()).await, "web", b"outrider-tcp/1").await.is_ok());
    drop(held.pop());
    eventually("the place is free", || {
        pod.orders.listener(super::LISTENER).active.load(Ordering::Relaxed) <= 1
    })
    .await;
    talk(&mut pod.dial(app.address()).await, b"\0").await;
}
