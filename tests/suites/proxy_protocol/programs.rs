//! The same with those who speak it elsewhere: HAProxy before us, HAProxy and nginx behind us.

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use http::{StatusCode, Version};
use tokio::net::{TcpSocket, TcpStream};

use super::peer_behind;
use crate::{
    foreign::programs::{Call, are_here},
    harness::{Client, HttpApp, TestMesh, body, soon},
    processes::{mesh::Network, process::Process, until},
};

/// An address that nobody else uses, for a program that has to be told one.
fn free_address() -> SocketAddr {
    Network::new().host(1).at(8080)
}

/// Starts a program that listens at `address`, with this configuration.
async fn start(name: &str, folder: &Path, config: &str, arguments: &[&str], address: SocketAddr) -> Process {
    let file = folder.join("program.cfg");
    fs::write(&file, config).unwrap();
    let file = file.display().to_string();
    let call = Call::new(name, arguments.iter().map(|argument| argument.replace("FILE", &file)));
    let mut process = Process::start(name, &call.program, call.arguments, folder);
    until(&format!("{name} listens at {address}"), async || {
        assert!(!process.has_ended(), "{name} ended while starting: {}", process.log());
        TcpStream::connect(address).await.is_ok()
    })
    .await;
    process
}

async fn haproxy(folder: &Path, sections: &str, address: SocketAddr) -> Process {
    let config = format!(
        "global\n  maxconn 100\ndefaults\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n{sections}"
    );
    start("haproxy", folder, &config, &["-db", "-f", "FILE"], address).await
}

async fn nginx(folder: &Path, server: &str, address: SocketAddr) -> Process {
    let path = folder.display();
    let mut temporary = String::new();
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        let _infallible = writeln!(temporary, "  {kind}_temp_path {path}/{kind};");
    }
    let config = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log warn;\nevents {{}}\n\
         http {{\n  access_log off;\n{temporary}{server}\n}}\n"
    );
    start("nginx", folder, &config, &["-p", &path.to_string(), "-c", "FILE", "-e", "error.log"], address)
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_says_for_whom_it_speaks() {
    if !are_here(&["haproxy"]) {
        return;
    }
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = mesh.callee("orders", app.address(), "proxy_protocol: {from: [127.0.0.1]}").await;
    for keyword in ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options unique-id,crc32c"] {
        let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
        let sections = format!(
            "listen l\n  mode tcp\n  unique-id-format %[uuid()]\n  bind {address}\n  server s {} {keyword}\n",
            orders.address()
        );
        let _haproxy = haproxy(folder.path(), &sections, address).await;
        // HAProxy's own look at whether it listens is a connection, too, which says nothing.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 5], 0).into()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        let mut web = peer_behind(&mesh, stream, "web").await.unwrap();
        let response = soon("an answer", web.get("/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{keyword}");
        assert_eq!(app.seen().pop().unwrap().header("x-forwarded-for"), Some("127.0.0.5"), "{keyword}");
    }
}

/// What an app says of who calls that hears it from the sidecar by that version; and who it was.
async fn told(mesh: &TestMesh, app: SocketAddr, version: &str) -> (String, SocketAddr) {
    let orders =
        mesh.callee("orders", app, &format!("app_proxy_protocol: {version}, app_protocol: http1")).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 6], 0).into()).unwrap();
    let stream = socket.connect(orders.address()).await.unwrap();
    let source = stream.local_addr().unwrap();
    let mut web = peer_behind(mesh, stream, "web").await.unwrap();
    let response = soon("an answer", web.get("/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    (body::text(response.into_body()).await, source)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_hears_who_calls() {
    if !are_here(&["nginx"]) {
        return;
    }
    let (mesh, address, folder) = (TestMesh::new(), free_address(), tempfile::tempdir().unwrap());
    let server = format!(
        "server {{ listen {address} proxy_protocol; return 200 \"$proxy_protocol_addr:$proxy_protocol_port\"; }}"
    );
    let _nginx = nginx(folder.path(), &server, address).await;
    for version in ["v1", "v2"] {
        let (said, source) = told(&mesh, address, version).await;
        assert_eq!(said, source.to_string(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_hears_who_calls() {
    if !are_here(&["haproxy"]) {
        return;
    }
    let (mesh, address, folder) = (TestMesh::new(), free_address(), tempfile::tempdir().unwrap());
    let sections = format!(
        "frontend f\n  mode http\n  bind {address} accept-proxy\n  \
         http-request return status 200 content-type text/plain lf-string \"%[src]:%[src_port]\"\n"
    );
    let _haproxy = haproxy(folder.path(), &sections, address).await;
    for version in ["v1", "v2"] {
        let (said, source) = told(&mesh, address, version).await;
        assert_eq!(said, source.to_string(), "{version}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_of_haproxy_and_ours_tells_of_its_clients() {
    if !are_here(&["haproxy"]) {
        return;
    }
    let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
    let orders = mesh.callee("orders", app.address(), "").await;
    let cluster = TestMesh::cluster("orders", &[orders.address()], "");
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0', cluster: orders, proxy_protocol: {{from: [127.0.0.1]}}}}]\n\
         clusters: [{cluster}]"
    );
    let gateway = mesh.start("web", &yaml).await;
    let (address, folder) = (free_address(), tempfile::tempdir().unwrap());
    let sections =
        format!("listen l\n  mode tcp\n  bind {address}\n  server s {} send-proxy-v2\n", gateway.address());
    let _haproxy = haproxy(folder.path(), &sections, address).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 7], 0).into()).unwrap();
    let mut client = Client::over(socket.connect(address).await.unwrap(), Version::HTTP_11).await;
    assert_eq!(soon("an answer", client.get("/")).await.unwrap().status(), StatusCode::OK);
    assert_eq!(app.only().header("x-forwarded-for"), Some("127.0.0.7, 127.0.0.1"));
}
