//! The controller is away, or is somebody else.

use super::*;
use crate::harness::{controller::CONTROLLER, eventually};

/// Asked on a new stream: all that was wanted, in the order in which it was.
async fn resumed(scene: &Scene) -> Stream {
    scene.controller.come_back();
    let stream = scene.controller.stream().await;
    stream.heartbeat().await;
    stream
}

#[tokio::test]
async fn a_first_call_without_the_controller_is_refused_and_leaves_nothing_in_plaintext() {
    let (scene, stream) = Scene::new(HASTY).await;
    let outside = HttpApp::named("outside").await;
    let to = outside.address().to_string();
    scene.controller.leave();
    drop(stream);
    eventually("that is noticed", || scene.metric("outrider_controller_connected") == 0.0).await;
    is_not_discovered(&scene.ask(&to).await);
    is_not_discovered(&scene.ask_for(&to, "some.host", Version::HTTP_2).await);
    // Who comes later is told so at once: the wait was in vain before.
    is_not_discovered(&scene.ask(&to).await);
    let mut silent = scene.dial(&to).await.unwrap();
    let mut heard = Vec::new();
    let ended = soon("it is refused", tokio::io::AsyncReadExt::read_to_end(&mut silent, &mut heard)).await;
    assert!(ended.is_err() && heard.is_empty());
    assert_eq!(outside.connections(), 0);

    let mut stream = resumed(&scene).await;
    assert_eq!(stream.asked().await, format!("want {to} 0/0"));
    stream.leads(&to, "").await;
    eventually("it is known", || scene.metric("outrider_controller_outside") == 1.0).await;
    is_from(&scene.ask(&to).await, "outside");
}

#[tokio::test]
async fn without_the_controller_everything_known_goes_on_and_a_new_stream_takes_up_the_thread() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let (_app, one) = orders(&scene.mesh, "one").await;
    let (_other, two) = orders(&scene.mesh, "two").await;
    let outside = HttpApp::named("outside").await;
    let to = outside.address().to_string();
    let telling = async {
        stream.asked().await;
        stream.tell(SERVICE, "orders", AT_SERVICE, one.address()).await;
        stream.asked().await;
        stream.leads(&to, "").await;
    };
    let asking = async {
        is_from(&scene.ask(SERVICE).await, "one");
        is_from(&scene.ask(&to).await, "outside");
    };
    tokio::join!(asking, telling);
    scene.controller.leave();
    drop(stream);
    let error = || scene.web.cluster("orders").runtime.discovery.error();
    eventually("that is noticed", || error().is_some()).await;
    is_from(&scene.ask(SERVICE).await, "one");
    is_from(&scene.ask(&to).await, "outside");
    assert!(scene.metric("outrider_controller_failures_total") >= 1.0);

    let mut stream = resumed(&scene).await;
    assert_eq!(stream.asked().await, format!("want {SERVICE} 1/2"));
    assert_eq!(stream.asked().await, format!("want {to} 0/0"));
    // The service is as it was, but for an endpoint.
    stream.endpoints("orders", 3, &[(two.address(), "orders")]).await;
    stream.leads(SERVICE, "orders").await;
    stream.leads(&to, "").await;
    let in_use = || {
        scene.web.cluster("orders").endpoints.iter().map(|endpoint| endpoint.address()).collect::<Vec<_>>()
    };
    eventually("the new endpoint is in use", || in_use() == [two.address()]).await;
    eventually("the list is fresh", || error().is_none()).await;
    is_from(&scene.ask(SERVICE).await, "two");
    is_from(&scene.ask(&to).await, "outside");
}

#[tokio::test]
async fn a_controller_that_is_somebody_else_is_not_believed() {
    let (mesh, net) = (TestMesh::new(), ToldNet::default());
    let impostor = Controller::start_as(&mesh, &mesh.ca.leaf("impostor")).await;
    let yaml = format!("{}\n{}", impostor.section(HASTY), file("passthrough", ""));
    let web = mesh.start_in(net.clone(), Clock::system(), "web", &yaml).await;
    let outside = HttpApp::named("outside").await;
    let stream = net.dial(web.address_of(LISTENER), outside.address()).await.unwrap();
    is_not_discovered(&answer(Client::over(stream, Version::HTTP_11).await, "some.host").await);
    let error = || web.app().controller.error().unwrap_or_default();
    eventually("it is told", || error().contains("not the controller but spiffe://test.outrider/impostor"))
        .await;
    assert!(!impostor.has_stream().await);
    assert_eq!(outside.connections(), 0);
    assert_eq!(web.app().readiness.waiting_for(), [CONTROLLER]);
}

#[tokio::test]
async fn readiness_waits_for_the_first_word_and_for_no_later_one() {
    let (mesh, net) = (TestMesh::new(), ToldNet::default());
    let controller = Controller::start(&mesh).await;
    let yaml = format!("{}\n{}", controller.section(HASTY), file("passthrough", ""));
    // It listens, and serves peers, before the controller has said anything.
    let web = mesh.start_in(net, Clock::system(), "web", &yaml).await;
    let waiting_for = || web.app().readiness.waiting_for();
    let stream = controller.stream().await;
    assert_eq!(waiting_for(), [CONTROLLER]);
    stream.heartbeat().await;
    eventually("it is ready", || waiting_for().is_empty()).await;
    controller.leave();
    drop(stream);
    let connected = || web.app().controller.is_connected.load(std::sync::atomic::Ordering::Relaxed);
    eventually("the controller is away", || !connected()).await;
    assert!(waiting_for().is_empty());
}

#[tokio::test]
async fn a_stream_that_says_what_it_may_not_is_ended_and_another_takes_its_place() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let (_app, sidecar) = orders(&scene.mesh, "orders").await;
    let telling = async {
        stream.asked().await;
        stream.leads(SERVICE, "of which nobody has heard").await;
        stream.ended().await;
        let mut stream = scene.controller.stream().await;
        assert_eq!(stream.asked().await, format!("want {SERVICE} 0/0"));
        stream.tell(SERVICE, "orders", AT_SERVICE, sidecar.address()).await;
        stream
    };
    let (answer, _stream) = tokio::join!(scene.ask(SERVICE), telling);
    is_from(&answer, "orders");
}

#[tokio::test]
async fn a_new_certificate_is_shown_on_a_new_stream() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    scene.mesh.certify("web", &scene.mesh.ca.leaf("web"));
    let (next, ()) = tokio::join!(scene.controller.stream(), stream.ended());
    next.heartbeat().await;
    eventually("it is connected", || scene.metric("outrider_controller_connects_total") == 2.0).await;
    assert_eq!(scene.metric("outrider_controller_failures_total"), 0.0);
}

#[tokio::test]
async fn a_sidecar_that_drains_ends_without_the_controller() {
    let (scene, stream) = Scene::new(PATIENT).await;
    drop(stream);
    soon("the drain", scene.web.app().drain()).await;
    assert_eq!(scene.web.app().drains.phase(), Phase::Forced);
}
