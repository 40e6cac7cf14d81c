//! A root taken out of the trust bundle closes live connections of those it vouched for, and nobody else's; nothing but
//! lost trust does.
//!
//! Two roots, A and B. One sidecar, the hub, has a certificate of A and a bundle that the test changes; everybody else
//! trusts both roots throughout.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use http::StatusCode;
use outrider::{
    app::Parts,
    headers::websocket,
    identity::{
        fixed::{Fixed, FixedHandle},
        source::Material,
    },
};
use outrider_certs::{TrustBundles, svid::X509Svid};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use crate::harness::{
    Client, HttpApp, Sidecar, TcpApp, TestCa, TestLeaf, body, ca, client::read_head, eventually, soon, within,
};

/// Long enough for two looks of the sweeper.
const TWO_LOOKS: Duration = Duration::from_millis(2500);

struct Roots {
    a: TestCa,
    b: TestCa,
    dir: TempDir,
}

/// A sidecar whose certificate and bundle can be replaced.
struct Member {
    sidecar: Sidecar,
    identity: FixedHandle,
    leaf: TestLeaf,
}

impl Roots {
    fn new() -> Self {
        Self { a: TestCa::new(), b: TestCa::new(), dir: TempDir::new().unwrap() }
    }

    /// Starts a sidecar that trusts both roots.
    async fn start(&self, service: &str, leaf: TestLeaf, yaml: &str) -> Member {
        let (source, identity) = Fixed::new(Some(material(&leaf, &[&self.a, &self.b], 1)));
        let parts = Parts { identity: Some(Arc::new(source)), ..Parts::default() };
        let text = format!(
            "service: {service}\ntrust_domain: {}\nstate_dir: state\n\
             identity: {{file: {{certificate: none, key: none, bundle: none}}}}\n\
             admin: {{socket: admin.sock, listen: none}}\n{yaml}\n",
            ca::DOMAIN,
        );
        let sidecar = Sidecar::start_with(&text, self.dir.path(), parts).await;
        Member { sidecar, identity, leaf }
    }

    /// The sidecar of `service` in front of both apps.
    async fn callee(&self, service: &str, leaf: TestLeaf, http: &HttpApp, tcp: &TcpApp) -> Member {
        let yaml = format!(
            "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{}'}}, \
             {{name: in-tcp, listen: '127.0.0.1:0', protocol: tcp, app: '{}'}}]",
            http.address(),
            tcp.address(),
        );
        self.start(service, leaf, &yaml).await
    }

    /// A sidecar that calls these callees, all of them as `orders`.
    async fn caller(&self, service: &str, leaf: TestLeaf, callees: &[&Member]) -> Member {
        let cluster = |name: &str, listener: &str| {
            let addresses = callees.iter().map(|callee| callee.sidecar.address_of(listener));
            let endpoints: Vec<_> = addresses.map(|address| format!("{{address: '{address}'}}")).collect();
            format!(
                "{{name: {name}, spiffe_ids: ['{}'], balance: round_robin, endpoints: [{}], \
                 retry: {{backoff_base: 1ms, budget_min_per_second: 100}}}}",
                ca::id("orders"),
                endpoints.join(", "),
            )
        };
        let yaml = format!(
            "outbound: [{{name: out, listen: '127.0.0.1:0'}}, \
             {{name: out-tcp, listen: '127.0.0.1:0', protocol: tcp, cluster: orders-tcp}}]\n\
             clusters: [{}, {}]",
            cluster("orders", "in"),
            cluster("orders-tcp", "in-tcp"),
        );
        self.start(service, leaf, &yaml).await
    }
}

fn material(leaf: &TestLeaf, trusted: &[&TestCa], sequence: u64) -> Material {
    let svid = X509Svid::from_parts(vec![leaf.der.clone()], leaf.key_der()).unwrap();
    Material { svid, bundles: Arc::new(TrustBundles::single(TestCa::common_bundle(trusted, sequence))) }
}

impl Member {
    /// Publishes another bundle.
    fn trust(&self, roots: &[&TestCa], sequence: u64) {
        self.identity.replace(material(&self.leaf, roots, sequence));
    }

    /// Connections that it has cut.
    fn cuts(&self) -> u64 {
        self.sidecar.app().identity.trust_cuts.load(Ordering::Relaxed)
    }

    /// Connections that verified peers of that ID have made to it.
    fn connections_of(&self, peer: &str) -> u64 {
        let of = |listener| {
            self.sidecar.listener(listener).peers.of(&ca::id(peer)).connections.load(Ordering::Relaxed)
        };
        of("in") + of("in-tcp")
    }

    /// Connections open at it as a callee.
    fn open(&self) -> usize {
        let open = |listener| self.sidecar.listener(listener).active.load(Ordering::Relaxed);
        open("in") + open("in-tcp")
    }

    /// A stream through it that is known to have arrived.
    async fn stream(&self) -> TcpStream {
        let mut stream = TcpStream::connect(self.sidecar.address_of("out-tcp")).await.unwrap();
        echoes(&mut stream).await.unwrap();
        stream
    }

