//! The first connection to somewhere.

use super::*;
use crate::harness::{TcpApp, app::GREETING, eventually};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn a_call_to_a_service_that_nobody_configured_arrives_by_mutual_tls() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    assert!(!stream.hello.version.is_empty() && !stream.hello.pod.is_empty());
    let (app, sidecar) = orders(&scene.mesh, "orders").await;
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        assert_eq!(app.connections(), 0);
        stream.tell(SERVICE, "orders", AT_SERVICE, sidecar.address()).await;
    };
    let (answer, ()) = tokio::join!(scene.ask(SERVICE), telling);
    is_from(&answer, "orders");
    let caller = app.only().header("x-forwarded-client-cert").unwrap().to_owned();
    assert!(caller.contains("URI=spiffe://test.outrider/web"), "{caller}");
    is_from(&scene.ask(SERVICE).await, "orders");
    assert_eq!(scene.metric("outrider_controller_wants_total"), 1.0);
    assert_eq!(scene.metric("outrider_controller_connected"), 1.0);
}

#[tokio::test]
async fn however_many_wait_for_a_destination_it_is_asked_after_once() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let (app, sidecar) = orders(&scene.mesh, "orders").await;
    let asking = futures_util::future::join_all((0..20).map(|_| scene.ask(SERVICE)));
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        eventually("all of them wait", || scene.web.app().wanted.waiting() == 20).await;
        stream.tell(SERVICE, "orders", AT_SERVICE, sidecar.address()).await;
    };
    let (answers, ()) = tokio::join!(asking, telling);
    answers.iter().for_each(|answer| is_from(answer, "orders"));
    assert_eq!(app.count(), 20);
    // The next that is asked is something else.
    let other = async {
        assert_eq!(stream.asked().await, "want 10.96.0.8:80 0/0");
        stream.tell("10.96.0.8:80", "orders", AT_SERVICE, sidecar.address()).await;
        stream.leads("10.96.0.8:80", "").await;
    };
    tokio::join!(async { drop(scene.dial("10.96.0.8:80").await) }, other);
}

#[tokio::test]
async fn what_is_outside_passes_or_does_not_as_the_file_says() {
    let outside = HttpApp::named("outside").await;
    let to = outside.address().to_string();
    for (unknown, passes) in [("passthrough", true), ("deny", false)] {
        let (scene, mut stream) = Scene::with(PATIENT, &file(unknown, "")).await;
        let telling = async {
            assert_eq!(stream.asked().await, format!("want {to} 0/0"));
            stream.leads(&to, "").await;
        };
        let (answer, ()) = tokio::join!(scene.ask(&to), telling);
        if passes {
            is_from(&answer, "outside");
            is_from(&scene.ask(&to).await, "outside");
            is_from(&scene.ask_for(&to, "some.host", Version::HTTP_2).await, "outside");
        } else {
            assert_eq!((answer.0, answer.1.as_deref()), (StatusCode::NOT_FOUND, Some("no_route")));
        }
        assert_eq!(scene.metric("outrider_controller_outside"), 1.0);
        assert_eq!(scene.metric("outrider_controller_wants_total"), 1.0);
    }
    assert_eq!(outside.count(), 3);
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_after_the_one_wait() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let app = TcpApp::greeter().await;
    let sidecar = scene.mesh.callee("orders", app.address(), "protocol: tcp").await;
    let greeted = async || {
        let mut heard = vec![0; GREETING.len()];
        let mut stream = scene.dial(SERVICE).await.unwrap();
        soon("it speaks", stream.read_exact(&mut heard)).await.unwrap();
        assert_eq!(heard, GREETING);
    };
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        stream.tell(SERVICE, "orders", AT_SERVICE, sidecar.address()).await;
    };
    tokio::join!(greeted(), telling);
    greeted().await;
}

#[tokio::test]
async fn a_pod_that_is_dialled_is_that_pod_and_no_other_of_its_service() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let (_first, one) = orders(&scene.mesh, "one").await;
    let (_second, two) = orders(&scene.mesh, "two").await;
    let to = two.address().to_string();
    let telling = async {
        assert_eq!(stream.asked().await, format!("want {to} 0/0"));
        stream.service("orders", 1, AT_SERVICE).await;
        stream.endpoints("orders", 2, &[(one.address(), "orders"), (two.address(), "orders")]).await;
        stream.leads(&to, "orders").await;
    };
    let (answer, ()) = tokio::join!(scene.ask(&to), telling);
    is_from(&answer, "two");
    for _ in 0..10 {
        is_from(&scene.ask(&to).await, "two");
    }
}

#[tokio::test]
async fn over_the_bound_of_those_who_wait_more_are_refused_at_once() {
    let (scene, mut stream) = Scene::new("wait: 60s, max_waiting: 2").await;
    let waiting = [scene.dial(SERVICE).await.unwrap(), scene.dial("10.96.0.8:80").await.unwrap()];
    stream.asked().await;
    stream.asked().await;
    eventually("two wait", || scene.web.app().wanted.waiting() == 2).await;
    is_not_discovered(&scene.ask("10.96.0.9:80").await);
    assert!(scene.metric("outrider_controller_waits_total") >= 1.0);
    drop(waiting);
}

#[tokio::test]
async fn a_port_of_the_own_app_carries_what_the_controller_says() {
    let (scene, stream) = Scene::new(PATIENT).await;
    stream.workload(r#"{"ports":[{"port":7000,"protocol":"http"}]}"#).await;
    eventually("the port has its cluster", || scene.has_cluster("inbound/7000")).await;
    stream.workload(r#"{"ports":[{"port":7000,"plaintext":"permissive"}]}"#).await;
    eventually("it is refused", || scene.metric("outrider_controller_rejected") == 1.0).await;
    assert!(scene.has_cluster("inbound/7000"), "the last good stays");
}
