//! Peers that prove who they are, and those who should not be here at all.

use http::StatusCode;
use outrider::model::runtime::Refusal;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{LISTENER, PERMISSIVE, Pod, is_reset, port, ports};
use crate::harness::{
    HttpApp, TcpApp,
    mesh::reset_by,
    peer::{self, ALPN_H2},
    soon,
};

#[tokio::test]
async fn a_peer_reaches_the_port_that_it_dialled() {
    let (first, second) = (HttpApp::named("first").await, HttpApp::named("second").await);
    let pod = Pod::with("intercept: {}").await;
    for app in [&first, &second, &first] {
        let response = pod.peer(app.address(), "web").await.unwrap().get("/").await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!((first.count(), second.count()), (2, 1));
    assert_eq!(pod.exceptions(), [0; 3]);
}

#[tokio::test]
async fn whoever_dials_the_sidecar_itself_is_refused() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    reset_by(pod.address()).await;
    pod.refused(1, Refusal::NotRedirected).await;
}

#[tokio::test]
async fn nobody_is_carried_to_another_host() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), PERMISSIVE).await;
    // TEST-NET-1, and the address that stands for all.
    for (count, elsewhere) in ["192.0.2.1", "0.0.0.0"].into_iter().enumerate() {
        let original = (elsewhere.parse::<std::net::IpAddr>().unwrap(), app.address().port()).into();
        match pod.net.dial(pod.address(), original).await {
            Ok(stream) => is_reset(stream).await,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
        pod.refused(count as u64 + 1, Refusal::NotRedirected).await;
    }
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn each_port_has_its_own_list_of_callers() {
    let (first, second) = (HttpApp::echo().await, HttpApp::echo().await);
    let of = |service: &str| format!("allow: ['spiffe://test.outrider/{service}']");
    let yaml = ports(&[port(first.address(), &of("web")), port(second.address(), &of("shop"))]);
    let pod = Pod::with(&yaml).await;
    let mut denied = 0;
    for (service, app, may) in
        [("web", &first, true), ("web", &second, false), ("shop", &first, false), ("shop", &second, true)]
    {
        let outcome = match pod.peer(app.address(), service).await {
            Ok(mut client) => client.get("/").await.is_ok(),
            Err(_refused) => false,
        };
        assert_eq!(outcome, may, "{service}");
        denied += u64::from(!may);
        pod.refused(denied, Refusal::NotAllowed).await;
    }
    assert_eq!((first.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn each_port_has_its_own_protocol() {
    let (http, tcp) = (HttpApp::echo().await, TcpApp::echo().await);
    let yaml = ports(&[port(http.address(), "protocol: http"), port(tcp.address(), "protocol: tcp")]);
    let pod = Pod::with(&yaml).await;
    let answer = pod.peer(http.address(), "web").await.unwrap().get("/").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let stream = pod.secure(pod.dial(tcp.address()).await, "web", ALPN_H2).await.unwrap();
    drop(super::ending(&mut { stream }).await);
    pod.refused(1, Refusal::NoProtocol).await;
    assert_eq!(tcp.connections(), 0);
}

#[tokio::test]
async fn a_handshake_may_come_a_byte_at_a_time_whatever_else_is_let_in() {
    let app = HttpApp::echo().await;
    for keys in ["", PERMISSIVE, "probes: [/healthz]", "app_tls: passthrough"] {
        let pod = Pod::new(app.address(), keys).await;
        let (near, far) = tokio::io::duplex(64 * 1024);
        let dripping = drip(far, pod.dial(app.address()).await);
        let handshake = peer::secure(near, pod.tls("web", ALPN_H2));
        let (secured, ()) = soon("a handshake", async {
            let mut dripping = std::pin::pin!(dripping);
            let mut handshake = std::pin::pin!(handshake);
            tokio::select! {
                secured = &mut handshake => (secured, ()),
                () = &mut dripping => panic!("{keys}: the connection ended"),
            }
        })
        .await;
        assert!(secured.is_ok(), "{keys}: {secured:?}");
        assert_eq!(pod.exceptions(), [0; 3], "{keys}");
        assert_eq!(
            pod.orders.listener(LISTENER).refused[Refusal::Timeout as usize]
                .load(std::sync::atomic::Ordering::Relaxed),
            0
        );
    }
}

/// Carries bytes between the two, one at a time on the way to the sidecar.
async fn drip(client: tokio::io::DuplexStream, sidecar: TcpStream) {
    use tokio::io::AsyncReadExt as _;
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_sidecar, mut to_sidecar) = sidecar.into_split();
    let up = async {
        while let Ok(byte) = from_client.read_u8().await {
            to_sidecar.write_u8(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = up => {}
        _ended = tokio::io::copy(&mut from_sidecar, &mut to_client) => {}
    }
}

#[tokio::test]
async fn without_an_exception_plaintext_is_refused() {
    let app = HttpApp::echo().await;
    let pod = Pod::new(app.address(), "").await;
    let answer = crate::harness::client::exchange_over(
        pod.dial(app.address()).await,
        b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n",
    )
    .await;
    assert!(!answer.starts_with(b"HTTP"));
    pod.refused(1, Refusal::Plaintext).await;
    assert_eq!(app.connections(), 0);
}
