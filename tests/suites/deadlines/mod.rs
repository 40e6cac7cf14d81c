//! Until when a request is worth its work, and for whom: routes with timeouts of their own, what is left of a time told
//! from hop to hop, and callers that go away.

mod cancelled;
mod grpc;
mod hops;
mod routes;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use hyper::body::Incoming;

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh,
    body::{self, Body},
    client::{field, request},
    soon,
};

/// How much later than it should something may end on a busy machine.
const LATE: Duration = Duration::from_secs(5);

/// `web` → `orders`.
struct Pair {
    _mesh: TestMesh,
    orders: Sidecar,
    web: Sidecar,
}

impl Pair {
    /// In front of an app at `orders`; `keys` are further keys of the callee's listener, and of the caller's cluster.
    async fn new(app: std::net::SocketAddr, keys: (&str, &str)) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app, keys.0).await;
        let web = mesh.caller(&[orders.address()], keys.1).await;
        Self { _mesh: mesh, orders, web }
    }

    async fn client(&self, version: Version) -> Client {
        Client::connect(self.web.address(), version).await
    }
}

/// Counts how often it began, and how often it was dropped: of an app's work that never ends by itself.
#[derive(Clone, Default)]
struct Work(Arc<(AtomicUsize, AtomicUsize)>);

struct Working(Work);

impl Work {
    fn begin(&self) -> Working {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        Working(self.clone())
    }

    fn begun(&self) -> usize {
        self.0.0.load(Ordering::Relaxed)
    }

    fn dropped(&self) -> usize {
        self.0.1.load(Ordering::Relaxed)
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.0.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// An app that takes its time for ever, and notices of HTTP/2 streams when nobody waits any more.
async fn never(work: &Work) -> HttpApp {
    let work = work.clone();
    HttpApp::start(move |_request| {
        let working = work.begin();
        async move {
            let _working = working;
            std::future::pending::<()>().await;
            Err("never".into())
        }
    })
    .await
}

/// An app that waits as long as the path's last segment says, in milliseconds.
async fn slow() -> HttpApp {
    HttpApp::start(async |request: Request<Incoming>| {
        let path = request.uri().path().to_owned();
        body::drain(request.into_body()).await?;
        let millis = path.rsplit('/').next().and_then(|last| last.parse().ok()).unwrap_or(0);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        Ok(Response::new(body::full("done")))
    })
    .await
}

/// A response's status and our reason, and after which time it was there.
async fn timed(client: &mut Client, request: Request<Body>) -> (u16, Option<String>, Duration) {
    let began = Instant::now();
    let response = soon("the answer", client.send(request)).await.unwrap();
    (response.status().as_u16(), field(&response, "x-outrider-reason").map(str::to_owned), began.elapsed())
}

/// Asserts that it ended at that time, or not much later.
#[track_caller]
fn assert_at(took: Duration, millis: u64) {
    let expected = Duration::from_millis(millis);
    // Two clocks, both in whole milliseconds.
    let early = expected.saturating_sub(Duration::from_millis(2));
    assert!((early..expected + LATE).contains(&took), "after {took:?}, not {expected:?}");
}

/// A request with fields.
fn with(method: Method, path: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    let mut request = request(method, path, body::empty());
    set(request.headers_mut(), fields);
    request
}

fn get(path: &str, fields: &[(&'static str, &str)]) -> Request<Body> {
    with(Method::GET, path, fields)
}

fn set(headers: &mut HeaderMap, fields: &[(&'static str, &str)]) {
    for (name, value) in fields {
        headers.insert(*name, HeaderValue::from_str(value).unwrap());
    }
}
