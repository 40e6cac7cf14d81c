//! TLS of the app's own inside a tunnel: what `https_proxy` is set for.

use std::sync::{Arc, Mutex};

use outrider::model::flag::ResponseFlag;
use rustls::{ClientConfig, RootCertStore, ServerConfig, pki_types::ServerName, version::TLS13};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_rustls::TlsConnector;

use super::*;
use crate::harness::peer::Tap;

/// The name that servers with TLS of their own go by here.
const NAME: &str = "api.web.example";
/// What their clients ask for.
const DESTINATION: &str = "api.web.example:443";

/// A server for [`NAME`] that echoes over TLS.
async fn tls_echo(ca: &TestCa) -> TlsPeer {
    let leaf = ca.web_leaf(NAME);
    let config = ServerConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
        .unwrap();
    TlsPeer::start(config, async |stream| {
        let (mut read, mut write) = tokio::io::split(stream);
        drop(tokio::io::copy(&mut read, &mut write).await);
        drop(write.shutdown().await);
    })
    .await
}

/// A client that believes what that authority signs.
fn client(ca: &TestCa) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(ca.root()).unwrap();
    let config = ClientConfig::builder_with_provider(outrider_certs::rustls_verify::provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

/// A side as a stream, for libraries; it is gone when that is.
fn stream(side: Side) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        match side {
            Side::Http1(mut tcp) => {
                let (mut read, mut write) = tcp.split();
                tokio::select! {
                    _ = tokio::io::copy(&mut from, &mut write) => {}
                    _ = tokio::io::copy(&mut read, &mut to) => {}
                }
            }
            Side::Http2 { mut send, mut receive, .. } => {
                let up = async {
                    let mut buffer = vec![0; 16 * 1024];
                    while let Ok(count @ 1..) = from.read(&mut buffer).await {
                        send.send_data(Bytes::copy_from_slice(&buffer[..count]), false).unwrap();
                    }
                };
                let down = async {
                    while let Some(Ok(bytes)) = receive.data().await {
                        receive.flow_control().release_capacity(bytes.len()).unwrap();
                        to.write_all(&bytes).await.unwrap();
                    }
                };
                tokio::select! {
                    () = up => {}
                    () = down => {}
                }
            }
        }
    });
    near
}

/// Asks for a tunnel and speaks TLS in it with whoever proves to be [`NAME`].
async fn speak_tls(web: &Sidecar, version: Version, ca: &TestCa) {
    let (told, side) = ask(web.address(), version, DESTINATION).await;
    assert_eq!(told.status, StatusCode::OK, "{told:?}");
    let name = ServerName::try_from(NAME).unwrap();
    let handshake = client(ca).connect(name, stream(side));
    let mut tls = soon("the handshake", handshake).await.unwrap();
    tls.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("the echo", tls.read_exact(&mut back)).await.unwrap();
    assert_eq!(&back, b"hello");
}

/// The sidecar of `web` with a cluster for [`NAME`].
async fn caller(mesh: &TestMesh, endpoint: SocketAddr, keys: &str) -> Sidecar {
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters:\n- name: orders\n  authorities: [{NAME}]\n  \
         endpoints: [{{address: '{endpoint}'}}]\n  {keys}"
    );
    mesh.start("web", &yaml).await
}

/// The keys of a cluster that is reached by public TLS.
fn public(mesh: &TestMesh, ca: &TestCa) -> String {
    std::fs::write(mesh.dir().join("web.pem"), ca.bundle().to_pem()).unwrap();
    format!("tls: public\n  public: {{server_name: {NAME}, roots: web.pem}}")
}

#[tokio::test]
async fn tls_of_an_apps_own_passes_from_app_to_app_through_the_mesh() {
    let (mesh, ca) = (TestMesh::new(), TestCa::new());
    let app = tls_echo(&ca).await;
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let id = crate::harness::ca::id("orders");
    let web = caller(&mesh, orders.address(), &format!("spiffe_ids: ['{id}']")).await;
    for version in VERSIONS {
        speak_tls(&web, version, &ca).await;
    }
    assert_eq!(app.connections(), 2);
}

