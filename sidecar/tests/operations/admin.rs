//! The admin server over real sockets.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper::Method;
use outrider::{
    admin::{self, Answer, DrainRequest, State},
    drain::Phase,
    model::{controller::Rejected, file::Fault},
    telemetry::log,
};
use serde_json::json;
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
async fn a_scraper_is_answered_in_the_format_that_it_likes_best() {
    let served = serve(state(None)).await;
    let plain = "content-type: text/plain; version=0.0.4; charset=utf-8\r\n";
    let open = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    for (accept, kind, is_ended) in [
        ("", plain, false),
        ("accept: text/plain\r\n", plain, false),
        ("accept: \u{e9}\r\n", plain, false),
        ("accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1\r\n", open, true),
        ("accept: text/plain;q=0.2\r\naccept: application/openmetrics-text\r\n", open, true),
    ] {
        let (status, answer) = served.tcp(&format!("GET /metrics HTTP/1.1\r\nhost: x\r\n{accept}\r\n")).await;
        assert_eq!(status, 200);
        assert!(answer.contains(kind), "{accept}: {answer}");
        assert_eq!(answer.ends_with("# EOF\n"), is_ended, "{accept}");
    }
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
    assert_eq!(served.get("/log?level=debug").await.body, serde_json::json!({"level": "info"}));
    let changed = served.post("/log?level=debug").await;
    assert_eq!((changed.status, changed.body), (200, serde_json::json!({"level": "debug", "was": "info"})));
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
    assert_eq!((&endpoint["standing"], &endpoint["share"]), (&"usable".into(), &1.0.into()));
    let unready = &orders["endpoints"][1];
    assert_eq!((&unready["standing"], &unready["share"]), (&"unhealthy".into(), &0.0.into()));
    assert_eq!((&unready["weight"], &endpoint["zone"]), (&3.into(), &"here".into()));
    let balancing = &orders["balancing"];
    assert_eq!((&balancing["usable"], &balancing["panic"]), (&1.into(), &false.into()));
    assert_eq!(balancing["own_zone_ratio"], 1.0);
    assert_eq!((&unready["ready"], &orders["health_checks"]["not_serving"]), (&false.into(), &1.into()));
    let check = &unready["health_check"];
    assert_eq!((&check["verdict"], &check["contrary"]), (&"unhealthy".into(), &1.into()));
    assert_eq!((&check["last"], &check["text"]), (&"not_serving".into(), &"NOT_SERVING".into()));

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
async fn the_configuration_in_force_says_where_requests_and_streams_go_and_whose_word_is_taken() {
    let config = serve(state(None)).await.get("/config").await.body;
    let route = &config["routes"][0];
    assert_eq!(
        (&route["name"], &route["hosts"][0], &route["services"][0]),
        (&"shop".into(), &"shop.example".into(), &"stock".into())
    );
    let rule = &route["rules"][0];
    assert_eq!(rule["name"], "shop/canary");
    assert_eq!(rule["matches"][0]["path_prefix"], "/cart");
    assert_eq!(rule["matches"][0]["query"], serde_json::json!([{ "name": "v", "value": "2" }]));
    assert_eq!(rule["sticky"]["cookie"], "user");
    let shares = serde_json::json!([{ "name": "orders", "weight": 9 }, { "name": "stock", "weight": 1 }]);
    assert_eq!(rule["clusters"], shares);
    // What holds for its requests is with each of its clusters; values of fields may be secrets.
    let of =
        |name: &str| config["clusters"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
    for cluster in ["orders", "stock"] {
        let route = &of(cluster)["routes"][0];
        assert_eq!(
            (&route["name"], &route["rewrite"]["path_prefix"]),
            (&"shop/canary".into(), &"/v2".into())
        );
        assert_eq!(route["request_headers"]["set"], serde_json::json!(["x-api-key"]));
    }
    assert!(!config.to_string().contains("sesame"));
    let streams = serde_json::json!([{
        "name": "old", "services": ["legacy"], "ports": [80], "snis": ["*.old.example"],
        "clusters": [{ "name": "legacy", "weight": 1 }],
    }]);
    assert_eq!(config["tcp_routes"], streams);
    let listener =
        |name: &str| config["listeners"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
    let inbound = &listener("api")["kind"]["inbound"];
    assert_eq!(inbound["proxy_protocol"], serde_json::json!({ "from": ["10.1.0.0/24"], "required": false }));
    assert_eq!(inbound["app_proxy_protocol"], "v2");
    assert_eq!(
        listener("calls")["proxy_protocol"],
        serde_json::json!({ "from": ["::1/128"], "required": true })
    );
}

#[tokio::test]
async fn discovery_says_where_it_asks_how_that_goes_and_what_is_left_out() {
    let state = state(None);
    let fault = Fault {
        path: "controller.services[x].tls".into(),
        line: None,
        problem: "is odd".into(),
        remedy: "mend it".into(),
    };
    let rejected = Rejected { service: "x".into(), faults: vec![fault], is_conflict: false };
    state.controller.set_rejected([rejected].into());
    let served = serve(Arc::clone(&state)).await;
    let asked = async || served.get("/config").await.body["controller"].clone();
    let shown = asked().await;
    assert_eq!(shown["address"], "controller.test:4360");
    assert_eq!(shown["spiffe_id"], "spiffe://demo.outrider/controller");
    assert_eq!((&shown["connected"], &shown["error"]), (&json!(true), &json!(null)));
    assert_eq!(shown["rejected"][0]["service"], "x");
    assert_eq!(shown["rejected"][0]["faults"][0], "controller.services[x].tls: is odd; remedy: mend it");
    state.controller.end(Some("it is away".to_owned()));
    let shown = asked().await;
    assert_eq!((&shown["connected"], &shown["error"]), (&json!(false), &json!("it is away")));
    assert!(shown["age_seconds"].is_number());
    let clusters = served.get("/clusters").await.body;
    let sources = clusters["clusters"].as_array().unwrap().iter().map(|cluster| cluster["source"].clone());
    assert!(sources.collect::<Vec<_>>().contains(&json!("endpoints_file")));
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
async fn idle_connections_do_not_keep_probes_out_and_are_cut_off() {
    let served = serve(state(None)).await;
    let mut idle = Vec::new();
    for _ in 0..80 {
        idle.push(TcpStream::connect(served.tcp).await.unwrap());
    }
    let begun = std::time::Instant::now();
    assert_eq!(served.tcp_get("/live").await.0, 200);
    let mut byte = [0];
    assert_eq!(idle[0].read(&mut byte).await.unwrap_or(0), 0, "the oldest is closed in its favour");
    assert!(begun.elapsed() < Duration::from_secs(2), "before its time was over: {:?}", begun.elapsed());
    // The newest have places, until the time for a head is over.
    let mut last = idle.pop().unwrap();
    let cut = tokio::time::timeout(Duration::from_secs(20), last.read_to_end(&mut Vec::new())).await;
    assert!(cut.is_ok(), "still open");
}
