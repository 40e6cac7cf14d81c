//! A workload of the mesh that has been taken over: it has a good certificate, and does to its peer's sidecar whatever costs
//! that more than itself. Somebody else calls the same sidecar, a process of its own, all the time.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use h2::Reason;
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::client::TlsStream;

use crate::{
    harness::{
        Client, HttpApp, Sidecar, TestMesh, body, eventually,
        peer::{self, ALPN_H2},
        raw_h2::{
            CONTINUATION, DATA, END_HEADERS, END_STREAM, GET_ORDERS, GOAWAY, HEADERS, PING, PREFACE,
            SETTINGS, WINDOW_UPDATE, frame, read_frame, reset,
        },
        soon,
    },
    processes::{
        mesh::Network,
        process::{Process, program},
        until,
    },
};

/// RFC 9113 §6.3.
const PRIORITY: u8 = 2;
/// What one attack sends at most, and how long it lasts at most.
const MAX_BYTES: usize = 32 << 20;
const MAX_TIME: Duration = Duration::from_secs(2);
/// By how much the memory of the process may have grown after all of them: twice what is open at the height of an attack.
const MAX_GROWTH_KIB: u64 = 64 << 10;
/// Requests of others that must be answered while an attack goes on.
const SOME: usize = 20;

/// The sidecar of `orders` as a process, its app, and somebody who calls it: `web`, by a sidecar in this process.
struct Scene {
    mesh: TestMesh,
    process: Process,
    address: SocketAddr,
    web: Sidecar,
    app: HttpApp,
}

impl Scene {
    async fn start() -> Self {
        let app = HttpApp::start(async |request: http::Request<hyper::body::Incoming>| {
            match request.uri().path() {
                "/good" => Ok(Response::new(body::full("good"))),
                "/large" => Ok(Response::new(body::streamed(64 << 20, None))),
                _ => std::future::pending().await,
            }
        })
        .await;
        let mesh = TestMesh::new();
        mesh.certify("orders", &mesh.ca.leaf("orders"));
        let address = Network::new().host(1).inbound();
        let yaml = format!("inbound: [{{name: in, listen: '{address}', app: '{}'}}]", app.address());
        let config = mesh.dir().join("orders.yaml");
        fs::write(&config, TestMesh::config("orders", &yaml)).unwrap();
        let arguments = ["run".as_ref(), "--config".as_ref(), config.as_os_str()];
        let process = Process::start("orders", &program("outrider"), arguments, mesh.dir());
        until("the sidecar listens", async || TcpStream::connect(address).await.is_ok()).await;
        let web = mesh.caller(&[address], "").await;
        let scene = Self { mesh, process, address, web, app };
        until("it has its certificate", async || {
            Client::http1(scene.web.address())
                .await
                .get("/good")
                .await
                .is_ok_and(|answer| answer.status() == 200)
        })
        .await;
        scene
    }

    /// Memory of the sidecar, in KiB.
    fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// A connection of the workload that was taken over.
    async fn intrude(&self) -> Option<TlsStream<TcpStream>> {
        let leaf = self.mesh.ca.leaf("bad");
        let config = peer::client_config(&self.mesh.ca, Some(&leaf), &[ALPN_H2]);
        peer::connect(self.address, config).await.ok()
    }

    /// `web` calls on and on, one request after the other.
    fn others(&self) -> Others {
        let (is_over, address) = (Arc::new(AtomicBool::new(false)), self.web.address());
        let served = Arc::new(AtomicUsize::new(0));
        let (stop, count) = (Arc::clone(&is_over), Arc::clone(&served));
        let task = tokio::spawn(async move {
            let mut client = Client::http1(address).await;
            let mut took = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let answer = soon("another's answer", client.get("/good")).await.expect("another's answer");
                assert_eq!(answer.status(), StatusCode::OK, "another's request");
                assert_eq!(body::text(answer.into_body()).await, "good");
                took.push(begun.elapsed());
                count.fetch_add(1, Ordering::Relaxed);
            }
            took
        });
        Others { is_over, served, task }
    }
}

struct Others {
    is_over: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    task: JoinHandle<Vec<Duration>>,
}

impl Others {
    /// Waits until some more of them were answered.
    async fn some(&self) {
        let most = self.served.load(Ordering::Relaxed) + SOME;
        eventually("others are served", || self.served.load(Ordering::Relaxed) >= most).await;
    }

    /// How many they were, and the 99th percentile; each was answered well.
    async fn end(self) -> (usize, Duration) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut took = self.task.await.expect("everybody else is served");
        took.sort();
        let at = (took.len() * 99).div_ceil(100).saturating_sub(1);
        (took.len(), took.get(at).copied().unwrap_or_default())
    }
}

