//! What a sidecar learns of the controller when its app first uses it, and what becomes of that.
//!
//! The controller is played by the test ([`Controller`]); everything else is the product.

mod away;
mod first_use;
mod forgotten;
mod joined;
mod moving;
mod names;
mod routes;

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};
use outrider::{clock::Clock, drain::Phase, model::ClusterName};
use tokio::net::TcpStream;

use crate::{
    harness::{
        Client, HttpApp, Sidecar, TestMesh, body,
        client::{field, request},
        controller::{Controller, Stream},
        soon,
        told::ToldNet,
    },
    metrics::scrape,
};

const LISTENER: &str = "intercept-outbound";
/// A service's address, which is nowhere.
const SERVICE: &str = "10.96.0.7:80";
/// What the controller says of the service that is there.
const AT_SERVICE: &str = r#""authorities":[],"addresses":["10.96.0.7:80"]"#;
/// Long enough for whatever must come.
const PATIENT: &str = "wait: 60s";
/// Nobody is there, and that is soon known.
const HASTY: &str = "wait: 100ms";

/// The sidecar of `web`, whose app's connections are brought to it, and its controller.
struct Scene {
    mesh: TestMesh,
    net: ToldNet,
    controller: Controller,
    web: Sidecar,
}

impl Scene {
    /// One that passes on what is outside.
    async fn new(keys: &str) -> (Self, Stream) {
        Self::with(keys, &file("passthrough", "")).await
    }

    /// One with that configuration, and its first stream, on which something was said.
    async fn with(keys: &str, yaml: &str) -> (Self, Stream) {
        let (mesh, net) = (TestMesh::new(), ToldNet::default());
        let controller = Controller::start(&mesh).await;
        let yaml = format!("{}\n{yaml}", controller.section(keys));
        let starting = mesh.start_in(net.clone(), Clock::system(), "web", &yaml);
        let answering = async {
            let stream = controller.stream().await;
            stream.heartbeat().await;
            stream
        };
        let (web, stream) = tokio::join!(starting, answering);
        (Self { mesh, net, controller, web }, stream)
    }

    /// A connection of the app to that address.
    async fn dial(&self, to: &str) -> std::io::Result<TcpStream> {
        self.net.dial(self.web.address_of(LISTENER), to.parse().unwrap()).await
    }

    /// A request of the app over a connection of its own to that address.
    async fn ask(&self, to: &str) -> Answer {
        self.ask_for(to, "some.host", Version::HTTP_11).await
    }

    async fn ask_for(&self, to: &str, host: &str, version: Version) -> Answer {
        let stream = self.dial(to).await.unwrap();
        answer(Client::over(stream, version).await, host).await
    }

    /// A request of the app to the listener that it addresses itself.
    async fn name(&self, host: &str, version: Version) -> Answer {
        answer(Client::connect(self.web.address_of("out"), version).await, host).await
    }

    fn metric(&self, name: &str) -> f64 {
        scrape(&self.web).sum(name, &[])
    }

    fn has_cluster(&self, name: &str) -> bool {
        self.web.app().snapshots.load().cluster(&ClusterName::new(name)).is_some()
    }
}

/// Status, reason and text.
type Answer = (StatusCode, Option<String>, String);

async fn answer(mut client: Client, host: &str) -> Answer {
    let mut request = request(Method::GET, "/", body::empty());
    request.headers_mut().insert("host", host.parse().unwrap());
    let response = soon("an answer", client.send(request)).await.unwrap();
    let reason = field(&response, "x-outrider-reason").map(str::to_owned);
    (response.status(), reason, body::text(response.into_body()).await)
}

fn is_from(answer: &Answer, app: &str) {
    assert_eq!((answer.0, answer.2.as_str()), (StatusCode::OK, app), "{answer:?}");
}

fn is_not_discovered(answer: &Answer) {
    assert_eq!(
        (answer.0, answer.1.as_deref()),
        (StatusCode::SERVICE_UNAVAILABLE, Some("not_discovered")),
        "{answer:?}"
    );
}

/// A configuration that takes what the app dials, and has a listener that it may address.
fn file(unknown: &str, clusters: &str) -> String {
    format!(
        "intercept: {{outbound: {{unknown: {unknown}}}}}\n\
         outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{clusters}]"
    )
}

/// `orders` of the mesh, as an app with its sidecar.
async fn orders(mesh: &TestMesh, name: &'static str) -> (HttpApp, Sidecar) {
    let app = HttpApp::named(name).await;
    let sidecar = mesh.callee("orders", app.address(), "").await;
    (app, sidecar)
}
