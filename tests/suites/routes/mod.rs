//! Where requests go by rules: which rule, which of its clusters, and what holds for them there.

mod changes;
mod doors;
mod explain;
mod mirrors;
mod policies;
mod precedence;
mod shares;

use std::net::SocketAddr;

use http::{Method, StatusCode, Version};

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::{field, request},
};

/// What a call has come to: its status, its body, and the reason if a sidecar answered.
type Came = (StatusCode, String, Option<String>);

/// The services of a shop, each with an app that answers with its name, and `web` that calls them.
const SERVICES: [&str; 3] = ["orders", "v1", "v2"];

/// `web` with a cluster for each of the services.
struct Shop {
    mesh: TestMesh,
    apps: Vec<HttpApp>,
    callees: Vec<Sidecar>,
    web: Sidecar,
}

impl Shop {
    /// One with these routes.
    async fn new(routes: &str) -> Self {
        Self::with("", routes).await
    }

    /// The same, with further keys of every cluster.
    async fn with(keys: &str, routes: &str) -> Self {
        let mesh = TestMesh::new();
        let (mut apps, mut callees) = (Vec::new(), Vec::new());
        for service in SERVICES {
            let app = HttpApp::named(service).await;
            callees.push(mesh.callee(service, app.address(), "").await);
            apps.push(app);
        }
        let web = mesh.start("web", &yaml(&callees, keys, routes)).await;
        Self { mesh, apps, callees, web }
    }

    /// Has `web` go by other routes.
    async fn reload(&mut self, routes: &str) {
        let yaml = yaml(&self.callees, "", routes);
        self.mesh.reload(&mut self.web, "web", &yaml).await.unwrap();
    }

    /// A client of `web`.
    async fn client(&self, version: Version) -> Client {
        Client::connect(self.web.address(), version).await
    }

    /// Requests that each of the apps has seen.
    fn counts(&self) -> Vec<usize> {
        self.apps.iter().map(HttpApp::count).collect()
    }
}

/// The configuration of `web` with these routes.
fn yaml(callees: &[Sidecar], keys: &str, routes: &str) -> String {
    let clusters = SERVICES.iter().zip(callees);
    let clusters: Vec<String> =
        clusters.map(|(service, callee)| TestMesh::cluster(service, &[callee.address()], keys)).collect();
    format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}]\nroutes: {routes}",
        clusters.join(", ")
    )
}

/// A route of `orders` with these rules.
fn of_orders(rules: &str) -> String {
    format!("[{{name: shop, services: [orders], rules: [{rules}]}}]")
}

/// Sends a request with these fields.
async fn ask(client: &mut Client, method: Method, path: &str, fields: &[(&'static str, &str)]) -> Came {
    let mut request = request(method, path, body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let response = client.send(request).await.unwrap();
    let reason = field(&response, "x-outrider-reason").map(str::to_owned);
    (response.status(), body::text(response.into_body()).await, reason)
}

/// The body of the answer to a GET that must go well.
async fn get(client: &mut Client, path: &str, fields: &[(&'static str, &str)]) -> String {
    let (status, text, reason) = ask(client, Method::GET, path, fields).await;
    assert_eq!(status, StatusCode::OK, "{path}: {reason:?}");
    text
}

/// A request over a connection of its own.
async fn get_at(address: SocketAddr, host: &str, path: &str) -> Came {
    ask(&mut Client::http1(address).await, Method::GET, path, &[("host", host)]).await
}
