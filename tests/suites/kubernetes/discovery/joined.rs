//! What the controller says beside what the file says.

use super::*;
use crate::harness::eventually;

/// A cluster of the file that is at the service's address.
fn of_file(name: &str, endpoint: SocketAddr, keys: &str) -> String {
    TestMesh::cluster(name, &[endpoint], keys)
}

#[tokio::test]
async fn the_file_wins_over_what_the_controller_says() {
    let mesh = TestMesh::new();
    let (_app, of_the_file) = orders(&mesh, "of the file").await;
    let (_other, of_the_controller) = orders(&mesh, "of the controller").await;
    let cluster = of_file("orders", of_the_file.address(), "authorities: [orders]");
    let controller = Controller::start(&mesh).await;
    let yaml = format!("{}\n{}", controller.section(HASTY), file("deny", &cluster));
    let net = ToldNet::default();
    let starting = mesh.start_in(net.clone(), Clock::system(), "web", &yaml);
    let (web, mut stream) = tokio::join!(starting, async {
        let stream = controller.stream().await;
        stream.heartbeat().await;
        stream
    });
    let scene = Scene { mesh, net, controller, web };
    is_from(&scene.name("orders", Version::HTTP_11).await, "of the file");
    let dialled = scene.dial(SERVICE).await.unwrap();
    stream.asked().await;
    for (service, cluster) in
        [("orders", AT_SERVICE), ("other", r#""authorities":["orders"],"addresses":["10.96.0.7:80"]"#)]
    {
        stream.tell(SERVICE, service, cluster, of_the_controller.address()).await;
        let rejected = || scene.web.app().controller.rejected();
        eventually("it is left out", || rejected().len() == 1 && &*rejected()[0].service == service).await;
        assert!(rejected()[0].is_conflict && rejected()[0].faults[0].to_string().contains("cluster orders"));
        is_from(&scene.name("orders", Version::HTTP_11).await, "of the file");
        is_not_discovered(&scene.ask(SERVICE).await);
    }
    drop(dialled);
}

#[tokio::test]
async fn a_faulty_service_costs_only_itself_and_keeps_the_last_good() {
    let (scene, mut stream) = Scene::new(PATIENT).await;
    let (_app, one) = orders(&scene.mesh, "one").await;
    let (_other, two) = orders(&scene.mesh, "two").await;
    let asking = async {
        is_from(&scene.ask(SERVICE).await, "one");
    };
    let telling = async {
        stream.asked().await;
        stream.tell(SERVICE, "orders", AT_SERVICE, one.address()).await;
    };
    tokio::join!(asking, telling);
    stream.service("orders", 3, &format!(r#"{AT_SERVICE},"tls":"nonsense""#)).await;
    let rejected = || scene.metric("outrider_controller_rejected");
    eventually("it is told", || rejected() == 1.0).await;
    let faults = scene.web.app().controller.rejected()[0].faults[0].to_string();
    assert!(faults.contains("controller.services[orders].tls") && faults.contains("mesh"), "{faults}");
    is_from(&scene.ask(SERVICE).await, "one");
    // Another service comes into force beside it.
    let telling = async {
        stream.asked().await;
        stream.service("stock", 1, r#""authorities":[],"addresses":["10.96.0.8:80"]"#).await;
        stream.endpoints("stock", 2, &[(two.address(), "orders")]).await;
        stream.leads("10.96.0.8:80", "stock").await;
    };
    let (answer, ()) = tokio::join!(scene.ask("10.96.0.8:80"), telling);
    is_from(&answer, "two");
    // And it comes back when it is sound.
    stream.service("orders", 4, &format!(r#"{AT_SERVICE},"max_requests":7"#)).await;
    eventually("it is sound", || rejected() == 0.0).await;
    let max_requests = || scene.web.cluster("orders").settings.caps.max_requests;
    eventually("it is in force", || max_requests() == 7).await;
    is_from(&scene.ask(SERVICE).await, "one");
}

#[tokio::test]
async fn another_file_keeps_what_the_controller_has_said() {
    let (mut scene, mut stream) = Scene::new(PATIENT).await;
    let (_app, one) = orders(&scene.mesh, "one").await;
    let telling = async {
        stream.asked().await;
        stream.tell(SERVICE, "orders", AT_SERVICE, one.address()).await;
    };
    tokio::join!(async { is_from(&scene.ask(SERVICE).await, "one") }, telling);
    let mut kept = Client::over(scene.dial(SERVICE).await.unwrap(), Version::HTTP_11).await;
    assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK);

    let (_other, two) = orders(&scene.mesh, "two").await;
    let cluster = of_file("stock", two.address(), "addresses: ['10.96.0.8:80']")
        .replace("test.outrider/stock", "test.outrider/orders");
    let yaml = format!("{}\n{}", scene.controller.section(PATIENT), file("deny", &cluster));
    scene.mesh.reload(&mut scene.web, "web", &yaml).await.unwrap();
    is_from(&scene.ask(SERVICE).await, "one");
    is_from(&scene.ask("10.96.0.8:80").await, "two");
    assert_eq!(kept.get("/").await.unwrap().status(), StatusCode::OK, "its connection goes on");
    assert_eq!(scene.metric("outrider_controller_wants_total"), 1.0);

    // The file takes over what the controller had said, and gives it back.
    let cluster = of_file("orders", two.address(), "addresses: ['10.96.0.7:80']");
    let theirs = format!("{}\n{}", scene.controller.section(PATIENT), file("deny", &cluster));
    scene.mesh.reload(&mut scene.web, "web", &theirs).await.unwrap();
    is_from(&scene.ask(SERVICE).await, "two");
    scene.mesh.reload(&mut scene.web, "web", &yaml).await.unwrap();
    is_from(&scene.ask(SERVICE).await, "one");
}

#[tokio::test]
async fn where_the_controller_is_cannot_change_while_the_sidecar_runs() {
    let (mut scene, _stream) = Scene::new(PATIENT).await;
    let yaml = format!("{}\n{}", scene.controller.section(HASTY), file("deny", ""));
    let refused = scene.mesh.reload(&mut scene.web, "web", &yaml).await.unwrap_err();
    assert_eq!(refused.faults()[0].path, "controller");
}
