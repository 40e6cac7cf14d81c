//! Streams that are opened before anybody has spoken, as the caller's sidecar makes them of silent clients.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};

use outrider::clock::Clock;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};
use tokio_rustls::server::TlsStream;

use super::{Frame, OPAQUE, UNDECIDED, expect, next, send};
use crate::harness::{
    Sidecar, TcpApp, TestMesh,
    app::GREETING,
    eventually,
    peer::{ALPN_TCP, TlsPeer, server_config},
    soon,
    told::ToldNet,
};

type Stream = TlsStream<TcpStream>;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: orders\r\nconnection: close\r\n\r\n";

/// The sidecar of `web`, to which the connections of its app are brought.
struct Web {
    net: ToldNet,
    sidecar: Sidecar,
}

impl Web {
    /// One that knows `orders` by the address of a service.
    async fn start(mesh: &TestMesh, orders: SocketAddr) -> Self {
        let net = ToldNet::default();
        let cluster =
            TestMesh::cluster("orders", &[orders], "addresses: ['192.0.2.1:80'], retry: {max_retries: 0}");
        let yaml = format!("intercept: {{}}\nclusters: [{cluster}]");
        let sidecar = mesh.start_in(net.clone(), Clock::system(), "web", &yaml).await;
        Self { net, sidecar }
    }

    async fn dial(&self) -> TcpStream {
        let address = self.sidecar.address_of("intercept-outbound");
        self.net.dial(address, "192.0.2.1:80".parse().unwrap()).await.unwrap()
    }

    fn connections(&self) -> (u64, u64) {
        let pool = &self.sidecar.cluster("orders").runtime.pool;
        (pool.opened.load(Ordering::Relaxed), pool.reused.load(Ordering::Relaxed))
    }

    /// Nothing is under way any more.
    async fn quiet(&self) {
        eventually("nothing is under way", || self.sidecar.app().drains.in_flight() == 0).await;
    }
}

/// A sidecar of `orders` that carries opaque streams, played by the test.
async fn orders<F>(mesh: &TestMesh, serve: impl Fn(Stream) -> F + Clone + Send + 'static) -> TlsPeer
where
    F: Future<Output = ()> + Send + 'static,
{
    TlsPeer::start(server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]), serve).await
}

/// One opaque stream of a client that speaks first, in what no protocol that is told apart begins with.
async fn opaque(web: &Web) {
    let mut client = web.dial().await;
    client.write_all(b"\0binary").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the stream ends", client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"heard");
}

/// The far side of it. Whether the client speaks before the sidecar gives up waiting for that, is left to chance.
async fn take_opaque(stream: &mut Stream) {
    let opened = next(stream).await;
    assert!([OPAQUE, UNDECIDED].map(|kind| Some(Frame::open(kind))).contains(&opened), "{opened:?}");
    send(stream, &[Frame::Accepted]).await;
    expect(stream, &[Frame::data(b"\0binary"), Frame::Fin]).await;
    send(stream, &[Frame::data(b"heard"), Frame::Fin]).await;
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_through_both_sidecars_and_the_next_stream_needs_no_handshake() {
    let app = TcpApp::greeter().await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = Web::start(&mesh, orders.address()).await;
    for _ in 0..5 {
        let mut client = web.dial().await;
        let mut said = [0; GREETING.len()];
        soon("the greeting", client.read_exact(&mut said)).await.unwrap();
        assert_eq!(said, GREETING);
        client.write_all(b"EHLO").await.unwrap();
        client.shutdown().await.unwrap();
        let mut rest = Vec::new();
        soon("the stream ends", client.read_to_end(&mut rest)).await.unwrap();
        assert_eq!(rest, b"EHLO");
        web.quiet().await;
    }
    assert_eq!(web.connections(), (1, 4));
    assert_eq!(app.connections(), 5);
}

#[tokio::test]
async fn an_undecided_stream_becomes_the_opaque_one_of_whoever_speaks() {
    let mesh = TestMesh::new();
    let open = Arc::new(Notify::new());
    let tell = Arc::clone(&open);
    let peer = orders(&mesh, move |mut stream| {
        let tell = Arc::clone(&tell);
        async move {
            expect(&mut stream, &[Frame::open(UNDECIDED)]).await;
            send(&mut stream, &[Frame::Accepted]).await;
            tell.notify_one();
            expect(&mut stream, &[Frame::data(b"\0binary"), Frame::Fin]).await;
            send(&mut stream, &[Frame::data(b"heard"), Frame::Fin]).await;
            assert_eq!(next(&mut stream).await, None);
        }
    })
    .await;
    let web = Web::start(&mesh, peer.address()).await;
    let mut client = web.dial().await;
    soon("it is open", open.notified()).await;
    client.write_all(b"\0binary").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the stream ends", client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"heard");
}

/// The far side of a stream whose client turns out to speak HTTP when it has got so far.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Far {
    /// `OPEN` has come.
    Asked,
    /// It was accepted.
    Open,
    /// The app has said something that only HTTP's servers say, and goes on.
    Speaking,
}

