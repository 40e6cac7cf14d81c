//! Opaque streams go by `tcp_routes`: by service, port and the name that their TLS is for, each by its weight.

mod intercepted;
mod names;
mod tunnels;

use std::{net::SocketAddr, sync::atomic::Ordering};

use outrider::model::flag::ResponseFlag;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{Sidecar, TcpApp, TestMesh, app::nobody, eventually, mesh::reset_by, soon};

/// Clusters `orders`, `a` and `b`, each with a sidecar and an app behind it that says its name first.
struct Three {
    mesh: TestMesh,
    sidecars: [Sidecar; 3],
    apps: [TcpApp; 3],
}

const NAMES: [&str; 3] = ["orders", "a", "b"];

/// An app that says its name when it is connected to, and then sends back what it gets.
async fn named(name: &'static str) -> TcpApp {
    TcpApp::start(move |mut stream: TcpStream| async move {
        drop(stream.write_all(format!("{name}\n").as_bytes()).await);
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await
}

/// Who answers at the other end.
async fn name_of(stream: &mut TcpStream) -> String {
    let mut name = Vec::new();
    loop {
        match soon("a name", stream.read_u8()).await {
            Ok(b'\n') => return String::from_utf8(name).unwrap(),
            Ok(byte) => name.push(byte),
            Err(error) => return format!("{:?}", error.kind()),
        }
    }
}

impl Three {
    async fn new() -> Self {
        let mesh = TestMesh::new();
        let apps = [named(NAMES[0]).await, named(NAMES[1]).await, named(NAMES[2]).await];
        let mut sidecars = Vec::new();
        for (name, app) in NAMES.iter().zip(&apps) {
            sidecars.push(mesh.callee(name, app.address(), "protocol: tcp").await);
        }
        let Ok(sidecars) = sidecars.try_into() else { panic!() };
        Self { mesh, sidecars, apps }
    }

    /// The sections of all three clusters; `orders` with further keys.
    fn clusters(&self, keys: &str) -> String {
        let [orders, a, b] = [0, 1, 2].map(|index: usize| {
            let keys = if index == 0 { keys } else { "" };
            TestMesh::cluster(NAMES[index], &[self.sidecars[index].address()], keys)
        });
        format!("clusters: [{orders}, {a}, {b}]")
    }

    /// A configuration of `web` with a listener whose streams go to `orders`, and these routes.
    fn yaml(&self, routes: &str) -> String {
        format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\n{}\ntcp_routes: [{routes}]",
            self.clusters("")
        )
    }

    async fn web(&self, routes: &str) -> Sidecar {
        self.mesh.start("web", &self.yaml(routes)).await
    }
}

/// Who answers a client that says nothing.
async fn silent(address: SocketAddr) -> String {
    name_of(&mut TcpStream::connect(address).await.unwrap()).await
}

/// Streams that led nowhere.
fn nowhere(web: &Sidecar, listener: &str) -> u64 {
    web.listener(listener).unrouted[ResponseFlag::NR as usize].load(Ordering::Relaxed)
}

#[tokio::test]
async fn streams_of_a_service_go_by_its_route_each_cluster_by_its_weight() {
    const STREAMS: usize = 200;
    let three = Three::new().await;
    let web = three
        .web("{name: r, services: [orders], clusters: [{name: a, weight: 3}, {name: b}, {name: orders, weight: 0}]}")
        .await;
    let mut of_a = 0;
    for _stream in 0..STREAMS {
        match silent(web.address()).await.as_str() {
            "a" => of_a += 1,
            "b" => {}
            other => panic!("{other}"),
        }
    }
    // A binomial's: over six standard deviations off (6.1 each) is less likely than 1 in 10^8.
    assert!((112..=188).contains(&of_a), "{of_a} of {STREAMS}, where 150 are expected");
}

#[tokio::test]
async fn a_stream_counts_for_its_route_and_for_the_cluster_that_it_went_to() {
    let three = Three::new().await;
    let web =
        three.web("{name: move, services: [orders], clusters: [{name: a}, {name: orders, weight: 0}]}").await;
    for _stream in 0..3 {
        assert_eq!(silent(web.address()).await, "a");
    }
    let ended = |route: &str, to: &str| {
        let edge = [("direction", "outbound"), ("source", "web"), ("destination", to), ("route", route)];
        crate::metrics::scrape(&web).sum("outrider_edge_requests_total", &edge)
    };
    eventually("they are counted", || ended("move", "a") == 3.0).await;
    assert_eq!((ended("", "a"), ended("", "orders"), ended("move", "orders")), (0.0, 0.0, 0.0));
}

#[tokio::test]
async fn a_service_without_a_route_and_other_services_go_where_they_always_went() {
    let three = Three::new().await;
    for routes in [
        "",
        "{name: r, services: [a], clusters: [{name: b}]}",
        "{name: r, ports: [9], clusters: [{name: b}]}",
    ] {
        let web = three.web(routes).await;
        assert_eq!(silent(web.address()).await, "orders", "{routes}");
    }
}

#[tokio::test]
async fn the_port_of_the_listener_is_the_streams() {
    let three = Three::new().await;
    let listener = crate::processes::mesh::Network::new().host(1).outbound();
    let route = format!("{{name: r, ports: [{}], clusters: [{{name: a}}]}}", listener.port());
    let yaml = three.yaml(&route).replace("127.0.0.1:0", &listener.to_string());
    let web = three.mesh.start("web", &yaml).await;
    assert_eq!(silent(web.address()).await, "a");
}

#[tokio::test]
async fn where_a_service_has_routes_and_none_fits_its_stream_is_refused_and_counted() {
    let three = Three::new().await;
    let web = three.web("{name: r, services: [orders], ports: [9], clusters: [{name: a}]}").await;
    reset_by(web.address()).await;
    assert_eq!(nowhere(&web, "out"), 1);
}

#[tokio::test]
async fn what_a_route_leads_to_is_retried_there_and_nowhere_else() {
    let three = Three::new().await;
    let dead = TestMesh::cluster("dead", &[nobody(), nobody()], "");
    let yaml = three
        .yaml("{name: r, services: [orders], clusters: [{name: dead}]}")
        .replace("clusters: [{name: orders", &format!("clusters: [{dead}, {{name: orders"));
    let web = three.mesh.start("web", &yaml).await;
    reset_by(web.address()).await;
    assert!(
        web.cluster("dead").runtime.counts.by_flag[ResponseFlag::UF as usize].load(Ordering::Relaxed) >= 1
    );
    assert_eq!(web.cluster("orders").runtime.counts.by_class[0].load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_reload_leads_new_streams_elsewhere_and_leaves_those_under_way() {
    let three = Three::new().await;
    let mut web = three.web("{name: r, services: [orders], clusters: [{name: a}]}").await;
    let mut before = TcpStream::connect(web.address()).await.unwrap();
    assert_eq!(name_of(&mut before).await, "a");
    let to_b = three.yaml("{name: r, services: [orders], clusters: [{name: b}]}");
    three.mesh.reload(&mut web, "web", &to_b).await.unwrap();
    assert_eq!(silent(web.address()).await, "b");
    before.write_all(b"still here\n").await.unwrap();
    assert_eq!(name_of(&mut before).await, "still here");
}
