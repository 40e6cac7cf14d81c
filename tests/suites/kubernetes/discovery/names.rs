//! Services by the name that the app asks for.

use super::*;
use crate::harness::{TcpApp, client::read_head};
use tokio::io::AsyncWriteExt;

/// Nothing but the name that was asked for leads to it.
const NAMELESS: &str = r#""authorities":[]"#;

#[tokio::test]
async fn a_request_for_a_name_that_nobody_has_waits_for_the_controllers_word() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let (scene, mut stream) = Scene::new(PATIENT).await;
        let (app, sidecar) = orders(&scene.mesh, "orders").await;
        let telling = async {
            assert_eq!(stream.asked().await, "want orders:80 0/0");
            stream.tell("orders:80", "orders", NAMELESS, sidecar.address()).await;
        };
        let (answer, ()) = tokio::join!(scene.name("Orders", version), telling);
        is_from(&answer, "orders");
        is_from(&scene.name("orders:80", version).await, "orders");
        // Another port is another service.
        let telling = async {
            assert_eq!(stream.asked().await, "want orders:8080 0/0");
            stream.leads("orders:8080", "").await;
        };
        let (answer, ()) = tokio::join!(scene.name("orders:8080", version), telling);
        assert_eq!((answer.0, answer.1.as_deref()), (StatusCode::NOT_FOUND, Some("no_route")));
        assert_eq!(app.count(), 2);
    }
}

#[tokio::test]
async fn a_request_for_a_name_is_refused_where_nobody_says_where_it_leads() {
    let (scene, _stream) = Scene::new(HASTY).await;
    is_not_discovered(&scene.name("orders", Version::HTTP_11).await);
    is_not_discovered(&scene.name("orders", Version::HTTP_2).await);
}

#[tokio::test]
async fn a_tunnel_to_a_name_waits_as_a_request_does() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let app = TcpApp::greeter().await;
    let sidecar = scene.mesh.callee("orders", app.address(), "protocol: tcp").await;
    let tunnel = async {
        let mut tunnel = TcpStream::connect(scene.web.address_of("out")).await.unwrap();
        tunnel.write_all(b"CONNECT orders:80 HTTP/1.1\r\nhost: orders:80\r\n\r\n").await.unwrap();
        soon("the answer", read_head(&mut tunnel)).await.0
    };
    let telling = async {
        assert_eq!(stream.asked().await, "want orders:80 0/0");
        stream.tell("orders:80", "orders", NAMELESS, sidecar.address()).await;
    };
    let (head, ()) = tokio::join!(tunnel, telling);
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}

#[tokio::test]
async fn a_listener_with_a_cluster_of_its_own_asks_nobody() {
    let mesh = TestMesh::new();
    let (_app, sidecar) = orders(&mesh, "orders").await;
    let cluster = TestMesh::cluster("orders", &[sidecar.address()], "authorities: []");
    let (scene, _stream) = Scene::with(
        HASTY,
        &format!("outbound: [{{name: out, listen: '127.0.0.1:0', cluster: orders}}]\nclusters: [{cluster}]"),
    )
    .await;
    let answer = scene.name("whatever", Version::HTTP_11).await;
    assert_ne!(answer.1.as_deref(), Some("not_discovered"));
    assert_eq!(scene.metric("outrider_controller_wants_total"), 0.0);
}
