//! Trails of what is no request: opaque streams, tunnels, and streams that left HTTP.

use std::sync::atomic::Ordering;

use outrider::{
    clock::Clock,
    model::{edge::Direction, trace::Origin},
    telemetry::trail::{Caller, Reuse, Traffic, Trail},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{TRACED, Trails, caller, place, text};
use crate::harness::{
    HttpApp, Sidecar, TcpApp, TestMesh,
    app::{GREETING, nobody},
    client::read_head,
    eventually,
    mesh::reset_by,
    soon,
    told::ToldNet,
};

/// `web` → sidecar → sidecar → `orders`, for bytes.
struct Line {
    _mesh: TestMesh,
    _orders: Sidecar,
    web: Sidecar,
    inbound: Trails,
    outbound: Trails,
}

impl Line {
    async fn to(app: &TcpApp, outbound: &str) -> Self {
        let mesh = TestMesh::new();
        let inbound = "inbound: [{name: in, listen: '127.0.0.1:0', protocol: tcp, app: ";
        let orders = mesh.start("orders", &format!("{inbound}'{}'}}]\n{TRACED}", app.address())).await;
        let cluster = TestMesh::cluster("orders", &[orders.address()], "");
        let yaml = format!("outbound: [{outbound}]\nclusters: [{cluster}]\n{TRACED}");
        let web = mesh.start("web", &yaml).await;
        let (inbound, outbound) = (Trails::of(&orders), Trails::of(&web));
        Self { _mesh: mesh, _orders: orders, web, inbound, outbound }
    }
}

const OPAQUE: &str = "{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}";
const REQUESTS: &str = "{name: out, listen: '127.0.0.1:0'}";

/// Sends so much, gets it back, and ends.
async fn echo(stream: &mut TcpStream, bytes: usize) {
    let sent = vec![7; bytes];
    let (mut read, mut write) = stream.split();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut back = Vec::new();
    let reading = async { read.read_to_end(&mut back).await.unwrap() };
    soon("the echo", async { tokio::join!(writing, reading) }).await;
    assert_eq!(back.len(), bytes);
}

fn is_whole(trail: &Trail, bytes: u64) {
    assert_eq!((trail.request_bytes, trail.response_bytes), (bytes, bytes));
    assert_eq!((trail.flag, trail.is_failed()), (None, false));
    let [attempt] = &trail.attempts[..] else { panic!("{trail:?}") };
    assert!(attempt.connected.unwrap().0 <= attempt.answered.unwrap());
    assert!(attempt.answered.unwrap() <= attempt.ended.unwrap() && attempt.ended.unwrap() <= trail.ended);
    assert_eq!(place(trail).origin, Origin::Here);
    assert!(place(trail).own.is_some());
}

#[tokio::test]
async fn an_opaque_stream_has_a_trail_at_both_ends_with_its_bytes() {
    let app = TcpApp::echo().await;
    let mut line = Line::to(&app, OPAQUE).await;
    for reuse in [Reuse::Fresh, Reuse::Reused] {
        echo(&mut TcpStream::connect(line.web.address()).await.unwrap(), 100_000).await;
        let (outbound, inbound) = (line.outbound.next().await, line.inbound.next().await);
        for trail in [&outbound, &inbound] {
            assert_eq!((trail.kind, trail.status), (Traffic::Stream, None));
            assert!(trail.asked.is_none());
            is_whole(trail, 100_000);
        }
        assert_eq!((outbound.direction, inbound.direction), (Direction::Outbound, Direction::Inbound));
        let attempt = &outbound.attempts[0];
        assert_eq!(attempt.connected.unwrap().1, reuse);
        assert_eq!(text(attempt.peer.clone()).as_deref(), Some("spiffe://test.outrider/orders"));
        assert!(attempt.span.is_some());
        assert_eq!(inbound.caller, Caller::Peer(crate::harness::ca::id("web")));
        assert_eq!(text(inbound.cluster).as_deref(), Some("inbound/in"));
    }
}

#[tokio::test]
async fn a_stream_to_nobody_is_told_with_its_reason_and_its_attempts() {
    let mesh = TestMesh::new();
    let yaml = caller(&[nobody()], TRACED, "retry: {max_retries: 1, backoff_base: 1ms}");
    let yaml = yaml.replace(REQUESTS, OPAQUE);
    let web = mesh.start("web", &yaml).await;
    let mut trails = Trails::of(&web);
    reset_by(web.address()).await;
    let trail = trails.next().await;
    assert_eq!((trail.flag.unwrap().letters(), trail.reason.as_deref()), ("UF", Some("connect_failed")));
    assert!(!trail.attempts.is_empty());
    assert!(trail.attempts.iter().all(|attempt| attempt.connected.is_none() && attempt.error.is_some()));
}

#[tokio::test]
async fn a_tunnel_is_one_stream_that_was_asked_for_by_name() {
    let app = TcpApp::echo().await;
    let mut line = Line::to(&app, REQUESTS).await;
    let mut stream = TcpStream::connect(line.web.address()).await.unwrap();
    stream.write_all(b"CONNECT orders:5432 HTTP/1.1\r\nHost: orders:5432\r\n\r\n").await.unwrap();
    let (head, is_whole_head) = soon("an answer", read_head(&mut stream)).await;
    assert!(is_whole_head && head.starts_with("HTTP/1.1 200"), "{head}");
    echo(&mut stream, 50_000).await;
    let (outbound, inbound) = (line.outbound.next().await, line.inbound.next().await);
    assert_eq!((outbound.kind, outbound.status), (Traffic::Tunnel, Some(200)));
    assert_eq!(&*outbound.asked.as_ref().unwrap().authority, "orders:5432");
    assert_eq!(inbound.kind, Traffic::Stream);
    is_whole(&outbound, 50_000);
    is_whole(&inbound, 50_000);
}

#[tokio::test]
async fn a_stream_that_left_http_counts_its_bytes_in_the_trail_of_its_request() {
    let app = TcpApp::start(async |mut stream: TcpStream| {
        if read_head(&mut stream).await.1 {
            let head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
            stream.write_all(head).await.unwrap();
            let (mut read, mut write) = stream.split();
            drop(tokio::io::copy(&mut read, &mut write).await);
            drop(write.shutdown().await);
        }
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.start("orders", &super::callee(app.address(), TRACED)).await;
    let web = mesh.start("web", &caller(&[orders.address()], TRACED, "")).await;
    let (mut outbound, mut inbound) = (Trails::of(&web), Trails::of(&orders));
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    let head = b"GET /chat HTTP/1.1\r\nHost: orders\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let (head, _whole) = soon("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    echo(&mut stream, 10_000).await;
    for trail in [outbound.next().await, inbound.next().await] {
        assert_eq!((trail.kind, trail.status, trail.flag), (Traffic::Http, Some(101), None));
        assert_eq!((trail.request_bytes, trail.response_bytes), (10_000, 10_000));
        assert_eq!(trail.attempts[0].status, Some(101));
    }
}

/// `web`, to which its app's connections are brought, with `orders` behind a service's address.
async fn intercepted(mesh: &TestMesh, net: &ToldNet, orders: &Sidecar) -> Sidecar {
    let cluster = TestMesh::cluster("orders", &[orders.address()], "addresses: ['192.0.2.1:80']");
    let yaml = format!("intercept: {{}}\nclusters: [{cluster}]\n{TRACED}");
    mesh.start_in(net.clone(), Clock::system(), "web", &yaml).await
}

async fn dial(net: &ToldNet, web: &Sidecar) -> TcpStream {
    let address = web.address_of("intercept-outbound");
    net.dial(address, "192.0.2.1:80".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_stream_whose_server_speaks_first_has_the_attempts_that_were_made_before_it_was_known_for_one() {
    let (mesh, net, app) = (TestMesh::new(), ToldNet::default(), TcpApp::greeter().await);
    let inbound = "inbound: [{name: in, listen: '127.0.0.1:0', protocol: tcp, app: ";
    let orders = mesh.start("orders", &format!("{inbound}'{}'}}]\n{TRACED}", app.address())).await;
    let web = intercepted(&mesh, &net, &orders).await;
    let (mut outbound, mut inbound) = (Trails::of(&web), Trails::of(&orders));
    let mut client = dial(&net, &web).await;
    let mut greeting = vec![0; GREETING.len()];
    soon("the greeting", client.read_exact(&mut greeting)).await.unwrap();
    client.write_all(b"QUIT").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon("the end", client.read_to_end(&mut rest)).await.unwrap();
    for trail in [outbound.next().await, inbound.next().await] {
        assert_eq!((trail.kind, trail.flag), (Traffic::Stream, None));
        let to_client = (GREETING.len() + rest.len()) as u64;
        assert_eq!((trail.request_bytes, trail.response_bytes), (4, to_client));
        let [attempt] = &trail.attempts[..] else { panic!("{trail:?}") };
        assert!(attempt.connected.is_some() && attempt.answered.is_some());
        assert!(place(&trail).own.is_some());
    }
}

#[tokio::test]
async fn a_stream_that_was_opened_and_turned_out_to_be_none_leaves_no_trail() {
    let (mesh, net, app) = (TestMesh::new(), ToldNet::default(), HttpApp::named("orders").await);
    let orders = mesh.start("orders", &super::callee(app.address(), TRACED)).await;
    let web = intercepted(&mesh, &net, &orders).await;
    let mut outbound = Trails::of(&web);
    let mut stream = dial(&net, &web).await;
    let opened = || web.cluster("orders").runtime.pool.opened.load(Ordering::Relaxed);
    eventually("a way is opened for a silent client", || opened() > 0).await;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.unwrap();
    let (head, _whole) = soon("an answer", read_head(&mut stream)).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(outbound.next().await.kind, Traffic::Http);
    let edges = web.app().observer.edges.read();
    assert_eq!(edges.iter().map(|(_, counts)| counts.ended()).sum::<u64>(), 1);
}
