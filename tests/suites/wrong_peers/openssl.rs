//! TLS 1.2, which our TLS library cannot even speak: OpenSSL plays the peer. Where it is not installed the tests say so.

use std::{fs, process::Stdio};

use http::StatusCode;
use outrider::model::runtime::Refusal;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::harness::{Client, HttpApp, TestMesh, client::field, eventually, soon};

/// OpenSSL with the certificate of a service of the mesh; `None`, and said so, without OpenSSL.
async fn openssl(mesh: &TestMesh, service: &str) -> Option<Command> {
    let is_there = Command::new("openssl").arg("version").stdout(Stdio::null()).status().await.is_ok();
    if !is_there {
        eprintln!("SKIPPED: openssl is not installed, TLS 1.2 peers are not tested");
        return None;
    }
    let leaf = mesh.ca.leaf(service);
    let path = |kind: &str| mesh.dir().join(format!("openssl-{service}.{kind}"));
    fs::write(path("crt"), leaf.pem()).unwrap();
    fs::write(path("key"), leaf.key_pem()).unwrap();
    fs::write(path("bundle"), mesh.ca.bundle().to_pem()).unwrap();
    let mut command = Command::new("openssl");
    command.kill_on_drop(true).stdin(Stdio::null()).stderr(Stdio::null());
    command.env("OPENSSL_CONF", "/dev/null");
    let (crt, key, bundle) = (path("crt"), path("key"), path("bundle"));
    let files = [("-cert", crt), ("-key", key), ("-CAfile", bundle)];
    command.arg(if service == "orders" { "s_server" } else { "s_client" });
    for (flag, path) in files {
        command.arg(flag).arg(path);
    }
    Some(command)
}

#[tokio::test]
async fn a_tls12_peer_is_not_let_in() {
    let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
    let orders = mesh.callee("orders", app.address(), "").await;
    for (version, protocol) in [("-tls1_3", Some("TLSv1.3")), ("-tls1_2", None)] {
        let Some(mut command) = openssl(&mesh, "web").await else { return };
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

/// Starts a server that speaks that version only; the port is in its first lines.
async fn server(mesh: &TestMesh, version: &str) -> Option<(Child, std::net::SocketAddr)> {
    let mut command = openssl(mesh, "orders").await?;
    command.args([version, "-alpn", "outrider-h2/1", "-accept", "127.0.0.1:0", "-Verify", "2"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = soon("openssl says its port", lines.next_line()).await.unwrap().unwrap();
        if let Some(address) = line.strip_prefix("ACCEPT ") {
            // Read on, or OpenSSL would wait for us.
            tokio::spawn(async move { while let Ok(Some(_line)) = lines.next_line().await {} });
            return Some((child, address.parse().unwrap()));
        }
    }
}

#[tokio::test]
async fn a_tls12_endpoint_is_not_talked_to() {
    let mesh = TestMesh::new();
    let Some((_child, address)) = server(&mesh, "-tls1_2").await else { return };
    let web = mesh.caller(&[address], "retry: {max_retries: 0}").await;
    let response = Client::http1(web.address()).await.post("/", "secret").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("connect_failed"));

    // The same server with TLS 1.3 is talked to: what is refused above is the version.
    let Some((_child, address)) = server(&mesh, "-tls1_3").await else { return };
    let web = mesh.caller(&[address], "retry: {max_retries: 0}").await;
    let mut client = Client::http1(web.address()).await;
    let asking = tokio::spawn(async move { client.get("/").await.map(|response| response.status()) });
    eventually("the handshake succeeds", || web.cluster("orders").endpoints[0].runtime.tls().is_some()).await;
    asking.abort();
}
