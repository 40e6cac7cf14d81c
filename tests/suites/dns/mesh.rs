//! A mesh whose caller finds its endpoints in the DNS.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hickory_resolver::proto::{op::ResponseCode, rr::RecordType};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use outrider::model::status::LookupOutcome;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};

use super::{
    Answer, DnsServer,
    server::{address, service},
};
use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestMesh, body,
    ca::id,
    client::{call, field},
    eventually, soon,
};

const NAME: &str = "_mesh._tcp.orders.test.";

/// A mesh with a DNS server of its own.
struct Named {
    mesh: TestMesh,
    dns: DnsServer,
}

impl Named {
    async fn new() -> Self {
        Self { mesh: TestMesh::new(), dns: DnsServer::start().await }
    }

    /// From now on the service is at these places.
    fn is_at(&self, places: &[SocketAddr]) {
        let target = |port: u16| format!("t{port}.test.");
        for place in places {
            let name = target(place.port());
            let records = vec![address(&name, 0, &place.ip().to_string())];
            self.dns.says(&name, RecordType::A, Answer::Records(records));
        }
        let services = places.iter().map(|place| service(NAME, 0, 0, (&target(place.port()), place.port())));
        self.dns.says(NAME, RecordType::SRV, Answer::Records(services.collect()));
    }

    /// The caller. `start` are keys of the top-level `dns`, `keys` of the cluster's.
    async fn caller(&self, protocol: &str, start: &str, keys: &str) -> Sidecar {
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0', protocol: {protocol}, cluster: orders}}]\n\
             dns: {{servers: ['{}'], timeout: 300ms, attempts: 1, {start}}}\n\
             clusters: [{{name: orders, spiffe_ids: ['{}'], \
             dns: {{name: {NAME}, record: srv, min_ttl: 50ms, max_ttl: 100ms, {keys}}}}}]",
            self.dns.address(),
            id("orders"),
        );
        self.mesh.start("web", &yaml).await
    }
}

fn in_use(web: &Sidecar) -> Vec<SocketAddr> {
    web.cluster("orders").endpoints.iter().map(|endpoint| endpoint.address()).collect()
}

fn open_connections(sidecar: &Sidecar) -> usize {
    sidecar.listener("in").active.load(Ordering::Relaxed)
}

fn looks(web: &Sidecar, outcome: LookupOutcome) -> u64 {
    web.cluster("orders").runtime.discovery.lookups.by_outcome[outcome as usize].load(Ordering::Relaxed)
}

/// An app that answers `/slow` when it is told to, and everything else at once.
async fn waiting(until: &Arc<Notify>) -> HttpApp {
    let until = Arc::clone(until);
    HttpApp::start(move |request: Request<Incoming>| {
        let until = Arc::clone(&until);
        async move {
            if request.uri().path() == "/slow" {
                until.notified().await;
            }
            Ok(Response::new(body::full("first")))
        }
    })
    .await
}

#[tokio::test]
async fn requests_move_to_a_new_address_and_the_old_one_is_drained() {
    let named = Named::new().await;
    let go_on = Arc::new(Notify::new());
    let (first, second) = (waiting(&go_on).await, HttpApp::named("second").await);
    let one = named.mesh.callee("orders", first.address(), "").await;
    let two = named.mesh.callee("orders", second.address(), "").await;
    named.is_at(&[one.address()]);
    let web = named.caller("http", "", "").await;
    let slow = tokio::spawn(async move {
        let response = Client::http1(web.address()).await.get("/slow").await.unwrap();
        (response.status(), body::text(response.into_body()).await, web)
    });
    eventually("the slow request is there", || first.count() == 1).await;
    let asked = named.dns.asked_for(RecordType::SRV);
    named.is_at(&[two.address()]);
    eventually("it is asked again", || named.dns.asked_for(RecordType::SRV) > asked + 2).await;
    // The slow one still waits, on a connection that takes no more.
    assert_eq!(open_connections(&one), 1);
    go_on.notify_one();
    let (status, text, web) = soon("the slow answer", slow).await.unwrap();
    assert_eq!((status, text.as_str()), (StatusCode::OK, "first"));
    assert_eq!(in_use(&web), [two.address()]);
    for _ in 0..20 {
        assert_eq!(call(web.address(), Method::POST).await, (StatusCode::OK, "second".to_owned()));
    }
    eventually("its connection closes", || open_connections(&one) == 0).await;
    assert_eq!(first.count(), 1);
}

