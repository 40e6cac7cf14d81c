//! Tunnels that an app asks for go by the port that it names.

use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{Three, name_of};
use crate::harness::client::read_head;

async fn ask(web: &crate::harness::Sidecar, authority: &str) -> String {
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream
        .write_all(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let (head, _is_whole) = read_head(&mut stream).await;
    match head.split(' ').nth(1) {
        Some("200") => name_of(&mut stream).await,
        other => other.unwrap_or_default().to_owned(),
    }
}

#[tokio::test]
async fn a_tunnel_goes_by_its_service_and_port() {
    let three = Three::new().await;
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n{}\n\
         tcp_routes: [{{name: r, services: [orders], ports: [5432], clusters: [{{name: a}}]}},\n\
         {{name: names, services: [orders], ports: [5434], snis: [x.example], clusters: [{{name: b}}]}},\n\
         {{name: any, ports: [7000], clusters: [{{name: b}}]}}]",
        three.clusters("")
    );
    let web = three.mesh.start("web", &yaml).await;
    for (authority, expected) in [
        ("orders:5432", "a"),
        // The service has routes, and none is for that port; a name is not known before there is a tunnel.
        ("orders:5433", "404"),
        ("orders:5434", "404"),
        ("b:5432", "b"),
        ("a:7000", "b"),
        ("unknown:7000", "b"),
        ("unknown:7001", "404"),
    ] {
        assert_eq!(ask(&web, authority).await, expected, "{authority}");
    }
}