#[tokio::test]
async fn a_stream_that_is_not_needed_leaves_its_connection_for_the_next_one_however_far_it_was() {
    for far in [Far::Asked, Far::Open, Far::Speaking] {
        let mesh = TestMesh::new();
        let (tell, mut told) = mpsc::channel(1);
        let peer = orders(&mesh, move |mut stream| {
            let tell = tell.clone();
            async move {
                expect(&mut stream, &[Frame::open(UNDECIDED)]).await;
                if far != Far::Asked {
                    send(&mut stream, &[Frame::Accepted]).await;
                }
                if far == Far::Speaking {
                    send(&mut stream, &[Frame::data(b"HTTP/1.1 408 "), Frame::data(b"Request Timeout")])
                        .await;
                }
                tell.send(()).await.unwrap();
                expect(&mut stream, &[Frame::Cancel]).await;
                if far == Far::Asked {
                    send(&mut stream, &[Frame::Accepted]).await;
                }
                // What was on its way when it heard of that.
                send(&mut stream, &[Frame::data(b"too late"), Frame::Fin]).await;
                take_opaque(&mut stream).await;
                assert_eq!(next(&mut stream).await, None);
            }
        })
        .await;
        let web = Web::start(&mesh, peer.address()).await;
        let mut client = web.dial().await;
        soon("the stream is so far", told.recv()).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let mut answer = Vec::new();
        soon("an answer", client.read_to_end(&mut answer)).await.unwrap();
        // The peer speaks no HTTP: all that matters is that nobody took the request for something else.
        assert!(answer.starts_with(b"HTTP/1.1 503 "), "{far:?}: {}", String::from_utf8_lossy(&answer));
        web.quiet().await;
        opaque(&web).await;
        assert_eq!(web.connections(), (1, 1), "{far:?}");
    }
}

#[tokio::test]
async fn a_client_that_goes_away_before_anybody_spoke_costs_no_connection() {
    let mesh = TestMesh::new();
    let open = Arc::new(Notify::new());
    let tell = Arc::clone(&open);
    let peer = orders(&mesh, move |mut stream| {
        let tell = Arc::clone(&tell);
        async move {
            expect(&mut stream, &[Frame::open(UNDECIDED)]).await;
            send(&mut stream, &[Frame::Accepted]).await;
            tell.notify_one();
            expect(&mut stream, &[Frame::Fin]).await;
            send(&mut stream, &[Frame::Fin]).await;
            take_opaque(&mut stream).await;
            assert_eq!(next(&mut stream).await, None);
        }
    })
    .await;
    let web = Web::start(&mesh, peer.address()).await;
    let client = web.dial().await;
    soon("it is open", open.notified()).await;
    drop(client);
    web.quiet().await;
    opaque(&web).await;
    assert_eq!(web.connections(), (1, 1));
}
