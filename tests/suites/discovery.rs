//! Endpoints come and go under load, and nobody notices but the metrics.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::{Frame, Incoming};
use tokio::task::JoinSet;

use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    ca::id,
    client::{call, field},
    eventually, soon,
};

const FILE: &str = "endpoints.yaml";
/// Every endpoint is asked in its turn, also one that has just failed; and that need not fit the default budget.
const ALL_IN_TURNS: &str = "balance: round_robin, retry: {budget_min_per_second: 10000, backoff_base: 1ms}";

/// A mesh whose caller reads its endpoints from a file.
struct Watched {
    mesh: TestMesh,
    web: Sidecar,
}

impl Watched {
    /// Replaces the file as `mv` would, and waits until its endpoints are in use.
    async fn list(&self, endpoints: &[SocketAddr]) {
        list(&self.mesh, endpoints);
        eventually("the new list is in use", || self.in_use() == endpoints).await;
    }

    fn in_use(&self) -> Vec<SocketAddr> {
        self.web.cluster("orders").endpoints.iter().map(|endpoint| endpoint.address()).collect()
    }
}

async fn caller(mesh: &TestMesh, keys: &str) -> Sidecar {
    let yaml = format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\n\
         clusters: [{{name: orders, spiffe_ids: ['{}'], endpoints_file: {FILE}, {keys}}}]",
        id("orders"),
    );
    mesh.start("web", &yaml).await
}

fn list(mesh: &TestMesh, endpoints: &[SocketAddr]) {
    let items: Vec<_> = endpoints.iter().map(|address| format!("{{address: '{address}'}}")).collect();
    write(mesh, &format!("endpoints: [{}]", items.join(", ")));
}

fn write(mesh: &TestMesh, text: &str) {
    let new = mesh.dir().join("endpoints.new");
    fs::write(&new, text).unwrap();
    fs::rename(new, mesh.dir().join(FILE)).unwrap();
}

/// Apps that call as fast as they are answered, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    callers: JoinSet<Vec<String>>,
}

impl Load {
    fn start(address: SocketAddr, method: &Method) -> Self {
        let (stop, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let mut callers = JoinSet::new();
        for _ in 0..3 {
            let (stop, done, method) = (Arc::clone(&stop), Arc::clone(&done), method.clone());
            callers.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let (status, text) = call(address, method.clone()).await;
                    if status != StatusCode::OK {
                        failures.push(format!("{status}: {text}"));
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                failures
            });
        }
        Self { stop, done, callers }
    }

    /// Lets some more requests pass.
    async fn go_on(&self, requests: usize) {
        let until = self.done.load(Ordering::Relaxed) + requests;
        eventually("the load goes on", || self.done.load(Ordering::Relaxed) >= until).await;
    }

    /// Stops, and says what failed.
    async fn end(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        while let Some(caller) = soon("the load ends", self.callers.join_next()).await {
            failures.extend(caller.unwrap());
        }
        failures
    }
}

fn open_connections(sidecar: &Sidecar) -> usize {
    sidecar.listener("in").active.load(Ordering::Relaxed)
}

#[tokio::test]
async fn endpoints_come_and_go_under_load_and_no_request_fails() {
    let (first, second) = (HttpApp::named("first").await, HttpApp::named("second").await);
    let mesh = TestMesh::new();
    let one = mesh.callee("orders", first.address(), "").await;
    let two = mesh.callee("orders", second.address(), "").await;
    list(&mesh, &[one.address()]);
    let watched = Watched { web: caller(&mesh, "").await, mesh };
    let load = Load::start(watched.web.address(), &Method::POST);
    load.go_on(30).await;
    assert_eq!(second.count(), 0);

    // One more gets its share.
    watched.list(&[one.address(), two.address()]).await;
    eventually("the new one is asked", || second.count() > 10).await;

    // One less gets none, and its connections close.
    watched.list(&[two.address()]).await;
    eventually("its connections close", || open_connections(&one) == 0).await;
    let before = first.count();
    load.go_on(50).await;
    assert_eq!(first.count(), before, "what was removed is still asked");

    // And back again, with fresh counters.
    watched.list(&[one.address()]).await;
    eventually("the old one is asked again", || first.count() > before + 10).await;
    assert_eq!(load.end().await, [""; 0]);
}

