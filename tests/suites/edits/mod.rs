//! What routes change of requests and answers, at the caller's sidecar and at the callee's, and whom they send elsewhere.

mod fields;
mod redirects;
mod rewrites;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::harness::{Client, HttpApp, Sidecar, TestMesh, body, client::request};

const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// `web` → sidecar → sidecar → `orders`, whose app writes fields that it had better not.
struct Edited {
    mesh: TestMesh,
    app: HttpApp,
    orders: Sidecar,
    web: Sidecar,
}

/// An app that answers with 200, or with the status that its path says: `/503`.
async fn talkative() -> HttpApp {
    HttpApp::start(async |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        body::drain(request.into_body()).await?;
        let status = path.trim_start_matches('/').parse().unwrap_or(StatusCode::OK);
        let response = Response::builder()
            .status(status)
            .header("server", "internal/1.2")
            .header("x-debug", "a")
            .header("x-debug", "b")
            .header("vary", "accept")
            .header("set-cookie", "a=1");
        Ok(response.body(body::full("done"))?)
    })
    .await
}

impl Edited {
    /// One with these routes of the own app, and these keys of the caller's cluster.
    async fn new(inbound: &str, cluster: &str) -> Self {
        let (mesh, app) = (TestMesh::new(), talkative().await);
        let orders = mesh.callee("orders", app.address(), inbound).await;
        let web = mesh.caller(&[orders.address()], cluster).await;
        Self { mesh, app, orders, web }
    }

    /// Sends a GET with these fields; the answer is read to its end.
    async fn get(&self, version: Version, path: &str, fields: &[(&'static str, &str)]) -> Came {
        let mut client = Client::connect(self.web.address(), version).await;
        ask(&mut client, path, fields).await
    }
}

/// An answer, and its body.
struct Came {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Came {
    /// All values of a field.
    fn all(&self, name: &str) -> Vec<&str> {
        self.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }
}

async fn ask(client: &mut Client, path: &str, fields: &[(&'static str, &str)]) -> Came {
    let mut request = request(Method::GET, path, body::empty());
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let (head, body) = client.send(request).await.unwrap().into_parts();
    Came { status: head.status, headers: head.headers, text: body::text(body).await }
}
