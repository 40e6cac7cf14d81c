//! TLS 1.2, which our TLS library cannot even speak: OpenSSL plays the peer.

use http::StatusCode;
use outrider::model::{handshake::TlsFailure, runtime::Refusal};

use crate::harness::{
    Client, HttpApp, TestMesh,
    client::field,
    eventually,
    openssl::{self, Side},
    soon,
};

#[tokio::test]
async fn a_tls12_peer_is_not_let_in() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    for (version, protocol) in [("-tls1_3", Some("TLSv1.3")), ("-tls1_2", None)] {
        let web = mesh.ca.leaf("web");
        let Some(mut command) = openssl::command(&mesh, Side::Client, &web, &mesh.ca).await else { return };
        let connect = orders.address().to_string();
        command.args([version, "-alpn", "outrider-h2/1", "-connect", &connect]);
        let output = soon("openssl ends", command.output()).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        match protocol {
            Some(protocol) => assert!(text.contains(protocol), "{version}: {text}"),
            None => assert!(text.contains("no peer certificate available"), "{version}: {text}"),
        }
    }
    eventually("it is counted", || orders.refused(Refusal::OldTls) == 1).await;
    assert_eq!(app.connections(), 0);
}

#[tokio::test]
async fn a_tls12_endpoint_is_not_talked_to() {
    let mesh = TestMesh::new();
    let leaf = mesh.ca.leaf("orders");
    let arguments = |version| [version, "-alpn", "outrider-h2/1", "-Verify", "2"];
    let Some(command) = openssl::command(&mesh, Side::Server, &leaf, &mesh.ca).await else { return };
    let (_child, address) = openssl::serve(command, &arguments("-tls1_2")).await;
    let web = mesh.caller(&[address], "retry: {max_retries: 0}").await;
    let response = Client::http1(web.address()).await.post("/", "secret").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));
    let cluster = web.cluster("orders");
    let counted =
        cluster.runtime.tls_failures[TlsFailure::OldTls as usize].load(std::sync::atomic::Ordering::Relaxed);
    let told = cluster.endpoints[0].runtime.tls_failure().unwrap();
    assert!(counted == 1 && told.contains("sidecars speak TLS 1.3 only"), "{told}");

    // The same server with TLS 1.3 is talked to: what is refused above is the version.
    let Some(command) = openssl::command(&mesh, Side::Server, &leaf, &mesh.ca).await else { return };
    let (_child, address) = openssl::serve(command, &arguments("-tls1_3")).await;
    let web = mesh.caller(&[address], "retry: {max_retries: 0}").await;
    let mut client = Client::http1(web.address()).await;
    let asking = tokio::spawn(async move { client.get("/").await.map(|response| response.status()) });
    eventually("the handshake succeeds", || web.cluster("orders").endpoints[0].runtime.tls().is_some()).await;
    asking.abort();
}