#[tokio::test]
async fn a_stream_of_a_removed_endpoint_ends_in_its_own_time() {
    let mesh = TestMesh::new();
    let app = HttpApp::echo().await;
    let (one, two) =
        (mesh.callee("orders", app.address(), "").await, mesh.callee("orders", app.address(), "").await);
    list(&mesh, &[one.address()]);
    let watched = Watched { web: caller(&mesh, "").await, mesh };
    let mut client = Client::http2(watched.web.address()).await;
    let (up, body) = body::channel();
    let response = client.send(crate::harness::client::request(Method::POST, "/", body)).await.unwrap();
    let mut down = response.into_body();
    watched.list(&[two.address()]).await;
    // Longer than the sweeper takes to look.
    for _ in 0..25 {
        up.send(Ok(Frame::data(Bytes::from_static(b"still here")))).await.unwrap();
        let echoed = soon("the echo", down.frame()).await.unwrap().unwrap();
        assert_eq!(echoed.into_data().unwrap(), "still here");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(open_connections(&one), 1);
    drop(up);
    assert!(soon("the end", down.collect()).await.unwrap().to_bytes().is_empty());
    eventually("then its connection closes", || open_connections(&one) == 0).await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_keeps_the_last_good_list() {
    let mesh = TestMesh::new();
    let (first, second) = (HttpApp::named("first").await, HttpApp::named("second").await);
    let one = mesh.callee("orders", first.address(), "").await;
    let two = mesh.callee("orders", second.address(), "").await;
    list(&mesh, &[one.address()]);
    let watched = Watched { web: caller(&mesh, "").await, mesh };
    let error = || watched.web.cluster("orders").runtime.discovery.error();
    let load = Load::start(watched.web.address(), &Method::POST);
    for bad in
        ["endpoints: [{address: nonsense}]", "\u{0}\u{1}", "", "endpoints:\n  - {addres: '127.0.0.1:1'}"]
    {
        write(&watched.mesh, bad);
        eventually(&format!("the fault in {bad:?} is seen"), || error().is_some()).await;
        assert_eq!(watched.in_use(), [one.address()]);
        load.go_on(10).await;
        list(&watched.mesh, &[one.address()]);
        eventually("the good list is seen again", || error().is_none()).await;
    }
    fs::remove_file(watched.mesh.dir().join(FILE)).unwrap();
    eventually("the missing file is seen", || error().is_some()).await;
    load.go_on(10).await;
    watched.list(&[two.address()]).await;
    eventually("a good one counts at once", || second.count() > 0).await;
    assert_eq!(load.end().await, [""; 0]);
}

#[tokio::test]
async fn an_empty_list_is_meant_and_answered_so() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("app").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    list(&mesh, &[orders.address()]);
    let watched = Watched { web: caller(&mesh, "").await, mesh };
    assert_eq!(call(watched.web.address(), Method::GET).await.0, StatusCode::OK);
    watched.list(&[]).await;
    let response = Client::http1(watched.web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("no_endpoint"));
    watched.list(&[orders.address()]).await;
    assert_eq!(call(watched.web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_recycled_address_gets_no_request_until_it_is_known_as_what_it_is() {
    let (app, other) = (HttpApp::named("app").await, HttpApp::named("other").await);
    let mesh = TestMesh::new();
    let leaving = mesh.callee("orders", app.address(), "").await;
    let staying = mesh.callee("orders", app.address(), "").await;
    let recycled = leaving.address();
    list(&mesh, &[recycled, staying.address()]);
    let watched = Watched { web: caller(&mesh, ALL_IN_TURNS).await, mesh };
    let load = Load::start(watched.web.address(), &Method::GET);
    load.go_on(30).await;

    // Its address goes to another service of the mesh at once.
    drop(leaving);
    let yaml = format!("inbound: [{{name: in, listen: '{recycled}', app: '{}'}}]", other.address());
    let inventory = watched.mesh.start("inventory", &yaml).await;
    let knocked = || inventory.listener("in").accepted.load(Ordering::Relaxed) > 0;
    eventually("the newcomer is found out", knocked).await;
    load.go_on(60).await;
    assert_eq!(other.count(), 0);
    assert_eq!(load.end().await, [""; 0]);

    // Once the list says who is there, it is asked, by a connection of its own.
    write(
        &watched.mesh,
        &format!("endpoints: [{{address: '{recycled}', spiffe_id: '{}'}}]", id("inventory")),
    );
    eventually("the new identity is in use", || watched.in_use() == [recycled]).await;
    assert_eq!(call(watched.web.address(), Method::GET).await, (StatusCode::OK, "other".to_owned()));
}

#[tokio::test]
async fn an_endpoint_that_crashes_and_comes_back_costs_no_idempotent_request() {
    // By default the others are asked while it is away; in turns it is asked again as soon as it is back.
    for keys in ["", ALL_IN_TURNS] {
        let app = HttpApp::named("app").await;
        let mesh = TestMesh::new();
        let crashing = mesh.callee("orders", app.address(), "").await;
        let staying = mesh.callee("orders", app.address(), "").await;
        let address = crashing.address();
        let web = mesh.caller(&[address, staying.address()], keys).await;
        let load = Load::start(web.address(), &Method::GET);
        load.go_on(30).await;
        drop(crashing);
        load.go_on(60).await;
        let yaml = format!("inbound: [{{name: in, listen: '{address}', app: '{}'}}]", app.address());
        let back = mesh.start("orders", &yaml).await;
        load.go_on(60).await;
        let is_asked = || back.listener("in").accepted.load(Ordering::Relaxed) > 0;
        if keys == ALL_IN_TURNS {
            eventually("it is asked again", is_asked).await;
        }
        assert_eq!(load.end().await, [""; 0], "{keys}");
    }
}

#[tokio::test]
async fn round_robin_gives_each_the_same() {
    let (mesh, apps) =
        (TestMesh::new(), [HttpApp::echo().await, HttpApp::echo().await, HttpApp::echo().await]);
    let mut sidecars = Vec::new();
    for app in &apps {
        sidecars.push(mesh.callee("orders", app.address(), "").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    let web = mesh.caller(&addresses, "balance: round_robin").await;
    let mut client = Client::http2(web.address()).await;
    for _ in 0..90 {
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(apps.each_ref().map(HttpApp::count), [30, 30, 30]);
}

/// An app that takes its time.
async fn taking(time: Duration) -> HttpApp {
    HttpApp::start(move |_request: Request<Incoming>| async move {
        tokio::time::sleep(time).await;
        Ok(Response::new(body::empty()))
    })
    .await
}

#[tokio::test]
async fn a_slow_endpoint_gets_far_less_than_its_share_by_default() {
    let mesh = TestMesh::new();
    let fast = Duration::from_millis(2);
    let apps = [taking(fast).await, taking(fast).await, taking(Duration::from_millis(100)).await];
    let mut sidecars = Vec::new();
    for app in &apps {
        sidecars.push(mesh.callee("orders", app.address(), "").await);
    }
    let addresses: Vec<_> = sidecars.iter().map(Sidecar::address).collect();
    let web = mesh.caller(&addresses, "").await;
    let mut client = Client::http2(web.address()).await;
    for _ in 0..300 {
        assert_eq!(client.get("/").await.unwrap().status(), StatusCode::OK);
    }
    let [one, two, slow] = apps.each_ref().map(HttpApp::count);
    assert_eq!(one + two + slow, 300);
    assert!(slow <= 30, "the slow one got {slow} of 300");
    assert!(one.min(two) >= 75, "the fast ones got {one} and {two}");
}
