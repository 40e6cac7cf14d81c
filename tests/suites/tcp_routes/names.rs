//! By the name in a ClientHello: looked at where it decides, and nowhere else.

use std::{net::SocketAddr, sync::Arc};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::{NAMES, Three, name_of, nowhere, silent};
use crate::harness::{
    Sidecar, TestMesh,
    mesh::reset_by,
    peer::{self, TlsPeer},
    soon,
};

/// As [`Three`], of apps with a TLS of their own.
pub(super) struct Secured {
    pub(super) mesh: TestMesh,
    apps: Vec<TlsPeer>,
    sidecars: Vec<Sidecar>,
}

impl Secured {
    pub(super) async fn new() -> Self {
        let (mesh, mut apps, mut sidecars) = (TestMesh::new(), Vec::new(), Vec::new());
        for name in NAMES {
            let app = TlsPeer::start(
                peer::server_config(&mesh.ca, &mesh.ca.leaf(name), &[]),
                move |mut stream| async move {
                    drop(stream.write_all(name.as_bytes()).await);
                    drop(stream.shutdown().await);
                },
            )
            .await;
            sidecars.push(mesh.callee(name, app.address(), "protocol: tcp").await);
            apps.push(app);
        }
        Self { mesh, apps, sidecars }
    }

    pub(super) fn clusters(&self, keys: &str) -> String {
        let sections: Vec<_> = NAMES
            .iter()
            .zip(&self.sidecars)
            .map(|(name, sidecar)| {
                let keys = if *name == "orders" { keys } else { "" };
                TestMesh::cluster(name, &[sidecar.address()], keys)
            })
            .collect();
        format!("clusters: [{}]", sections.join(", "))
    }

    async fn web(&self, routes: &str) -> Sidecar {
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\n{}\ntcp_routes: [{routes}]",
            self.clusters("")
        );
        self.mesh.start("web", &yaml).await
    }

    fn tls(&self) -> ClientConfig {
        peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf("client")), &[])
    }

    /// Who answers a handshake for that name; an address is no name.
    pub(super) async fn ask(&self, stream: TcpStream, name: &str) -> String {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let connecting = TlsConnector::from(Arc::new(self.tls())).connect(name, stream);
        let Ok(mut stream) = soon("a handshake", connecting).await else { return "nobody".to_owned() };
        let mut said = Vec::new();
        drop(soon("a name", stream.read_to_end(&mut said)).await);
        String::from_utf8(said).unwrap()
    }

    async fn ask_at(&self, address: SocketAddr, name: &str) -> String {
        self.ask(TcpStream::connect(address).await.unwrap(), name).await
    }

    pub(super) fn connections(&self) -> Vec<usize> {
        self.apps.iter().map(TlsPeer::connections).collect()
    }
}

const ROUTES: &str = "{name: below, services: [orders], snis: ['*.db.example'], clusters: [{name: a}]}, \
                      {name: exact, snis: [b.db.example], clusters: [{name: b}]}";

#[tokio::test]
async fn tls_goes_by_its_name_and_is_passed_through() {
    let secured = Secured::new().await;
    let rest = "{name: rest, services: [orders], clusters: [{name: orders}]}";
    let web = secured.web(&format!("{ROUTES}, {rest}")).await;
    for (name, expected) in [
        ("a.db.example", "a"),
        ("x.a.db.example", "a"),
        ("b.db.example", "b"),
        ("B.DB.example", "b"),
        ("db.example", "orders"),
        ("elsewhere.example", "orders"),
        // Without a name.
        ("127.0.0.1", "orders"),
    ] {
        assert_eq!(secured.ask_at(web.address(), name).await, expected, "{name}");
    }
    assert_eq!(secured.connections(), [3, 2, 2]);
}

#[tokio::test]
async fn a_name_that_no_route_has_leads_nowhere_where_the_service_has_routes() {
    let secured = Secured::new().await;
    let web = secured.web(ROUTES).await;
    assert_eq!(secured.ask_at(web.address(), "a.db.example").await, "a");
    assert_eq!(secured.ask_at(web.address(), "elsewhere.example").await, "nobody");
    let mut plain = TcpStream::connect(web.address()).await.unwrap();
    plain.write_all(b"not TLS").await.unwrap();
    let ended = soon("the end", plain.read(&mut [0; 1])).await;
    assert_eq!(ended.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!((nowhere(&web, "out"), secured.connections()), (2, vec![0, 1, 0]));
}

#[tokio::test]
async fn a_hello_may_come_in_parts() {
    let secured = Secured::new().await;
    let web = secured.web(ROUTES).await;
    // What a client says first, from a connection of its own.
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let name = ServerName::try_from("b.db.example").unwrap();
    let hello = tokio::spawn(TlsConnector::from(Arc::new(secured.tls())).connect(name, near));
    let mut bytes = vec![0; 64 * 1024];
    let count = soon("a ClientHello", far.read(&mut bytes)).await.unwrap();
    drop(far);
    drop(hello.await);
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for part in bytes[..count].chunks(97) {
        stream.write_all(part).await.unwrap();
        tokio::task::yield_now().await;
    }
    // A record of a handshake comes back: somebody has understood all of it.
    assert_eq!(soon("an answer", stream.read_u8()).await.unwrap(), 22);
    assert_eq!(secured.connections(), [0, 0, 1]);
}

#[tokio::test]
async fn a_client_that_says_nothing_goes_by_what_else_is_known_after_a_time() {
    let three = Three::new().await;
    let rest = "{name: rest, services: [orders], clusters: [{name: b}]}";
    let yaml = format!("limits: {{header_read_timeout: 1s}}\n{}", three.yaml(&format!("{ROUTES}, {rest}")));
    let web = three.mesh.start("web", &yaml).await;
    assert_eq!(silent(web.address()).await, "b");
    // And one that says something else at once.
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"hello\n").await.unwrap();
    assert_eq!(
        (name_of(&mut stream).await, name_of(&mut stream).await),
        ("b".to_owned(), "hello".to_owned())
    );
    let yaml = format!("limits: {{header_read_timeout: 1s}}\n{}", three.yaml(ROUTES));
    let web = three.mesh.start("web", &yaml).await;
    reset_by(web.address()).await;
}

#[tokio::test]
async fn where_no_name_can_decide_nobody_waits_for_one() {
    let three = Three::new().await;
    // Longer than a test may take.
    let other = "{name: other, services: [a], snis: [x.example], clusters: [{name: b}]}, \
                 {name: port, ports: [9], snis: [x.example], clusters: [{name: b}]}";
    let web = three.web(other).await;
    assert_eq!(silent(web.address()).await, "orders");
}