#[tokio::test]
async fn tls_of_an_apps_own_reaches_a_public_server_without_ours_around_it() {
    let (mesh, ca) = (TestMesh::new(), TestCa::new());
    let server = tls_echo(&ca).await;
    let tap = Tap::start(server.address()).await;
    let web = caller(&mesh, tap.address(), &public(&mesh, &ca)).await;
    for version in VERSIONS {
        speak_tls(&web, version, &ca).await;
    }
    // The app's own, with its name in the clear; its connections are not counted as unencrypted.
    let name = NAME.as_bytes();
    assert_eq!(tap.bytes().windows(name.len()).filter(|window| *window == name).count(), 2);
    let unencrypted = &web.cluster("orders").runtime.unencrypted.connections;
    assert_eq!(unencrypted.load(Ordering::Relaxed), 0);
    eventually("they are over", || {
        web.cluster("orders").endpoints[0].runtime.connections.load(Ordering::Relaxed) == 0
    })
    .await;
}

#[tokio::test]
async fn an_app_that_does_not_trust_the_server_tells_so_itself() {
    let (mesh, ca) = (TestMesh::new(), TestCa::new());
    let server = tls_echo(&ca).await;
    let web = caller(&mesh, server.address(), &public(&mesh, &ca)).await;
    let (_told, side) = ask(web.address(), Version::HTTP_11, DESTINATION).await;
    let name = ServerName::try_from(NAME).unwrap();
    assert!(client(&TestCa::new()).connect(name, stream(side)).await.is_err());
}

#[tokio::test]
async fn nothing_but_tls_goes_to_a_public_server() {
    let (mesh, ca) = (TestMesh::new(), TestCa::new());
    let heard: Arc<Mutex<Vec<u8>>> = Arc::default();
    let log = Arc::clone(&heard);
    let server = TcpApp::start(move |mut stream| {
        let log = Arc::clone(&log);
        async move {
            let mut bytes = Vec::new();
            drop(stream.read_to_end(&mut bytes).await);
            log.lock().unwrap().extend_from_slice(&bytes);
        }
    })
    .await;
    let web = caller(&mesh, server.address(), &public(&mesh, &ca)).await;
    let lines: [&[u8]; 5] = [
        b"GET /?token=secret HTTP/1.1\r\nHost: api.web.example\r\n\r\n",
        b"\x16\x03\x01",
        // An alert, and a record that is no ClientHello.
        b"\x15\x03\x01\0\x02\x02\x28",
        b"\x16\x03\x01\0\x04\x02\0\0\0",
        b"",
    ];
    let mut refused = 0;
    for version in VERSIONS {
        for bytes in lines {
            let (told, mut side) = ask(web.address(), version, DESTINATION).await;
            assert_eq!(told.status, StatusCode::OK);
            side.write(bytes).await.unwrap();
            if bytes.len() < 6 {
                side.finish().await;
            }
            let ended = soon("the end", side.read_to_end()).await;
            assert!(ended.is_err() || version == Version::HTTP_2, "{bytes:?}");
            refused += 1;
            eventually("it is counted", || web.flagged(ResponseFlag::DPE) == refused).await;
        }
    }
    eventually("its connections are over", || {
        web.cluster("orders").endpoints[0].runtime.connections.load(Ordering::Relaxed) == 0
    })
    .await;
    assert_eq!(*heard.lock().unwrap(), b"");
    assert_eq!(web.cluster("orders").runtime.upgrades.sent_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_client_hello_that_comes_in_pieces_is_one() {
    let (mesh, ca) = (TestMesh::new(), TestCa::new());
    let server = TcpApp::start(async |mut stream| {
        let mut first = [0; 8];
        stream.read_exact(&mut first).await.unwrap();
        stream.write_all(&first).await.unwrap();
        drop(stream.read(&mut first).await);
    })
    .await;
    let web = caller(&mesh, server.address(), &public(&mesh, &ca)).await;
    for version in VERSIONS {
        let (_told, mut side) = ask(web.address(), version, DESTINATION).await;
        let hello = b"\x16\x03\x01\x00\x74\x01\x00\x00";
        for byte in hello.chunks(1) {
            side.write(byte).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(soon("all of it", side.read_exact(hello.len())).await.unwrap(), hello);
    }
    // Some of it right behind the head.
    let head = format!("CONNECT {DESTINATION} HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01");
    let (_told, mut side) = call_http1(web.address(), &head).await;
    side.write(b"\x00\x74\x01\x00\x00").await.unwrap();
    let hello = b"\x16\x03\x01\x00\x74\x01\x00\x00";
    assert_eq!(soon("all of it", side.read_exact(hello.len())).await.unwrap(), hello);
}
