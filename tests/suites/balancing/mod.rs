//! Which endpoint gets a request: by weight, zone and standing, and by what keeps requests together.

mod affinity;
mod shares;
mod standings;

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body, ca::id, client, soon};

/// Names of the replicas, which they answer with.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Replicas of `orders`, each behind its sidecar.
struct Replicas {
    mesh: TestMesh,
    apps: Vec<HttpApp>,
    sidecars: Vec<Sidecar>,
}

impl Replicas {
    async fn start(count: usize) -> Self {
        let (mesh, mut apps, mut sidecars) = (TestMesh::new(), Vec::new(), Vec::new());
        for name in NAMES.into_iter().take(count) {
            let app = HttpApp::named(name).await;
            sidecars.push(mesh.callee("orders", app.address(), "").await);
            apps.push(app);
        }
        Self { mesh, apps, sidecars }
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.sidecars.iter().map(Sidecar::address).collect()
    }

    /// The sidecar of `web`, which calls them. `keys` are further keys of the cluster, `top` of the file.
    async fn caller(&self, top: &str, keys: &str) -> Sidecar {
        let endpoints = self.addresses().into_iter().map(|address| (address, ""));
        self.mesh.start("web", &config(top, endpoints, keys)).await
    }

    /// How many requests each has got.
    fn counts(&self) -> Vec<usize> {
        self.apps.iter().map(HttpApp::count).collect()
    }
}

/// A file with one cluster of these endpoints, each with keys of its own.
fn config<'a>(top: &str, endpoints: impl IntoIterator<Item = (SocketAddr, &'a str)>, keys: &str) -> String {
    let list: Vec<_> =
        endpoints.into_iter().map(|(address, keys)| format!("{{address: '{address}', {keys}}}")).collect();
    format!(
        "{top}\noutbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints: [{}], {keys}}}]",
        id("orders"),
        list.join(", "),
    )
}

/// Who answers a request with these fields, over a connection of its own, and the answer's fields.
async fn who(address: SocketAddr, fields: &[(&'static str, &str)]) -> (String, HeaderMap) {
    let mut client = Client::http1(address).await;
    who_over(&mut client, Method::GET, fields).await
}

async fn who_over(
    client: &mut Client,
    method: Method,
    fields: &[(&'static str, &str)],
) -> (String, HeaderMap) {
    let mut request = client::request(method, "/", body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_str(value).unwrap());
    }
    let response = soon("an answer", client.send(request)).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let headers = response.headers().clone();
    (body::text(response.into_body()).await, headers)
}