/// Streams of a client, in order.
fn streams() -> impl Iterator<Item = u32> {
    (0..).map(|number| 2 * number + 1)
}

/// The block of a POST to `http://orders/`.
fn post() -> Vec<u8> {
    [b"\x83", &GET_ORDERS[1..]].concat()
}

/// The block of a GET of `/large`.
fn large() -> Vec<u8> {
    b"\x82\x86\x04\x06/large\x01\x06orders".to_vec()
}

fn headers(flags: u8, stream: u32, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

/// The reason of the last GOAWAY.
async fn goaway(mut reader: ReadHalf<TlsStream<TcpStream>>) -> Option<Reason> {
    let mut last = None;
    while let Some((kind, _stream, payload)) = read_frame(&mut reader).await {
        if kind == GOAWAY {
            last = Some(Reason::from(u32::from_be_bytes(payload[4..8].try_into().unwrap())));
        }
    }
    last
}

async fn send(mut writer: WriteHalf<TlsStream<TcpStream>>, frames: impl Iterator<Item = Vec<u8>>) -> usize {
    let mut sent = 0;
    let sending = async {
        if writer.write_all(PREFACE).await.is_err() {
            return;
        }
        for bytes in frames {
            sent += bytes.len();
            if sent > MAX_BYTES || writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                return;
            }
        }
    };
    drop(tokio::time::timeout(MAX_TIME, sending).await);
    sent
}

type Frames = Box<dyn Iterator<Item = Vec<u8>> + Send>;

