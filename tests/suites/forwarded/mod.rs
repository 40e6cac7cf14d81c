//! What apps are told of who is asking: what is certain is ours to say, and claims pass as claims. What callers in plaintext
//! may claim is in `intercepted`.

mod chains;
mod hygiene;
mod peers;

use http::{HeaderMap, Method, Response, Version};
use hyper::body::Incoming;

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh,
    app::Seen,
    body,
    client::request,
    peer::{self, ALPN_H2},
};

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// `orders` and its sidecar, which peers call.
struct Callee {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
}

impl Callee {
    /// One with these further sections of its configuration.
    async fn new(sections: &str) -> Self {
        let (mesh, app) = (TestMesh::new(), HttpApp::echo().await);
        let yaml =
            format!("inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}]\n{sections}", app.address());
        let orders = mesh.start("orders", &yaml).await;
        Self { mesh, app, orders }
    }

    /// A peer that says what it likes, as a sidecar that lies could.
    async fn peer(&self) -> Client {
        let config = peer::client_config(&self.mesh.ca, Some(&self.mesh.ca.leaf("web")), &[ALPN_H2]);
        let stream = peer::connect(self.orders.address(), config).await.unwrap();
        Client::over(stream, Version::HTTP_2).await
    }

    /// What the app sees of a peer's request with these fields.
    async fn seen_of(&self, fields: &[(&'static str, &str)]) -> Seen {
        let before = self.app.count();
        assert_eq!(send(&mut self.peer().await, fields).await.status(), 200);
        self.app.seen().remove(before)
    }
}

async fn send(client: &mut Client, fields: &[(&'static str, &str)]) -> Response<Incoming> {
    let mut request = request(Method::GET, "/", body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    client.send(request).await.unwrap()
}

/// All values of a field.
fn all<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
}
