//! Opaque streams: bytes, half-closes and resets arrive as they left.

use std::{io, sync::atomic::Ordering, time::Duration};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::harness::{SOON, Sidecar, TcpApp, TestMesh, app::nobody, body, eventually, mesh, soon};

/// `web` → sidecar → sidecar → `orders`, for bytes.
struct Line {
    mesh: TestMesh,
    app: TcpApp,
    orders: Sidecar,
    web: Sidecar,
}

impl Line {
    async fn to(app: TcpApp) -> Self {
        let mesh = TestMesh::new();
        let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
        let web = mesh.tcp_caller(&[orders.address()], "").await;
        Self { mesh, app, orders, web }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.web.address()).await.unwrap()
    }
}

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

async fn read_all(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    soon("the stream ends", stream.read_to_end(&mut all)).await.map(|_count| all)
}

#[tokio::test]
async fn bytes_come_back_while_the_stream_is_open() {
    let line = Line::to(TcpApp::echo().await).await;
    let mut stream = line.connect().await;
    for word in [&b"one"[..], b"\0\r\n\xff", b"three"] {
        stream.write_all(word).await.unwrap();
        let mut back = vec![0; word.len()];
        soon("the echo", stream.read_exact(&mut back)).await.unwrap();
        assert_eq!(back, word);
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await.unwrap(), b"");
}

#[tokio::test]
async fn an_app_that_speaks_first_is_heard() {
    let app = TcpApp::start(async |mut stream| {
        stream.write_all(b"220 ready\r\n").await.unwrap();
        drop(stream.read(&mut [0; 16]).await);
    })
    .await;
    let line = Line::to(app).await;
    let mut stream = line.connect().await;
    let mut greeting = [0; 11];
    soon("the greeting", stream.read_exact(&mut greeting)).await.unwrap();
    assert_eq!(&greeting, b"220 ready\r\n");
}

#[tokio::test]
async fn the_calling_app_may_end_its_half_first() {
    let app = TcpApp::start(async |mut stream| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).await.unwrap();
        let answer = format!("{} bytes", request.len());
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let line = Line::to(app).await;
    let mut stream = line.connect().await;
    stream.write_all(&body::pattern(100_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await.unwrap(), b"100000 bytes");
}

#[tokio::test]
async fn the_called_app_may_end_its_half_first() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"all there is").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            tell.send(rest.len()).await.unwrap();
        }
    })
    .await;
    let line = Line::to(app).await;
    let mut stream = line.connect().await;
    assert_eq!(read_all(&mut stream).await.unwrap(), b"all there is");
    stream.write_all(&body::pattern(100_000)).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the app has read the rest", told.recv()).await, Some(100_000));
}

#[tokio::test]
async fn a_reset_by_the_called_app_arrives_as_a_reset() {
    let app = TcpApp::start(async |mut stream| {
        stream.read_exact(&mut [0; 4]).await.unwrap();
        reset(stream);
    })
    .await;
    let line = Line::to(app).await;
    let mut stream = line.connect().await;
    stream.write_all(b"ping").await.unwrap();
    assert_eq!(read_all(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_by_the_calling_app_arrives_as_a_reset() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            stream.write_all(b"go").await.unwrap();
            let ended = stream.read_to_end(&mut Vec::new()).await;
            tell.send(ended.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    let line = Line::to(app).await;
    let mut stream = line.connect().await;
    soon("the stream is through", stream.read_exact(&mut [0; 2])).await.unwrap();
    reset(stream);
    let ended = soon("the app hears of it", told.recv()).await.unwrap();
    assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_thousand_short_streams_need_few_handshakes() {
    let line = Line::to(TcpApp::echo().await).await;
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..4_u32 {
        let address = line.web.address();
        workers.spawn(async move {
            for i in 0..250_u32 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let word = format!("{worker}/{i}");
                stream.write_all(word.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                assert_eq!(read_all(&mut stream).await.unwrap(), word.as_bytes());
            }
        });
    }
    while let Some(done) = workers.join_next().await {
        done.unwrap();
    }
    let handshakes = line.orders.listener("in").accepted.load(Ordering::Relaxed);
    assert!(handshakes <= 16, "{handshakes} TLS connections for 1000 streams, 4 at a time");
    assert_eq!(line.app.connections(), 1000);
}

#[tokio::test]
async fn sixteen_mib_pass_whole_in_both_directions_at_once() {
    const SIZE: usize = 16 * 1024 * 1024;
    let line = Line::to(TcpApp::echo().await).await;
    let (mut read, mut write) = line.connect().await.into_split();
    let sent = body::pattern(SIZE);
    let sending = tokio::spawn(async move {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    });
    let mut checker = body::Checker::default();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = soon("the next bytes", read.read(&mut buffer)).await.unwrap();
        if count == 0 {
            break;
        }
        checker.take(&buffer[..count]);
    }
    sending.await.unwrap();
    assert_eq!(checker.count, SIZE as u64);
}

#[tokio::test]
async fn a_slow_reader_holds_the_writer_back() {
    let line = Line::to(TcpApp::echo().await).await;
    let mut stream = line.connect().await;
    let chunk = vec![7; 64 * 1024];
    let mut sent = 0_usize;
    // Nothing is read meanwhile: buffers on the way fill up, and then writing must wait.
    while let Ok(written) = tokio::time::timeout(Duration::from_millis(500), stream.write(&chunk)).await {
        sent += written.unwrap();
        assert!(sent < 256 * 1024 * 1024, "nobody holds the writer back");
    }
    stream.shutdown().await.unwrap();
    assert_eq!(read_all(&mut stream).await.unwrap().len(), sent);
}

#[tokio::test]
async fn a_dead_cluster_resets_the_stream_at_once() {
    let mesh = TestMesh::new();
    let web = mesh.tcp_caller(&[nobody()], "retry: {backoff_base: 1ms}").await;
    let before = std::time::Instant::now();
    mesh::reset_by(web.address()).await;
    assert!(before.elapsed() < SOON / 4);
}

#[tokio::test]
async fn a_stream_goes_to_another_endpoint_when_the_first_one_is_dead() {
    let line = Line::to(TcpApp::echo().await).await;
    let dead_app = line.mesh.callee("orders", nobody(), "protocol: tcp").await;
    let endpoints = [nobody(), dead_app.address(), line.orders.address()];
    let keys = "balance: round_robin, retry: {budget_min_per_second: 100}";
    let web = line.mesh.tcp_caller(&endpoints, keys).await;
    for _ in 0..9 {
        let mut stream = TcpStream::connect(web.address()).await.unwrap();
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(read_all(&mut stream).await.unwrap(), b"hello");
    }
    eventually("retries are counted", || web.retries() >= 6).await;
}

#[tokio::test]
async fn a_sidecar_that_dies_resets_its_streams() {
    let Line { mesh: _mesh, app, orders, web } = Line::to(TcpApp::echo().await).await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    soon("the echo", stream.read_exact(&mut [0; 5])).await.unwrap();
    drop(orders);
    assert_eq!(read_all(&mut stream).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    drop(app);
}