    /// Sends requests one after the other until told to stop; all must succeed. Returns how many there were.
    fn load(&self, stop: &Arc<AtomicBool>) -> JoinHandle<u32> {
        let (address, stop) = (self.sidecar.address_of("out"), Arc::clone(stop));
        tokio::spawn(async move {
            let mut client = Client::http1(address).await;
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let response = soon("an answer", client.get("/")).await.unwrap();
                let status = response.status();
                assert_eq!((status, &*body::text(response.into_body()).await), (StatusCode::OK, "orders"));
                count += 1;
            }
            count
        })
    }
}

/// One word there and back.
async fn echoes(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"word").await?;
    let mut back = [0; 4];
    soon("the echo or the end", stream.read_exact(&mut back)).await?;
    assert_eq!(&back, b"word");
    Ok(())
}

/// The status of one request through a caller.
async fn status(caller: &Member) -> StatusCode {
    Client::http1(caller.sidecar.address_of("out")).await.get("/").await.unwrap().status()
}

#[tokio::test]
async fn callers_of_a_root_taken_out_are_cut_and_the_others_lose_nothing() {
    let (roots, http, tcp) = (Roots::new(), HttpApp::named("orders").await, TcpApp::echo().await);
    let hub = roots.callee("orders", roots.a.leaf("orders"), &http, &tcp).await;
    let web_a = roots.caller("web-a", roots.a.leaf("web-a"), &[&hub]).await;
    let web_b = roots.caller("web-b", roots.b.leaf("web-b"), &[&hub]).await;
    let (mut stream_a, mut stream_b) = (web_a.stream().await, web_b.stream().await);
    assert_eq!((status(&web_a).await, status(&web_b).await), (StatusCode::OK, StatusCode::OK));
    let stop = Arc::new(AtomicBool::new(false));
    let load = web_a.load(&stop);
    let of_a = hub.connections_of("web-a");
    assert_eq!((of_a, hub.connections_of("web-b"), hub.open()), (2, 2, 4));

    hub.trust(&[&roots.a], 2);
    eventually("both connections of B are cut", || hub.cuts() == 2).await;
    let ended = soon("the stream of B ends", stream_b.read(&mut [0])).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "not as if all had come");
    eventually("only A's are open", || hub.open() == 2).await;
    assert_ne!(status(&web_b).await, StatusCode::OK, "B is not let in again");

    echoes(&mut stream_a).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(load.await.unwrap() > 10);
    assert_eq!((hub.connections_of("web-a"), hub.connections_of("web-b"), hub.cuts()), (of_a, 2, 2));
    assert_eq!(web_a.sidecar.retries(), 0);
}