#[tokio::test]
async fn what_stays_keeps_its_connections_and_counters() {
    let named = Named::new().await;
    let app = HttpApp::named("app").await;
    let staying = named.mesh.callee("orders", app.address(), "").await;
    let leaving = named.mesh.callee("orders", app.address(), "").await;
    named.is_at(&[staying.address(), leaving.address()]);
    let web = named.caller("http", "", "").await;
    let connected = || [&staying, &leaving].iter().all(|sidecar| open_connections(sidecar) == 1);
    while !connected() {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    let runtime = |web: &Sidecar| {
        let orders = web.cluster("orders");
        let found = orders.endpoints.iter().find(|endpoint| endpoint.address() == staying.address());
        Arc::clone(&found.unwrap().runtime)
    };
    let before = runtime(&web);
    named.is_at(&[staying.address()]);
    eventually("the other goes", || in_use(&web).len() == 1).await;
    eventually("and its connection closes", || open_connections(&leaving) == 0).await;
    for _ in 0..10 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    assert!(Arc::ptr_eq(&before, &runtime(&web)));
    assert_eq!(
        staying.listener("in").accepted.load(Ordering::Relaxed),
        1,
        "it is still the first connection"
    );
}

#[tokio::test]
async fn a_dead_dns_keeps_traffic_flowing_and_the_age_tells() {
    let named = Named::new().await;
    let app = HttpApp::named("app").await;
    let orders = named.mesh.callee("orders", app.address(), "").await;
    named.is_at(&[orders.address()]);
    let web = named.caller("http", "", "empty_after: 0s").await;
    for (outcome, answer) in [
        (LookupOutcome::Timeout, Answer::Silence),
        (LookupOutcome::Refused, Answer::Code(ResponseCode::ServFail)),
        (LookupOutcome::Failed, Answer::Garbage),
    ] {
        let before = looks(&web, outcome);
        named.dns.says(NAME, RecordType::SRV, answer);
        eventually("it is noticed", || looks(&web, outcome) > before).await;
        for _ in 0..10 {
            assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
        }
        let (cluster, now) = (web.cluster("orders"), web.app().clock.now());
        let status = &cluster.runtime.discovery;
        assert!(status.error().is_some() && status.age(now).unwrap() > Duration::from_millis(10));
        named.is_at(&[orders.address()]);
        eventually("it is well again", || status.error().is_none()).await;
    }
}

#[tokio::test]
async fn a_name_that_is_gone_empties_the_cluster_only_after_a_while() {
    let named = Named::new().await;
    let app = HttpApp::named("app").await;
    let orders = named.mesh.callee("orders", app.address(), "").await;
    named.is_at(&[orders.address()]);
    let web = named.caller("http", "", "empty_after: 1500ms").await;
    named.dns.forgets_all();
    eventually("it is noticed", || looks(&web, LookupOutcome::NoSuchName) > 0).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    eventually("then it is believed", || in_use(&web).is_empty()).await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("no_endpoint"));
    named.is_at(&[orders.address()]);
    eventually("and back", || !in_use(&web).is_empty()).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_dns_that_is_dead_at_the_start_does_not_hold_it_up_for_ever() {
    let named = Named::new().await;
    let app = HttpApp::named("app").await;
    let orders = named.mesh.callee("orders", app.address(), "").await;
    named.is_at(&[orders.address()]);
    named.dns.set_silent(true);
    let web = named.caller("http", "start_timeout: 500ms", "").await;
    let response = Client::http1(web.address()).await.get("/").await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(field(&response, "x-outrider-reason"), Some("no_endpoint"));
    let cluster = web.cluster("orders");
    assert_eq!(cluster.runtime.discovery.error().as_deref(), Some("no answer in time"));
    named.dns.set_silent(false);
    eventually("the name is resolved", || !in_use(&web).is_empty()).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_start_waits_for_the_first_answer() {
    let named = Named::new().await;
    let app = HttpApp::named("app").await;
    let orders = named.mesh.callee("orders", app.address(), "").await;
    named.is_at(&[orders.address()]);
    named.dns.says(NAME, RecordType::SRV, Answer::Code(ResponseCode::Refused));
    let starting = named.caller("http", "", "");
    let later = async {
        eventually("it is asked more than once", || named.dns.asked_for(RecordType::SRV) > 1).await;
        named.is_at(&[orders.address()]);
    };
    let (web, ()) = tokio::join!(starting, later);
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
}

#[tokio::test]
async fn opaque_streams_outlive_the_removal_of_their_endpoint_and_kept_connections_do_not() {
    let named = Named::new().await;
    let echo = TcpApp::start(|mut stream: TcpStream| async move {
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await;
    let one = named.mesh.callee("orders", echo.address(), "protocol: tcp").await;
    let two = named.mesh.callee("orders", echo.address(), "protocol: tcp").await;
    named.is_at(&[one.address()]);
    let web = named.caller("tcp", "", "").await;
    let echoes = async |stream: &mut TcpStream| {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(soon("the echo", stream.read_u8()).await.unwrap(), b'x');
    };
    let mut lasting = TcpStream::connect(web.address()).await.unwrap();
    echoes(&mut lasting).await;
    let mut short = TcpStream::connect(web.address()).await.unwrap();
    echoes(&mut short).await;
    short.shutdown().await.unwrap();
    assert_eq!(soon("the end", short.read(&mut [0])).await.unwrap(), 0);
    assert_eq!(open_connections(&one), 2, "one in use, one kept");
    named.is_at(&[two.address()]);
    eventually("the kept one closes", || open_connections(&one) == 1).await;
    echoes(&mut lasting).await;
    let mut new = TcpStream::connect(web.address()).await.unwrap();
    echoes(&mut new).await;
    assert_eq!((open_connections(&one), open_connections(&two)), (1, 1));
    drop(lasting);
    eventually("then nothing is left there", || open_connections(&one) == 0).await;
}
