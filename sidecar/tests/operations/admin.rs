//! The admin server over real sockets.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper::Method;
use outrider::{
    admin::{self, Answer, DrainRequest, State},
    drain::Phase,
    telemetry::log,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tracing_subscriber::layer::SubscriberExt;

use crate::process::state;

/// A state that is served on a socket and on TCP until the test ends.
struct Served {
    state: Arc<State>,
    socket: PathBuf,
    tcp: std::net::SocketAddr,
    _folder: tempfile::TempDir,
}

async fn serve(state: Arc<State>) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/admin.sock");
    let bound = admin::bind_socket(&socket).unwrap();
    tokio::spawn(admin::serve_socket(bound, Arc::clone(&state), std::future::pending()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = listener.local_addr().unwrap();
    tokio::spawn(admin::serve_read_only(listener, Arc::clone(&state), std::future::pending()));
    Served { state, socket, tcp, _folder: folder }
}

impl Served {
    async fn get(&self, target: &str) -> Answer {
        admin::call(&self.socket, Method::GET, target).await.unwrap()
    }

    async fn post(&self, target: &str) -> Answer {
        admin::call(&self.socket, Method::POST, target).await.unwrap()
    }

    /// Sends bytes over TCP and reads until the server closes: status and the whole answer.
    async fn tcp(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.tcp).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        (answer.split(' ').nth(1).unwrap_or("0").parse().unwrap(), answer)
    }

    async fn tcp_get(&self, target: &str) -> (u16, String) {
        self.tcp(&format!("GET {target} HTTP/1.1\r\nhost: x\r\n\r\n")).await
    }
}

#[tokio::test]
async fn ready_follows_what_is_waited_for_and_the_drain() {
    let served = serve(state(None)).await;
    let guard = served.state.readiness.block("identity");
    let (status, answer) = served.tcp_get("/ready").await;
    assert_eq!(status, 503);
    assert!(answer.ends_with("waiting for: identity\n"), "{answer}");
    assert_eq!(served.tcp_get("/live").await.0, 200);
    guard.release();
    assert_eq!(served.tcp_get("/ready").await.0, 200);
    served.state.drain.advance(Phase::Draining);
    let (status, answer) = served.tcp_get("/ready").await;
    assert_eq!(status, 503);
    assert!(answer.ends_with("draining\n"), "{answer}");
}

#[tokio::test]
async fn tcp_has_the_probes_and_nothing_else() {
    let served = serve(state(None)).await;
    for target in ["/config", "/clusters", "/certs", "/listeners", "/status", "/drain", "/log?level=debug"] {
        assert_eq!(served.tcp_get(target).await.0, 404, "{target}");
        let post = format!("POST {target} HTTP/1.1\r\nhost: x\r\nx-outrider-admin: 1\r\n\r\n");
        assert_eq!(served.tcp(&post).await.0, 404, "{target}");
    }
    assert_eq!(served.tcp("POST /ready HTTP/1.1\r\nhost: x\r\n\r\n").await.0, 405);
    assert_eq!(served.state.drain_requests.current(), None);
}

#[tokio::test]
async fn a_request_with_a_body_is_refused() {
    let served = serve(state(None)).await;
    let (status, _) = served.tcp("GET /ready HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc").await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn get_changes_nothing_and_post_wants_the_header() {
    let served = serve(state(None)).await;
    assert_eq!(served.get("/drain").await.status, 405);
    assert_eq!(served.get("/log?level=debug").await.status, 405);

    let mut stream = tokio::net::UnixStream::connect(&served.socket).await.unwrap();
    stream.write_all(b"POST /drain HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert_eq!(served.state.drain_requests.current(), None);
}

#[tokio::test]
async fn a_drain_is_asked_for_once_and_a_whole_one_outranks_an_inbound_one() {
    let served = serve(state(None)).await;
    let mut requests = served.state.drain_requests.subscribe();
    let answer = served.post("/drain?inbound=true").await;
    assert_eq!((answer.status, &answer.body["drain_requested"]), (202, &"inbound".into()));
    assert_eq!(answer.body["inbound_connections"], 2);
    assert_eq!(*requests.borrow_and_update(), Some(DrainRequest { inbound_only: true }));
    assert_eq!(served.get("/ready").await.status, 503);

    served.post("/drain?inbound=true").await;
    assert!(!requests.has_changed().unwrap());
    served.post("/drain").await;
    assert_eq!(*requests.borrow_and_update(), Some(DrainRequest { inbound_only: false }));
    served.post("/drain?inbound=true").await;
    assert!(!requests.has_changed().unwrap());
    assert_eq!(served.post("/drain?inbuond=true").await.status, 400);
}

#[tokio::test]
async fn the_log_level_changes_by_post() {
    let (layer, control) = log::layer("info", log::Format::Json).unwrap();
    let _subscriber = tracing_subscriber::registry().with(layer);
    let served = serve(state(Some(control.clone()))).await;
    assert_eq!(served.post("/log?level=debug").await.status, 200);
    assert_eq!(control.filter(), "debug");
    assert_eq!(served.post("/log?level=inof").await.status, 400);
    assert_eq!(control.filter(), "debug");
}

#[tokio::test]
async fn dumps_show_what_operators_need() {
    let served = serve(state(None)).await;
    let clusters = served.get("/clusters").await.body;
    assert_eq!(clusters["snapshot_version"], 7);
    let orders = clusters["clusters"].as_array().unwrap().iter().find(|c| c["name"] == "orders").unwrap();
    assert_eq!(orders["requests"]["by_status"]["2xx"], 3);
    assert_eq!(orders["requests"]["by_flag"]["UF"], 1);
    let median = orders["requests"]["latency_ms"]["p50"].as_f64().unwrap();
    assert!((3.0..=5.0).contains(&median), "{median}");
    let endpoint = &orders["endpoints"][0];
    assert_eq!(endpoint["address"], "10.0.0.7:4343");
    assert_eq!(endpoint["latency_ms"], 1.5);
    assert_eq!(endpoint["tls"]["key_exchange"], "X25519MLKEM768");

    let search = clusters["clusters"].as_array().unwrap().iter().find(|c| c["name"] == "search").unwrap();
    let discovery = &search["discovery"];
    assert_eq!(discovery["error"], "no answer in time");
    assert_eq!(
        (&discovery["dns"]["name"], &discovery["dns"]["record"]),
        (&"search.test.".into(), &"any".into())
    );
    assert_eq!(discovery["dns"]["ttl_seconds"], 30.0);
    assert_eq!(discovery["dns"]["lookups"]["timeout"], 2);
    assert!(orders["discovery"]["dns"].is_null());

    let listeners = served.get("/listeners").await.body;
    let api = &listeners["listeners"][0];
    assert_eq!((&api["name"], &api["direction"]), (&"api".into(), &"inbound".into()));
    assert_eq!(api["refused"]["plaintext"], 1);
    assert_eq!(api["peers"][0]["peer"], "spiffe://demo.outrider/web");
    assert_eq!(api["peers"][0]["requests"], 5);

    let certs = served.get("/certs").await.body;
    assert_eq!(certs["spiffe_id"], "spiffe://demo.outrider/shop");
    assert_eq!(certs["trust_bundles"][0]["roots"], 1);
    let ratio = certs["age_ratio"].as_f64().unwrap();
    assert!((0.0..=0.5).contains(&ratio), "{ratio}");

    let config = served.get("/config").await.body;
    assert_eq!(config["bootstrap"]["service"], "shop");
    assert_eq!(config["clusters"][0]["name"], "inbound/api");
    assert_eq!((&config["generation"], &config["rejected"]), (&1.into(), &serde_json::Value::Null));
    let exceptions = &config["bootstrap"]["intercept"]["exceptions"];
    assert_eq!(*exceptions, serde_json::json!(["outbound_port_3306", "inbound_listener_4391"]));
    let clusters = config["clusters"].as_array().unwrap().iter();
    let dns = clusters.map(|cluster| &cluster["source"]["dns"]).find(|dns| !dns.is_null()).unwrap();
    assert_eq!((&dns["port"], &dns["empty_after"]), (&4343.into(), &"1m".into()));
}

#[tokio::test]
async fn no_dump_holds_a_key() {
    let served = serve(state(None)).await;
    let key = served.state.snapshots.load().identity.as_ref().unwrap().svid.key_pem();
    let secret: Vec<&str> = key.lines().filter(|line| !line.starts_with("-----")).collect();
    for target in ["/config", "/clusters", "/listeners", "/certs", "/status", "/metrics", "/ready"] {
        let answer = served.get(target).await;
        assert_eq!(answer.status, 200, "{target}");
        let text = answer.body.to_string();
        assert!(!text.contains("PRIVATE KEY"), "{target}");
        assert!(!secret.iter().any(|line| text.contains(line)), "{target}");
    }
    let debug = format!("{:?}", served.state);
    assert!(!debug.contains("PRIVATE KEY") && !secret.iter().any(|line| debug.contains(line)));
}

#[tokio::test]
async fn a_slow_client_is_cut_off_and_many_are_shed() {
    let served = serve(state(None)).await;
    // 80 that say nothing, of which the first 64 hold a slot until their time for a head is over.
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    let mut last = idle.pop().unwrap();
    let closed = tokio::time::timeout(Duration::from_secs(2), last.read_u8()).await;
    assert!(closed.expect("shed at once").is_err());
    let mut first = idle.remove(0);
    let mut rest = Vec::new();
    let cut = tokio::time::timeout(Duration::from_secs(20), first.read_to_end(&mut rest)).await;
    assert!(cut.is_ok(), "still open");
    assert_eq!(served.tcp_get("/live").await.0, 200);
}
