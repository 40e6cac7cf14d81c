//! Who may call the app of a sidecar that is told so by the controller, which the test plays.

use std::sync::Arc;

use http::{Method, StatusCode, Version};
use outrider::{
    app::Parts,
    clock::Clock,
    model::{authorization::Whose, controller::ControllerSettings},
    net::TcpNet,
};

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    ca::id,
    client::{field, request},
    controller::{Controller, Stream},
    eventually, soon,
};

/// The sidecar of `orders` in a pod, its controller, and a caller.
struct Scene {
    _mesh: TestMesh,
    _app: HttpApp,
    controller: Controller,
    orders: Sidecar,
    web: Sidecar,
}

impl Scene {
    /// One on whose first stream nothing was said but that the controller is there. `rules` are those of the file.
    async fn new(rules: &str) -> (Self, Stream) {
        let (mesh, app) = (TestMesh::new(), HttpApp::named("orders").await);
        let controller = Controller::start(&mesh).await;
        let yaml = format!(
            "{}\ninbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]\n{rules}",
            controller.section(""),
            app.address()
        );
        mesh.certify("orders", &mesh.ca.leaf("orders"));
        let mut settings = mesh.settings("orders", &yaml);
        let asked = settings.bootstrap.controller.take().unwrap();
        let in_pod =
            ControllerSettings { pod: Some("orders-1".to_owned()), ..ControllerSettings::clone(&asked) };
        settings.bootstrap.controller = Some(Arc::new(in_pod));
        let starting = Sidecar::start_in(TcpNet, Clock::system(), settings, Parts::default());
        let (orders, stream) = tokio::join!(starting, async {
            let stream = controller.stream().await;
            stream.heartbeat().await;
            stream
        });
        let web = mesh.caller(&[orders.address()], "").await;
        (Self { _mesh: mesh, _app: app, controller, orders, web }, stream)
    }

    /// What `web` gets for a `GET` of that path: the status, and why it is none of the app's.
    async fn get(&self, path: &str) -> (StatusCode, Option<String>) {
        let mut client = Client::connect(self.web.address_of("out"), Version::HTTP_11).await;
        let mut request = request(Method::GET, path, body::empty());
        request.headers_mut().insert("host", "orders".parse().unwrap());
        let response = soon("an answer", client.send(request)).await.unwrap();
        (response.status(), field(&response, "x-outrider-reason").map(str::to_owned))
    }

    /// Says who may call, and waits until so many rules of the controller are in force; `None`: it has no say.
    async fn say(&self, stream: &Stream, inbound: &str, rules: Option<usize>) {
        stream.workload(inbound).await;
        eventually("what was said is in force", || self.told() == rules).await;
    }

    /// How many rules of the controller are in force.
    fn told(&self) -> Option<usize> {
        let snapshot = self.orders.app().snapshots.load();
        let rules = snapshot.config.settings.authorization.clone()?;
        let layer = rules.layers().find(|layer| layer.whose == Whose::Controller)?;
        Some(layer.rules.len())
    }
}

fn allowing(keys: &str) -> String {
    format!(
        r#"{{"ports":[],"authorization":{{"rules":[{{"name":"p/r","from":["{}"],{keys}}}]}}}}"#,
        id("web")
    )
}

fn is_denied(answer: &(StatusCode, Option<String>)) {
    assert_eq!((answer.0, answer.1.as_deref()), (StatusCode::FORBIDDEN, Some("not_authorized")));
}

#[tokio::test]
async fn nobody_may_call_a_pod_before_the_controller_has_said_who() {
    let (scene, stream) = Scene::new("").await;
    is_denied(&scene.get("/").await);
    // Else it would get calls that it denies.
    assert_eq!(scene.orders.app().readiness.waiting_for(), ["workload"]);
    scene.say(&stream, r#"{"ports":[]}"#, None).await;
    eventually("it is ready", || scene.orders.app().readiness.waiting_for().is_empty()).await;
    assert_eq!(scene.get("/").await.0, StatusCode::OK, "nothing is said of who may");
}

#[tokio::test]
async fn policies_come_change_and_go_without_a_restart_and_stay_while_the_controller_is_away() {
    let (scene, stream) = Scene::new("").await;
    scene.say(&stream, &allowing(r#""path_prefixes":["/a"]"#), Some(1)).await;
    assert_eq!(scene.get("/a/1").await.0, StatusCode::OK);
    is_denied(&scene.get("/b").await);
    drop(stream);
    scene.controller.leave();
    assert_eq!(scene.get("/a/1").await.0, StatusCode::OK);
    is_denied(&scene.get("/b").await);
    scene.controller.come_back();
    let stream = scene.controller.stream().await;
    scene.say(&stream, r#"{"ports":[],"authorization":{"rules":[]}}"#, Some(0)).await;
    is_denied(&scene.get("/a/1").await);
    scene.say(&stream, r#"{"ports":[]}"#, None).await;
    assert_eq!(scene.get("/b").await.0, StatusCode::OK);
}

#[tokio::test]
async fn what_the_sidecar_cannot_understand_lets_nobody_call() {
    let (scene, stream) = Scene::new("").await;
    scene.say(&stream, &allowing(r#""methods":["GET"]"#), Some(1)).await;
    assert_eq!(scene.get("/").await.0, StatusCode::OK);
    scene.say(&stream, &allowing(r#""from_the_moon":["yes"]"#), Some(0)).await;
    is_denied(&scene.get("/").await);
    let rejected = scene.orders.app().controller.rejected();
    let told = rejected.iter().find(|rejected| &*rejected.service == "authorization").unwrap();
    assert!(told.faults.iter().any(|fault| fault.to_string().contains("from_the_moon")), "{told:?}");
}

#[tokio::test]
async fn a_call_must_pass_the_file_and_the_policies() {
    let rules =
        format!("authorization: {{rules: [{{name: file, from: ['{}'], path_prefixes: [/a]}}]}}", id("web"));
    let (scene, stream) = Scene::new(&rules).await;
    is_denied(&scene.get("/a").await);
    scene.say(&stream, &allowing(r#""path_prefixes":["/a/b","/c"]"#), Some(1)).await;
    assert_eq!(scene.get("/a/b").await.0, StatusCode::OK);
    is_denied(&scene.get("/a").await);
    is_denied(&scene.get("/c").await);
    scene.say(&stream, r#"{"ports":[]}"#, None).await;
    assert_eq!(scene.get("/a").await.0, StatusCode::OK);
    is_denied(&scene.get("/c").await);
}