#[tokio::test]
async fn callees_of_a_root_taken_out_are_cut_and_requests_go_elsewhere() {
    let (roots, http, tcp) = (Roots::new(), HttpApp::named("orders").await, TcpApp::echo().await);
    let orders_a = roots.callee("orders", roots.a.leaf("orders"), &http, &tcp).await;
    let orders_b = roots.callee("orders", roots.b.leaf("orders"), &http, &tcp).await;
    let hub = roots.caller("web", roots.a.leaf("web"), &[&orders_a, &orders_b]).await;
    // Round-robin: one with each. Then one with each that is given back to the pool.
    let mut streams = [hub.stream().await, hub.stream().await];
    drop([hub.stream().await, hub.stream().await]);
    let stop = Arc::new(AtomicBool::new(false));
    let load = hub.load(&stop);
    let all_open = || orders_a.open() == 3 && orders_b.open() == 3;
    eventually("both have HTTP, a stream and a kept connection", all_open).await;
    let to_a = orders_a.connections_of("web");

    hub.trust(&[&roots.a], 2);
    eventually("nothing is open with B, kept connections included", || orders_b.open() == 0).await;
    assert!(hub.cuts() >= 3, "{}", hub.cuts());
    let mut alive = 0;
    for stream in &mut streams {
        match echoes(stream).await {
            Ok(()) => alive += 1,
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionReset),
        }
    }
    assert_eq!(alive, 1);
    for _ in 0..6 {
        hub.stream().await;
    }
    let before = http.count();
    eventually("the load goes on", || http.count() > before + 10).await;
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert!(orders_a.connections_of("web") <= to_a + 6, "A's HTTP connection is still the first");
    assert_eq!(orders_a.sidecar.listener("in").accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_half_closed_stream_without_traffic_is_cut_too() {
    let roots = Roots::new();
    // It says all it has to say and listens on.
    let tcp = TcpApp::start(async |mut stream| {
        stream.write_all(b"all").await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
    })
    .await;
    let http = HttpApp::named("orders").await;
    let orders = roots.callee("orders", roots.b.leaf("orders"), &http, &tcp).await;
    let hub = roots.caller("web", roots.a.leaf("web"), &[&orders]).await;
    let mut stream = TcpStream::connect(hub.sidecar.address_of("out-tcp")).await.unwrap();
    let mut all = Vec::new();
    soon("the end of one direction", stream.read_to_end(&mut all)).await.unwrap();
    assert_eq!((&*all, orders.open()), (&b"all"[..], 1));
    hub.trust(&[&roots.a], 2);
    eventually("it is closed", || orders.open() == 0).await;
    assert_eq!(hub.cuts(), 1);
}

#[tokio::test]
async fn another_root_or_a_renewal_closes_nothing() {
    let (roots, http, tcp) = (Roots::new(), HttpApp::named("orders").await, TcpApp::echo().await);
    let orders = roots.callee("orders", roots.b.leaf("orders"), &http, &tcp).await;
    let web = roots.caller("web", roots.a.leaf("web"), &[&orders]).await;
    let mut stream = web.stream().await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = web.load(&stop);
    eventually("HTTP is under way", || orders.open() == 2).await;
    let third = TestCa::new();
    for hub in [&orders, &web] {
        hub.trust(&[&roots.a, &roots.b, &third], 2);
    }
    assert!(!within(TWO_LOOKS, || orders.open() != 2).await, "another root");
    orders.identity.replace(material(&roots.b.leaf("orders"), &[&roots.a, &roots.b], 3));
    web.identity.replace(material(&roots.a.leaf("web"), &[&roots.a, &roots.b], 3));
    assert!(
        !within(TWO_LOOKS, || orders.open() != 2).await,
        "new certificates, and a root less that vouched for nobody"
    );
    echoes(&mut stream).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    load.await.unwrap();
    assert_eq!((orders.cuts(), web.cuts(), orders.connections_of("web")), (0, 0, 2));
}

#[tokio::test]
async fn a_peer_whose_certificate_ran_out_is_kept_until_its_root_goes() {
    let (roots, http, tcp) = (Roots::new(), HttpApp::named("orders").await, TcpApp::echo().await);
    let hub = roots.callee("orders", roots.a.leaf("orders"), &http, &tcp).await;
    let life = Duration::from_secs(4);
    let end = SystemTime::now() + life;
    let short = roots.caller("short", roots.a.short_leaf("short", life), &[&hub]).await;
    let web_b = roots.caller("web-b", roots.b.leaf("web-b"), &[&hub]).await;
    let (mut stream, _stream_b) = (short.stream().await, web_b.stream().await);
    eventually("the certificate has run out", || SystemTime::now() > end + Duration::from_secs(1)).await;

    hub.trust(&[&roots.a], 2);
    eventually("B is cut, so all were judged", || hub.cuts() == 1).await;
    assert!(!within(TWO_LOOKS, || hub.cuts() != 1).await);
    echoes(&mut stream).await.unwrap();

    let other = TestCa::new();
    hub.trust(&[&other], 3);
    eventually("its root is gone", || hub.cuts() == 2).await;
    assert!(echoes(&mut stream).await.is_err());
}

/// An app that switches protocols as asked and then echoes.
async fn obliging() -> TcpApp {
    TcpApp::start(async |mut stream| {
        let (head, _) = read_head(&mut stream).await;
        let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: "));
        let (protocol, proof) = match key {
            Some(key) => {
                let accept = websocket::accept(&key.parse().unwrap());
                ("websocket", format!("Sec-WebSocket-Accept: {}\r\n", accept.to_str().unwrap()))
            }
            None => ("foo", String::new()),
        };
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n{proof}\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
        let (mut read, mut write) = stream.split();
        drop(tokio::io::copy(&mut read, &mut write).await);
    })
    .await
}

#[tokio::test]
async fn streams_that_have_left_http_are_cut_too_on_either_side() {
    for is_hub_the_caller in [false, true] {
        let (roots, app) = (Roots::new(), obliging().await);
        let yaml = format!(
            "inbound: [{{name: in, listen: '127.0.0.1:0', app: '{0}'}}, \
             {{name: in-tcp, listen: '127.0.0.1:0', protocol: tcp, app: '{0}'}}]",
            app.address(),
        );
        let orders = roots.start("orders", roots.b.leaf("orders"), &yaml).await;
        let web = roots.caller("web", roots.a.leaf("web"), &[&orders]).await;
        let mut streams = Vec::new();
        // By HTTP/2, and by HTTP/1.1 on a connection of its own.
        for wish in
            ["websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "foo"]
        {
            let mut stream = TcpStream::connect(web.sidecar.address_of("out")).await.unwrap();
            let head =
                format!("GET / HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: {wish}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            let (answer, _) = soon("the switch", read_head(&mut stream)).await;
            assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
            echoes(&mut stream).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(orders.open(), 2);
        if is_hub_the_caller {
            web.trust(&[&roots.a], 2);
        } else {
            orders.trust(&[&roots.b], 2);
        }
        for stream in &mut streams {
            let ended = soon("the stream ends", stream.read(&mut [0])).await;
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset, "not as if all had come");
        }
        eventually("nothing is open", || orders.open() == 0).await;
    }
}
