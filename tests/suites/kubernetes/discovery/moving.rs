//! What is known changes while it is used.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use tokio::task::JoinSet;

use super::*;
use crate::harness::eventually;

/// A scene whose app has used the service, with one endpoint.
async fn known(cluster: &str, endpoint: (SocketAddr, &str)) -> (Scene, Stream) {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let telling = async {
        stream.asked().await;
        stream.service("orders", 1, cluster).await;
        stream.endpoints("orders", 2, &[endpoint]).await;
        stream.leads(SERVICE, "orders").await;
    };
    let (answer, ()) = tokio::join!(scene.ask(SERVICE), telling);
    assert_eq!(answer.0, StatusCode::OK);
    (scene, stream)
}

#[tokio::test]
async fn endpoints_change_without_a_reload_and_connections_stay() {
    let plain = format!(r#"{AT_SERVICE},"tls":"none""#);
    let (one, two) = (HttpApp::named("one").await, HttpApp::named("two").await);
    let (scene, stream) = known(&plain, (one.address(), "")).await;
    let generation = scene.web.app().generation();
    let mut kept = Client::over(scene.dial(SERVICE).await.unwrap(), Version::HTTP_11).await;
    assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK);
    let in_use = || {
        let endpoints = scene.web.cluster("orders").endpoints.clone();
        endpoints.iter().map(|endpoint| endpoint.address()).collect::<Vec<_>>()
    };
    stream.change("orders", 3, &[(two.address(), "")], &[]).await;
    eventually("both are in use", || in_use().len() == 2).await;
    stream.change("orders", 4, &[], &[one.address()]).await;
    eventually("one is in use", || in_use() == [two.address()]).await;
    is_from(&scene.ask(SERVICE).await, "two");
    assert_eq!(scene.web.app().generation(), generation, "no reload");
    assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK, "the app's connection goes on");
}

#[tokio::test]
async fn a_service_that_is_gone_is_outside() {
    let mesh_app = HttpApp::named("orders").await;
    let plain = format!(r#"{AT_SERVICE},"tls":"none""#);
    let (mut scene, stream) = known(&plain, (mesh_app.address(), "")).await;
    let deny = format!("{}\n{}", scene.controller.section(PATIENT), file("deny", ""));
    scene.mesh.reload(&mut scene.web, "web", &deny).await.unwrap();
    stream.leads(SERVICE, "").await;
    eventually("its cluster is gone", || !scene.has_cluster("orders")).await;
    let answer = scene.ask(SERVICE).await;
    assert_eq!((answer.0, answer.1.as_deref()), (StatusCode::NOT_FOUND, Some("no_route")));
    assert_eq!(mesh_app.count(), 1);
}

#[tokio::test]
async fn a_service_that_joins_the_mesh_gets_no_plaintext_from_then_on() {
    let plaintext = HttpApp::named("in plaintext").await;
    let plain = format!(r#"{AT_SERVICE},"tls":"none""#);
    let (scene, stream) = known(&plain, (plaintext.address(), "")).await;
    let (app, sidecar) = orders(&scene.mesh, "in the mesh").await;
    let (scene, done, stop) =
        (Arc::new(scene), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let mut load = JoinSet::new();
    for _ in 0..4 {
        let (scene, done, stop) = (Arc::clone(&scene), Arc::clone(&done), Arc::clone(&stop));
        load.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let answer = scene.ask(SERVICE).await;
                assert_eq!(answer.0, StatusCode::OK, "{answer:?}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    eventually("requests go in plaintext", || plaintext.count() > 20).await;
    stream.service("orders", 3, AT_SERVICE).await;
    stream.endpoints("orders", 4, &[(sidecar.address(), "orders")]).await;
    let is_mesh = || scene.web.cluster("orders").settings.transport.label() == "mesh";
    eventually("it is of the mesh", is_mesh).await;
    // Those that had begun before end.
    let before = done.load(Ordering::Relaxed);
    eventually("others begin", || done.load(Ordering::Relaxed) >= before + 8).await;
    let (in_plaintext, of_the_mesh) = (plaintext.count(), app.count());
    eventually("requests go by mutual TLS", || app.count() > of_the_mesh + 40).await;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = load.join_next().await {
        ended.unwrap();
    }
    assert_eq!(plaintext.count(), in_plaintext);
    // Nor does an endpoint without a name get one.
    stream.endpoints("orders", 5, &[(plaintext.address(), "")]).await;
    eventually("there is nobody", || scene.web.cluster("orders").endpoints.is_empty()).await;
    let answer = scene.ask(SERVICE).await;
    assert_eq!(answer.1.as_deref(), Some("no_endpoint"));
    assert_eq!(plaintext.count(), in_plaintext);
}

#[tokio::test]
async fn services_that_come_end_no_connection_and_no_listeners_life() {
    let (one, two) = (HttpApp::named("one").await, HttpApp::named("two").await);
    let plain = format!(r#"{AT_SERVICE},"tls":"none""#);
    let (scene, mut stream) = known(&plain, (one.address(), "")).await;
    // Nor is anything under way judged anew.
    let lives = || {
        let config = Arc::clone(&scene.web.app().snapshots.load().config);
        (config.rules, config.listeners.values().map(|listener| listener.life).collect::<Vec<_>>())
    };
    let before = lives();
    let mut kept = Client::over(scene.dial(SERVICE).await.unwrap(), Version::HTTP_2).await;
    for number in 10..30_u8 {
        let to = format!("10.96.1.{number}:80");
        let telling = async {
            assert_eq!(stream.asked().await, format!("want {to} 0/0"));
            let cluster = format!(r#""authorities":[],"addresses":["{to}"],"tls":"none""#);
            stream.service(&to, 1, &cluster).await;
            stream.endpoints(&to, 2, &[(two.address(), "")]).await;
            stream.leads(&to, &to).await;
        };
        let (answer, ()) = tokio::join!(scene.ask(&to), telling);
        is_from(&answer, "two");
        assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(lives(), before);
}
