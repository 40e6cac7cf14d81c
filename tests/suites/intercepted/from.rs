//! Exceptions that hold for some addresses alone.

use http::{StatusCode, Version};
use outrider::model::{listener::Exception, runtime::Refusal};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{PERMISSIVE, Pod, ending, is_reset, port, ports, talk};
use crate::harness::{Client, HttpApp, TcpApp, body, client::field, soon};

/// Who is on the list, and who is not.
const LISTED: [u8; 4] = [127, 0, 0, 2];
const OTHER: [u8; 4] = [127, 0, 0, 1];
/// `ContentType.alert` (RFC 8446 §5.1).
const ALERT: u8 = 21;
const FROM: &str = "plaintext_from: [127.0.0.2, 10.0.0.0/8]";

async fn dial(pod: &Pod, from: [u8; 4], app: std::net::SocketAddr) -> TcpStream {
    pod.net.dial_from(from, pod.address(), app).await.unwrap()
}

/// Whoever sends that gets no answer to it: TLS's alert, or the end.
async fn gets_nothing(mut stream: TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    let answer = ending(&mut stream).await.unwrap_or_default();
    assert!(answer.is_empty() || answer.first() == Some(&ALERT), "{answer:?}");
}

#[tokio::test]
async fn plaintext_comes_in_from_the_addresses_on_the_list_alone() {
    let (http, tcp) = (HttpApp::echo().await, TcpApp::echo().await);
    let keys = format!("{PERMISSIVE}, {FROM}");
    let pod = Pod::with(&ports(&[port(http.address(), &keys), port(tcp.address(), &keys)])).await;
    talk(&mut dial(&pod, LISTED, tcp.address()).await, b"\0").await;
    let mut client = Client::over(dial(&pod, LISTED, http.address()).await, Version::HTTP_11).await;
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    gets_nothing(dial(&pod, OTHER, http.address()).await, b"GET / HTTP/1.1\r\nHost: o\r\n\r\n").await;
    pod.refused(1, Refusal::Plaintext).await;
    assert_eq!((http.count(), tcp.connections(), pod.exceptions()), (1, 1, [2, 0, 0]));
    // A peer proves who it is, wherever it calls from.
    let response = pod.peer(http.address(), "web").await.unwrap().get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn so_do_probes_and_the_tls_of_the_app() {
    let (http, tcp) = (HttpApp::named("orders").await, TcpApp::echo().await);
    let pod = Pod::with(&ports(&[
        port(http.address(), &format!("probes: [/healthz], {FROM}")),
        port(tcp.address(), &format!("app_tls: passthrough, {FROM}")),
    ]))
    .await;
    let probe = b"GET /healthz HTTP/1.1\r\nHost: o\r\n\r\n";
    let mut client = Client::over(dial(&pod, LISTED, http.address()).await, Version::HTTP_11).await;
    let response = client.get("/healthz").await.unwrap();
    assert_eq!(body::text(response.into_body()).await, "orders");
    gets_nothing(dial(&pod, OTHER, http.address()).await, probe).await;
    pod.refused(1, Refusal::Plaintext).await;

    let hello = hello();
    talk(&mut dial(&pod, LISTED, tcp.address()).await, &hello).await;
    // From elsewhere it is a handshake like any other: answered by us, while the app would echo.
    let mut stream = dial(&pod, OTHER, tcp.address()).await;
    stream.write_all(&hello).await.unwrap();
    let mut answer = [0; 6];
    soon("an answer", stream.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer[5], 2, "a ServerHello");
    assert_eq!((http.count(), tcp.connections()), (1, 1));
    assert_eq!(pod.exceptions(), [0, 1, 1]);
}

/// The first flight of some client of TLS that knows nothing of the mesh.
fn hello() -> Vec<u8> {
    let roots = rustls::RootCertStore::empty();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from("orders").unwrap();
    let mut client = rustls::ClientConnection::new(std::sync::Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn an_address_that_is_taken_off_the_list_is_out() {
    let (http, tcp) = (HttpApp::echo().await, TcpApp::echo().await);
    let of = |from: &str| {
        let keys = format!("{PERMISSIVE}, plaintext_from: [{from}]");
        ports(&[port(http.address(), &keys), port(tcp.address(), &keys)])
    };
    let mut pod = Pod::with(&of("127.0.0.0/30")).await;
    let mut stays = dial(&pod, LISTED, tcp.address()).await;
    let mut goes = dial(&pod, OTHER, tcp.address()).await;
    talk(&mut stays, b"\0").await;
    talk(&mut goes, b"\0").await;
    let mut client = Client::over(dial(&pod, OTHER, http.address()).await, Version::HTTP_11).await;
    assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    pod.reload(&of("127.0.0.2/31")).await;
    is_reset(goes).await;
    let response = client.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    assert_eq!(field(&response, "x-outrider-reason"), Some("not_allowed"));
    talk(&mut stays, b"\0 and on").await;
    assert_eq!(pod.came_by(Exception::Plaintext).connections.load(std::sync::atomic::Ordering::Relaxed), 3);
}