/// Each attack, and the reasons with which it may be ended.
fn attacks() -> Vec<(&'static str, Frames, &'static [Reason])> {
    const CALM: &[Reason] = &[Reason::ENHANCE_YOUR_CALM];
    let rapid = streams().map(|stream| {
        [headers(END_HEADERS | END_STREAM, stream, GET_ORDERS), reset(stream, Reason::CANCEL)].concat()
    });
    let made_you = |increment: [u8; 4]| {
        streams().map(move |stream| {
            let broken = frame(WINDOW_UPDATE, 0, stream, &increment);
            [headers(END_HEADERS | END_STREAM, stream, GET_ORDERS), broken].concat()
        })
    };
    let many = frame(CONTINUATION, 0, 1, &b"\x00\x01a\x01b".repeat(3000));
    let continued = [headers(END_STREAM, 1, GET_ORDERS)].into_iter().chain(std::iter::repeat(many));
    let nothing =
        [headers(END_HEADERS, 1, &post())].into_iter().chain(std::iter::repeat(frame(DATA, 0, 1, &[])));
    let mut bomb = GET_ORDERS.to_vec();
    bomb.extend(b"\x40\x01a\x7f\xb9\x16");
    bomb.extend(vec![b'v'; 3000]);
    bomb.extend(vec![0xbe; 8000]);
    let bombs = streams().map(move |stream| headers(END_HEADERS | END_STREAM, stream, &bomb));
    let mut heavy = GET_ORDERS.to_vec();
    for _ in 0..100 {
        heavy.extend(b"\x00\x01b\x7f\xe9\x06");
        heavy.extend(vec![b'v'; 1000]);
    }
    let heavy = streams().map(move |stream| {
        let mut bytes = headers(END_STREAM, stream, &heavy[..16_000]);
        let chunks: Vec<_> = heavy[16_000..].chunks(16_000).collect();
        for (at, chunk) in chunks.iter().enumerate() {
            let flags = if at + 1 == chunks.len() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, stream, chunk));
        }
        bytes
    });
    let priorities = std::iter::repeat(frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 7]));
    vec![
        ("streams reset at once", Box::new(rapid), CALM),
        ("streams that overflow their window", Box::new(made_you([0x7f, 0xff, 0xff, 0xff])), CALM),
        ("streams whose window grows by nothing", Box::new(made_you([0; 4])), &[Reason::PROTOCOL_ERROR]),
        (
            "a header block without end",
            Box::new(continued),
            &[Reason::ENHANCE_YOUR_CALM, Reason::PROTOCOL_ERROR],
        ),
        ("data that is none", Box::new(nothing), CALM),
        ("one byte that means many", Box::new(bombs), CALM),
        ("header blocks of 100,000 bytes", Box::new(heavy), &[Reason::ENHANCE_YOUR_CALM, Reason::NO_ERROR]),
        ("pings", Box::new(std::iter::repeat(frame(PING, 0, 0, &[7; 8]))), &[]),
        ("settings", Box::new(std::iter::repeat(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 1, 0]))), &[]),
        ("priorities", Box::new(priorities), &[]),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_cost_more_than_they_carry_cost_nobody_else_anything() {
    let scene = Scene::start().await;
    let before = scene.memory();
    for (what, frames, reasons) in attacks() {
        let others = scene.others();
        let (reader, writer) = split(scene.intrude().await.expect("it is let in"));
        let said = tokio::spawn(goaway(reader));
        let sent = send(writer, frames).await;
        // Where it is not ended for what it sends, its own end ends it.
        let reason = if reasons.is_empty() {
            said.abort();
            None
        } else {
            soon(what, said).await.unwrap()
        };
        assert!(
            reasons.is_empty() || reason.is_some_and(|reason| reasons.contains(&reason)),
            "{what}: {reason:?}"
        );
        let (count, p99) = others.end().await;
        println!("{what}: {sent} bytes, ended with {reason:?}; {count} of others, p99 {p99:?}");
    }
    let after = scene.memory();
    println!("memory: {before} KiB before, {after} KiB after");
    assert!(after < before + MAX_GROWTH_KIB, "{before} KiB before, {after} KiB after");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_much_and_takes_nothing_holds_up_nobody_else() {
    let scene = Scene::start().await;
    let before = scene.memory();
    let mut held = Vec::new();
    // What a stream may hold that nobody takes: the app's window (`stream_window`), and what is on its way.
    let most = before + 8 * 80 * (256 + 128);
    for _ in 0..8 {
        let mut stream = scene.intrude().await.expect("it is let in");
        // No window for any stream (RFC 9113 §6.5.2), and as many streams as there may be.
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat();
        bytes.extend(
            streams().take(80).flat_map(|stream| headers(END_HEADERS | END_STREAM, stream, &large())),
        );
        stream.write_all(&bytes).await.unwrap();
        stream.flush().await.unwrap();
        held.push(stream);
    }
    eventually("the app is asked", || scene.app.count() > 500).await;
    let others = scene.others();
    others.some().await;
    let (count, p99) = others.end().await;
    let after = scene.memory();
    println!("{count} of others, p99 {p99:?}; memory: {before} KiB before, {after} KiB now");
    assert!(after < most, "{count}, {before} KiB before, {after} KiB now");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_one_peer_never_ends_leave_room_for_others() {
    let scene = Scene::start().await;
    let refused = Arc::new(AtomicUsize::new(0));
    let mut held = Vec::new();
    // More than all requests that there may be, on connections of as many streams as there may be.
    for _ in 0..6 {
        let (mut reader, mut writer) = split(scene.intrude().await.expect("it is let in"));
        let mut bytes = PREFACE.to_vec();
        bytes.extend(streams().take(250).flat_map(|stream| headers(END_HEADERS, stream, &post())));
        writer.write_all(&bytes).await.unwrap();
        writer.flush().await.unwrap();
        let refused = Arc::clone(&refused);
        held.push((
            writer,
            tokio::spawn(async move {
                while let Some((kind, ..)) = read_frame(&mut reader).await {
                    refused.fetch_add(usize::from(kind == HEADERS), Ordering::Relaxed);
                }
            }),
        ));
    }
    eventually("what is beyond its share is answered", || refused.load(Ordering::Relaxed) == 1500 - 768)
        .await;
    let others = scene.others();
    for byte in 0..5 {
        for (writer, _) in &mut held {
            // Slow bodies: a byte of each now and then.
            let crumbs: Vec<u8> =
                streams().take(3).flat_map(|stream| frame(DATA, 0, stream, &[byte])).collect();
            drop(writer.write_all(&crumbs).await);
            drop(writer.flush().await);
        }
        others.some().await;
    }
    let (count, p99) = others.end().await;
    println!("{count} of others, p99 {p99:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_of_one_address_that_say_nothing_keep_no_peer_out() {
    let scene = Scene::start().await;
    let before = scene.memory();
    let others = scene.others();
    let mut open = std::collections::VecDeque::new();
    for _ in 0..10_000 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 7], 0).into()).unwrap();
        if let Ok(stream) = socket.connect(scene.address).await {
            open.push_back(stream);
        }
        if open.len() > 600 {
            open.pop_front();
        }
    }
    others.some().await;
    let (count, p99) = others.end().await;
    let after = scene.memory();
    println!("{count} of others, p99 {p99:?}; memory: {before} KiB before, {after} KiB now");
    assert!(after < before + MAX_GROWTH_KIB, "{count}, {before} KiB before, {after} KiB now");
    // And a newcomer with a certificate gets in beside them.
    let fresh = scene.mesh.caller(&[scene.address], "").await;
    let answer =
        soon("an answer", async { Client::http1(fresh.address()).await.get("/good").await }).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let mut closed = 0;
    for mut stream in open {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await;
        closed += usize::from(read.is_ok());
    }
    assert!(closed > 0, "those beyond the bound are closed");
}
