//! Who may not come in.

use http::{Request, StatusCode};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrider::model::runtime::Refusal;
use rustls::{ClientConfig, HandshakeKind};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    BoxError, HttpApp, Sidecar, TcpApp, TestMesh, body,
    ca::Wrong,
    client::exchange,
    eventually,
    peer::{self, ALPN_H2, ALPN_TCP},
    soon,
};

/// `orders` behind its sidecar, with nobody calling yet.
struct Target {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
}

impl Target {
    async fn new(keys: &str) -> Self {
        let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
        let orders = mesh.callee("orders", app.address(), keys).await;
        Self { mesh, app, orders }
    }

    /// Does all that a sidecar would do to send a request.
    async fn try_request(&self, config: ClientConfig) -> Result<StatusCode, BoxError> {
        let attempt = async {
            let stream = peer::connect(self.orders.address(), config).await?;
            let (mut sender, driver) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(driver);
            let request = Request::post("https://orders/").body(body::full("let me in"))?;
            Ok(sender.send_request(request).await?.status())
        };
        soon("an outcome", attempt).await
    }

    /// Nothing got through, and it was counted once, for that reason and no other.
    async fn refused(&self, what: &str, reason: Refusal) {
        let claim = format!("{what} is refused as {reason:?}");
        eventually(&claim, || self.orders.refused(reason) == 1).await;
        let all: u64 = Refusal::ALL.iter().map(|reason| self.orders.refused(*reason)).sum();
        assert_eq!(all, 1, "{what} is counted once");
        assert_eq!((self.app.count(), self.app.connections()), (0, 0), "{what} reached the app");
    }
}

#[tokio::test]
async fn a_proper_peer_is_let_in() {
    let target = Target::new("").await;
    let config = peer::client_config(&target.mesh.ca, Some(&target.mesh.ca.leaf("web")), &[ALPN_H2]);
    assert_eq!(target.try_request(config).await.unwrap(), StatusCode::OK);
    assert_eq!(target.app.count(), 1);
}

#[tokio::test]
async fn a_wrong_certificate_of_any_kind_is_refused() {
    for wrong in Wrong::ALL {
        let target = Target::new("").await;
        let leaf = target.mesh.ca.wrong(wrong, "web");
        let config = peer::client_config(&target.mesh.ca, Some(&leaf), &[ALPN_H2]);
        assert!(target.try_request(config).await.is_err(), "{wrong:?}");
        target.refused(&format!("{wrong:?}"), Refusal::BadCertificate).await;
    }
}

#[tokio::test]
async fn a_wrong_certificate_of_any_kind_is_refused_where_an_allow_list_names_its_service() {
    for wrong in Wrong::ALL {
        let target = Target::new("allow: ['spiffe://test.outrider/web']").await;
        let leaf = target.mesh.ca.wrong(wrong, "web");
        let config = peer::client_config(&target.mesh.ca, Some(&leaf), &[ALPN_H2]);
        assert!(target.try_request(config).await.is_err(), "{wrong:?}");
        target.refused(&format!("{wrong:?}"), Refusal::BadCertificate).await;
    }
}

#[tokio::test]
async fn no_certificate_is_refused() {
    let target = Target::new("").await;
    let config = peer::client_config(&target.mesh.ca, None, &[ALPN_H2]);
    assert!(target.try_request(config).await.is_err());
    target.refused("no certificate", Refusal::NoCertificate).await;
}

#[tokio::test]
async fn a_service_that_the_allow_list_does_not_name_is_refused() {
    let target = Target::new("allow: ['spiffe://test.outrider/web']").await;
    let config = peer::client_config(&target.mesh.ca, Some(&target.mesh.ca.leaf("web2")), &[ALPN_H2]);
    assert!(target.try_request(config).await.is_err());
    target.refused("web2", Refusal::NotAllowed).await;
    // And the one that it names is not.
    let config = peer::client_config(&target.mesh.ca, Some(&target.mesh.ca.leaf("web")), &[ALPN_H2]);
    assert_eq!(target.try_request(config).await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn plaintext_is_refused() {
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",
    ] {
        let target = Target::new("").await;
        let answer = exchange(target.orders.address(), bytes).await;
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
        target.refused("plaintext", Refusal::Plaintext).await;
    }
}

#[tokio::test]
async fn a_peer_that_speaks_another_protocol_is_refused() {
    for alpn in [&[][..], &[&b"h2"[..]], &[b"http/1.1"], &[b"outrider-h2/2"], &[ALPN_TCP]] {
        let target = Target::new("").await;
        let config = peer::client_config(&target.mesh.ca, Some(&target.mesh.ca.leaf("web")), alpn);
        assert!(target.try_request(config).await.is_err(), "{alpn:?}");
        target.refused(&format!("{alpn:?}"), Refusal::NoProtocol).await;
    }
}

#[tokio::test]
async fn a_peer_that_does_not_finish_its_handshake_is_cut_off() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let yaml = format!(
        "limits: {{handshake_timeout: 200ms}}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]",
        app.address(),
    );
    let orders = mesh.start("orders", &yaml).await;
    let mut stream = TcpStream::connect(orders.address()).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    soon("the connection is closed", async { drop(stream.read_to_end(&mut Vec::new()).await) }).await;
    eventually("it is counted", || orders.refused(Refusal::Timeout) == 1).await;
}

#[tokio::test]
async fn wrong_peers_reach_no_opaque_app_either() {
    for wrong in Wrong::ALL {
        let (mesh, app) = (TestMesh::new(), TcpApp::silent().await);
        let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
        let leaf = mesh.ca.wrong(wrong, "web");
        let config = peer::client_config(&mesh.ca, Some(&leaf), &[ALPN_TCP]);
        if let Ok(mut stream) = peer::connect(orders.address(), config).await {
            // An OPEN frame, as a sidecar would send it.
            drop(stream.write_all(&[1, 0, 0]).await);
            let mut heard = Vec::new();
            drop(soon("the close", stream.read_to_end(&mut heard)).await);
            assert!(heard.is_empty(), "{wrong:?}");
        }
        eventually("it is refused", || orders.refused(Refusal::BadCertificate) == 1).await;
        assert_eq!(app.connections(), 0, "{wrong:?}");
    }
}

#[tokio::test]
async fn refusals_disturb_no_proper_peer() {
    let target = Target::new("").await;
    let web = target.mesh.caller(&[target.orders.address()], "").await;
    let intruders = async {
        for _ in 0..5 {
            for wrong in Wrong::ALL {
                let leaf = target.mesh.ca.wrong(wrong, "web");
                let config = peer::client_config(&target.mesh.ca, Some(&leaf), &[ALPN_H2]);
                assert!(target.try_request(config).await.is_err());
            }
        }
    };
    let proper = async {
        let mut client = crate::harness::Client::http1(web.address()).await;
        for _ in 0..100 {
            let response = client.post("/", "hello").await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(body::text(response.into_body()).await, "hello");
        }
    };
    tokio::join!(intruders, proper);
    assert_eq!(target.app.count(), 100);
}

#[tokio::test]
async fn no_session_is_resumed() {
    let target = Target::new("").await;
    let config = peer::client_config(&target.mesh.ca, Some(&target.mesh.ca.leaf("web")), &[ALPN_H2]);
    for _ in 0..3 {
        let mut stream = peer::connect(target.orders.address(), config.clone()).await.unwrap();
        // SETTINGS of the sidecar: a ticket would have come before them.
        let mut bytes = [0; 9];
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        soon("the first frame", stream.read_exact(&mut bytes)).await.unwrap();
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}
