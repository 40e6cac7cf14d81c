//! Opaque streams.

use http::Method;
use outrider::model::outlier::Reason;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{endpoint, is_ejected};
use crate::harness::{HttpApp, TcpApp, TestMesh, app::nobody, client::call, eventually};

const KEYS: &str = "balance: round_robin, outlier_detection: {ejection_time: 1h}";

async fn said_back(web: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(web).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert_eq!(said, b"hello");
}

#[tokio::test]
async fn streams_go_to_those_that_take_them() {
    let (mesh, app) = (TestMesh::new(), TcpApp::echo().await);
    let good = mesh.callee("orders", app.address(), "protocol: tcp").await;
    // Nobody at the address, and a sidecar whose app is not there.
    let without_app = mesh.callee("orders", nobody(), "protocol: tcp").await;
    for (bad, reason) in [(nobody(), Reason::LocalFailures), (without_app.address(), Reason::GatewayFailures)]
    {
        let web = mesh.tcp_caller(&[bad, good.address()], KEYS).await;
        for _ in 0..20 {
            said_back(web.address()).await;
        }
        assert!(is_ejected(&endpoint(&web, bad)));
        assert!(!is_ejected(&endpoint(&web, good.address())));
        assert_eq!(web.cluster("orders").runtime.outlier.ejected_for(reason), 1);
        assert_eq!(web.retries(), 5, "after that nothing is to be opened elsewhere");
    }
}

#[tokio::test]
async fn an_app_that_resets_every_stream_at_once_rests() {
    let mesh = TestMesh::new();
    let echo = TcpApp::echo().await;
    let bad = TcpApp::start(async |mut stream| {
        let mut some = [0; 1];
        drop(stream.read(&mut some).await);
        socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    })
    .await;
    let good = mesh.callee("orders", echo.address(), "protocol: tcp").await;
    let bad = mesh.callee("orders", bad.address(), "protocol: tcp").await;
    let keys = "balance: round_robin, outlier_detection: {ejection_time: 1h, window: 1s}";
    let web = mesh.tcp_caller(&[bad.address(), good.address()], keys).await;
    // A window judges: streams go on until one is over.
    let bad = endpoint(&web, bad.address());
    let address = web.address();
    let streams = tokio::spawn(async move {
        loop {
            let mut stream = TcpStream::connect(address).await.unwrap();
            drop(stream.write_all(b"hello").await);
            drop(stream.shutdown().await);
            drop(stream.read_to_end(&mut Vec::new()).await);
        }
    });
    eventually("it rests", || is_ejected(&bad)).await;
    streams.abort();
    assert!(!is_ejected(&endpoint(&web, good.address())));
}

#[tokio::test]
async fn who_is_reached_without_the_mesh_rests_as_well() {
    let mesh = TestMesh::new();
    let good = HttpApp::named("good").await;
    let gone = nobody();
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{gone}'}}, {{address: '{}'}}], {KEYS}}}]",
        good.address(),
    );
    let web = mesh.start("web", &yaml).await;
    for _ in 0..20 {
        call(web.address(), Method::GET).await;
    }
    assert!(is_ejected(&endpoint(&web, gone)));
    assert_eq!(web.retries(), 5);
}
