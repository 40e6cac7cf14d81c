//! Copies of requests: who gets them, and that nobody waits for one or fails with one.

use std::{
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex, atomic::Ordering},
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Frame, Incoming};
use outrider::{
    model::mirror::{Dropped, MirrorCounts},
    telemetry::trail::Trail,
};

use crate::{
    harness::{
        Client, HttpApp, Sidecar, TcpApp, TestMesh,
        app::nobody,
        body::{self, Body},
        client::request,
        eventually, soon,
    },
    metrics::scrape,
    processes::{
        mesh::Network,
        process::{Process, program},
    },
};

/// An app with the bodies that it got.
struct Reader {
    app: HttpApp,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Reader {
    async fn start() -> Self {
        let bodies: Arc<Mutex<Vec<String>>> = Arc::default();
        let kept = Arc::clone(&bodies);
        let app = HttpApp::start(move |request: Request<Incoming>| {
            let kept = Arc::clone(&kept);
            async move {
                let text = body::text(request.into_body()).await;
                kept.lock().unwrap().push(text);
                Ok(Response::builder().status(500).body(body::full("nobody reads this"))?)
            }
        })
        .await;
        Self { app, bodies }
    }

    fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap().clone()
    }
}

/// `web` with the clusters `v1`, whose app is the one that is asked, and `v2`, which gets copies.
struct Mirrored {
    _mesh: TestMesh,
    original: HttpApp,
    _callees: Vec<Sidecar>,
    web: Sidecar,
}

/// What `web` is configured with.
fn yaml(v1: SocketAddr, (v2, keys): (SocketAddr, &str), rule: &str) -> String {
    format!(
        "outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{}, {}]\n\
         routes: [{{name: shop, hosts: [orders], rules: [{{name: all, {rule}}}]}}]",
        TestMesh::cluster("v1", &[v1], ""),
        TestMesh::cluster("v2", &[v2], keys),
    )
}

impl Mirrored {
    /// With this app behind the sidecar of `v2`, and this rule.
    async fn new(copies: SocketAddr, rule: &str) -> Self {
        Self::with(HttpApp::named("v1").await, copies, "", rule).await
    }

    /// With further keys of the cluster `v2`.
    async fn with(original: HttpApp, copies: SocketAddr, keys: &str, rule: &str) -> Self {
        let mesh = TestMesh::new();
        let v1 = mesh.callee("v1", original.address(), "").await;
        let v2 = mesh.callee("v2", copies, "").await;
        let web = mesh.start("web", &yaml(v1.address(), (v2.address(), keys), rule)).await;
        Self { _mesh: mesh, original, _callees: vec![v1, v2], web }
    }

    async fn send(&self, version: Version, body: Body) -> (StatusCode, String) {
        send(&mut Client::connect(self.web.address(), version).await, body).await
    }

    fn count(&self, read: impl Fn(&MirrorCounts) -> u64) -> u64 {
        read(&self.web.cluster("v2").runtime.mirrors)
    }

    fn dropped(&self, why: Dropped) -> u64 {
        self.count(|counts| counts.dropped[why as usize].load(Ordering::Relaxed))
    }

    fn sent(&self) -> u64 {
        self.count(|counts| counts.sent.load(Ordering::Relaxed))
    }

    fn unanswered(&self) -> u64 {
        self.count(|counts| counts.unanswered.load(Ordering::Relaxed))
    }

    fn active(&self) -> u64 {
        self.count(|counts| counts.active.load(Ordering::Relaxed).into())
    }
}

const RULE: &str = "clusters: [{name: v1}], mirror: [{cluster: v2}]";

/// An app that never answers.
async fn hanging() -> TcpApp {
    TcpApp::start(async |mut stream| {
        drop(tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut Vec::new()).await);
    })
    .await
}

async fn send(client: &mut Client, body: Body) -> (StatusCode, String) {
    let mut request = request(Method::POST, "/carts/%37?page=2", body);
    request.headers_mut().insert("host", "orders".parse().unwrap());
    let answer = soon("the answer", client.send(request)).await.unwrap();
    (answer.status(), soon("its end", body::text(answer.into_body())).await)
}

fn ok() -> (StatusCode, String) {
    (StatusCode::OK, "v1".to_owned())
}

#[tokio::test]
async fn a_copy_is_the_request_as_the_rule_changes_it_and_its_answer_is_nobodys() {
    let copies = Reader::start().await;
    let rule = "clusters: [{name: v1, request_headers: {set: [{name: x-stage, value: main}]}}], mirror: [{cluster: v2}], \
                request_headers: {set: [{name: x-rule, value: 'yes'}]}, rewrite: {host: inner.example, path: /v2}";
    let mesh = Mirrored::new(copies.app.address(), rule).await;
    for (index, version) in [Version::HTTP_11, Version::HTTP_2].into_iter().enumerate() {
        assert_eq!(mesh.send(version, body::full("two apples")).await, ok());
        eventually("the copy came", || copies.bodies().len() > index).await;
        assert_eq!(copies.bodies()[index], "two apples");
        let (main, copy) = (&mesh.original.seen()[index], &copies.app.seen()[index]);
        assert_eq!((&copy.method, copy.uri.path(), copy.uri.query()), (&Method::POST, "/v2", Some("page=2")));
        assert_eq!((main.header("x-stage"), copy.header("x-stage")), (Some("main"), None));
        assert_eq!((copy.header("x-rule"), copy.version), (Some("yes"), main.version));
        for name in ["x-request-id", "x-forwarded-host", "content-length"] {
            assert!(copy.header(name).is_some(), "{name}");
            assert_eq!(copy.header(name), main.header(name), "{name}");
        }
        assert_eq!(copy.authority(), main.authority());
    }
    eventually("both were answered", || mesh.sent() == 2 && mesh.active() == 0).await;
    assert_eq!(mesh.unanswered(), 0);
    // What is told of requests is as without copies.
    let samples = scrape(&mesh.web);
    assert!((samples.sum("outrider_requests_total", &[("cluster", "v1")]) - 2.0).abs() < 0.1);
    assert!(samples.sum("outrider_requests_total", &[("cluster", "v2")]) < 0.1);
    assert!((samples.sum("outrider_mirror_sent_total", &[("cluster", "v2")]) - 2.0).abs() < 0.1);
    assert_eq!(mesh.web.cluster("v2").runtime.in_flight.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn nobody_waits_for_a_mirror_that_hangs_and_copies_of_one_have_a_bound() {
    let hanging = hanging().await;
    let mesh = Mirrored::with(HttpApp::named("v1").await, hanging.address(), "max_requests: 8", RULE).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(mesh.send(version, body::full("two apples")).await, ok());
    }
    // Answered, while copies are under way that may have a quarter of the cluster.
    eventually("they are under way", || mesh.active() == 2).await;
    assert_eq!(mesh.dropped(Dropped::TooMany), 0);
    assert_eq!(mesh.send(Version::HTTP_2, body::empty()).await, ok());
    eventually("there is no place", || mesh.dropped(Dropped::TooMany) == 1).await;
    assert_eq!(mesh.active(), 2);
}

#[tokio::test]
async fn nobody_fails_with_a_mirror_that_is_dead_and_it_is_not_asked_twice() {
    let copies = Reader::start().await;
    let rule = format!("{RULE}, retry: {{max_retries: 5}}");
    let mesh = TestMesh::new();
    let original = HttpApp::named("v1").await;
    let v1 = mesh.callee("v1", original.address(), "").await;
    let v2 = mesh.callee("v2", copies.app.address(), "").await;
    // Somebody else is where `v2` is to be; nobody is; and nobody is known.
    for (keys, address, what) in [
        ("", v1.address(), None),
        ("", nobody(), None),
        ("endpoints_file: none.yaml", v2.address(), Some(Dropped::NoEndpoint)),
    ] {
        let yaml = yaml(v1.address(), (address, ""), &rule);
        let yaml = if keys.is_empty() {
            yaml
        } else {
            fs::write(mesh.dir().join("none.yaml"), "endpoints: []").unwrap();
            let listed = format!("endpoints: [{{address: '{address}'}}], ");
            yaml.replacen(&listed, &format!("{keys}, "), 1)
        };
        let web = mesh.start("web", &yaml).await;
        let mut client = Client::http2(web.address()).await;
        assert_eq!(send(&mut client, body::full("x")).await, ok());
        let cluster = web.cluster("v2");
        let counts = &cluster.runtime.mirrors;
        eventually("the copy is over", || {
            let count = match what {
                Some(why) => &counts.dropped[why as usize],
                None => &counts.unanswered,
            };
            count.load(Ordering::Relaxed) == 1
        })
        .await;
        assert_eq!(counts.sent.load(Ordering::Relaxed), u64::from(what.is_none()));
        assert_eq!(cluster.runtime.retries.load(Ordering::Relaxed), 0);
    }
    assert_eq!((original.count(), copies.app.count()), (3, 0));
}

#[tokio::test]
async fn a_copys_time_is_the_rules() {
    let hanging = hanging().await;
    let mesh = Mirrored::new(hanging.address(), &format!("{RULE}, request_timeout: 300ms")).await;
    // It has the same time, and a busy machine may take that; without a body the copy does not wait for it.
    mesh.send(Version::HTTP_2, body::empty()).await;
    eventually("its time is over", || mesh.unanswered() == 1 && mesh.active() == 0).await;
}

#[tokio::test]
async fn who_may_not_call_the_mirror_sends_no_copy_of_anybodys_call_either() {
    let (copies, mesh) = (Reader::start().await, TestMesh::new());
    let original = HttpApp::named("v1").await;
    let v1 = mesh.callee("v1", original.address(), "").await;
    let allow = format!("allow: ['{}']", crate::harness::ca::id("somebody"));
    let v2 = mesh.callee("v2", copies.app.address(), &allow).await;
    let web = mesh.start("web", &yaml(v1.address(), (v2.address(), ""), RULE)).await;
    assert_eq!(send(&mut Client::http2(web.address()).await, body::full("x")).await, ok());
    let cluster = web.cluster("v2");
    eventually("it is refused", || cluster.runtime.mirrors.unanswered.load(Ordering::Relaxed) == 1).await;
    assert_eq!(copies.app.count(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_kept_is_not_copied_and_goes_on_all_the_same() {
    let copies = Reader::start().await;
    let rule = format!("{RULE}, retry: {{replay_bytes: 1024}}");
    let mesh = Mirrored::new(copies.app.address(), &rule).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let before = mesh.dropped(Dropped::TooLarge);
        assert_eq!(mesh.send(version, body::full("x".repeat(1025))).await, ok());
        eventually("it is counted", || mesh.dropped(Dropped::TooLarge) == before + 1).await;
        assert_eq!(mesh.send(version, body::full("x".repeat(1024))).await, ok());
    }
    eventually("the short ones came", || copies.bodies().len() == 2 && mesh.active() == 0).await;
    assert!(copies.bodies().iter().all(|body| body.len() == 1024));
    // Its sender breaks off.
    let (sender, body) = body::channel();
    let web = mesh.web.address();
    let sending = tokio::spawn(async move {
        let mut request = request(Method::POST, "/", body);
        request.headers_mut().insert("host", "orders".parse().unwrap());
        drop(Client::http2(web).await.send(request).await);
    });
    sender.send(Ok(Frame::data(Bytes::from_static(b"begun")))).await.unwrap();
    eventually("it is under way", || mesh.original.count() == 5).await;
    assert_eq!(mesh.active(), 0, "who waits for a body takes nobody's place");
    sending.abort();
    eventually("it is given up", || mesh.dropped(Dropped::Incomplete) == 1 && mesh.active() == 0).await;
    assert_eq!(copies.app.count(), 2);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_bodys_end_costs_the_copy_nothing() {
    let copies = Reader::start().await;
    let mesh = Mirrored::with(HttpApp::echo().await, copies.app.address(), "", RULE).await;
    let (sender, body) = body::channel();
    let mut client = Client::http2(mesh.web.address()).await;
    let mut request = request(Method::POST, "/", body);
    request.headers_mut().insert("host", "orders".parse().unwrap());
    sender.send(Ok(Frame::data(Bytes::from_static(b"one ")))).await.unwrap();
    let answer = soon("the head", client.send(request)).await.unwrap();
    assert_eq!((answer.status(), copies.app.count()), (StatusCode::OK, 0));
    sender.send(Ok(Frame::data(Bytes::from_static(b"two")))).await.unwrap();
    drop(sender);
    assert_eq!(soon("its end", body::text(answer.into_body())).await, "one two");
    eventually("the copy came", || copies.bodies() == ["one two"]).await;
}

#[tokio::test]
async fn a_share_of_nothing_is_nothing_and_a_wish_to_leave_http_is_never_copied() {
    let copies = Reader::start().await;
    let rule = "clusters: [{name: v1}], mirror: [{cluster: v2, percent: 0}, {cluster: v2}, {cluster: v2, percent: 100}]";
    let mesh = Mirrored::new(copies.app.address(), rule).await;
    let mut asked = request(Method::GET, "/chat", body::empty());
    for (name, value) in [
        ("host", "orders"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        asked.headers_mut().insert(name, value.parse().unwrap());
    }
    let mut client = Client::http1(mesh.web.address()).await;
    soon("the answer", client.send(asked)).await.unwrap();
    assert_eq!(mesh.active(), 0);
    assert_eq!(mesh.send(Version::HTTP_11, body::empty()).await, ok());
    eventually("two copies came", || mesh.sent() == 2 && mesh.active() == 0).await;
    assert!(copies.app.seen().iter().all(|seen| seen.method == Method::POST));
}

#[tokio::test]
async fn a_copys_span_is_marked_and_hangs_where_the_requests_own_hangs() {
    let (copies, mesh) = (Reader::start().await, TestMesh::new());
    let original = HttpApp::named("v1").await;
    let v1 = mesh.callee("v1", original.address(), "").await;
    let v2 = mesh.callee("v2", copies.app.address(), "").await;
    for (percent, trails) in [(100, 2), (0, 1)] {
        let traces =
            format!("telemetry: {{traces: {{endpoint: 'http://127.0.0.1:9', sample_percent: {percent}}}}}");
        let yaml = format!("{traces}\n{}", yaml(v1.address(), (v2.address(), ""), RULE));
        let web = mesh.start("web", &yaml).await;
        let mut told = web.app().observer.subscribe();
        assert_eq!(send(&mut Client::http2(web.address()).await, body::full("x")).await, ok());
        let cluster = web.cluster("v2");
        let counts = &cluster.runtime.mirrors;
        let is_over =
            || counts.sent.load(Ordering::Relaxed) == 1 && counts.active.load(Ordering::Relaxed) == 0;
        eventually("the copy is over", is_over).await;
        let mut found: Vec<Trail> = Vec::new();
        while let Ok(told) = told.try_recv() {
            found.push(*told.trail);
        }
        assert_eq!(found.len(), trails, "{found:#?}");
        found.sort_by_key(|trail| trail.is_mirror);
        let main = found[0].trace.clone().unwrap();
        assert!(!found[0].is_mirror && main.own.is_some());
        if let Some(copy) = found.get(1) {
            let place = copy.trace.clone().unwrap();
            assert!(copy.is_mirror && copy.attempts[0].span.is_some());
            assert_eq!((place.trace, place.parent, place.own), (main.trace, main.own, None));
            assert_eq!(copy.cluster.as_ref().map(ToString::to_string).as_deref(), Some("v2"));
            assert_eq!((copy.status, copy.route.as_deref()), (Some(500), Some("shop/all")));
        }
        let fields = copies.app.seen();
        let traceparent = fields.last().unwrap().header("traceparent").unwrap();
        assert!(traceparent.contains(&main.trace.to_string()), "{traceparent}");
        assert!(traceparent.ends_with(if percent == 0 { "-00" } else { "-01" }), "{traceparent}");
    }
}

#[test]
fn a_mirror_that_nobody_knows_fails_the_whole_file_with_a_hint() {
    let yaml = yaml(nobody(), (nobody(), ""), "clusters: [{name: v1}], mirror: [{cluster: v22}]");
    let (text, mesh) = (TestMesh::config("web", &yaml), TestMesh::new());
    let Err(outrider::config::Error::Faults(faults)) = outrider::config::parse(&text, mesh.dir()) else {
        panic!("it is refused")
    };
    let told: Vec<_> = faults.iter().map(|fault| (fault.path.as_str(), fault.remedy.as_str())).collect();
    assert_eq!(told, [("routes[0].rules[0].mirror[0].cluster", "did you mean v2?")]);
}

#[tokio::test]
async fn the_program_as_it_ships_sends_copies_and_says_so() {
    let (copies, mesh) = (Reader::start().await, TestMesh::new());
    let original = HttpApp::named("v1").await;
    let v1 = mesh.callee("v1", original.address(), "").await;
    let v2 = mesh.callee("v2", copies.app.address(), "").await;
    mesh.certify("web", &mesh.ca.leaf("web"));
    let address = Network::new().host(1).outbound();
    let yaml = yaml(v1.address(), (v2.address(), ""), RULE).replacen("127.0.0.1:0", &address.to_string(), 1);
    let file = mesh.dir().join("web.yaml");
    fs::write(&file, TestMesh::config("web", &yaml)).unwrap();
    let run = ["run".into(), "--config".into(), file.clone().into_os_string()];
    let _web = Process::start("web", &program("outrider"), run, mesh.dir());
    eventually("it listens", || std::net::TcpStream::connect(address).is_ok()).await;
    for version in [Version::HTTP_11, Version::HTTP_2] {
        assert_eq!(
            send(&mut Client::connect(address, version).await, body::full("x".repeat(5000))).await,
            ok()
        );
    }
    eventually("the copies came", || copies.bodies().len() == 2).await;
    assert!(copies.bodies().iter().all(|body| body.len() == 5000));
    let explain = ["route", "explain", "--config"];
    let mut command = tokio::process::Command::new(program("outrider"));
    command.args(explain).arg(&file).args(["GET", "http://orders/"]);
    let output = command.kill_on_drop(true).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("copied to v2 (100 %)"), "{text}");
}
