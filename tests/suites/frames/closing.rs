//! Streams that end in every order leave no half-closed sockets behind, and ends and aborts arrive as such.

use std::{io, net::SocketAddr, time::Duration};

use outrider::model::flag::ResponseFlag;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::harness::{Sidecar, TcpApp, TestMesh, eventually, soon};

/// States of /proc/net/tcp in which a socket waits for somebody to end something: FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK
/// and CLOSING (`include/net/tcp_states.h`).
const HALF_CLOSED: [&str; 5] = ["04", "05", "08", "09", "0B"];

fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
}

/// Sockets with one of these ports at either end that are neither open nor closed.
fn half_closed(ports: &[u16]) -> Vec<String> {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let is_ours = |address: &str| {
        let port = address.rsplit(':').next().unwrap();
        ports.contains(&u16::from_str_radix(port, 16).unwrap())
    };
    let lines = table.lines().skip(1).filter(|line| {
        let cells: Vec<_> = line.split_whitespace().collect();
        HALF_CLOSED.contains(&cells[3]) && (is_ours(cells[1]) || is_ours(cells[2]))
    });
    lines.map(str::to_owned).collect()
}

/// The first byte says how the app ends the stream.
async fn moody() -> TcpApp {
    TcpApp::start(async |mut stream| match stream.read_u8().await {
        // At once, with bytes unread or not.
        Ok(b'c') => {}
        Ok(b'r') => reset(stream),
        // Its half first, and the rest when the client has.
        Ok(b'h') => {
            drop(stream.shutdown().await);
            drop(stream.read_to_end(&mut Vec::new()).await);
        }
        // Its half last.
        Ok(_) | Err(_) => {
            let mut all = Vec::new();
            drop(stream.read_to_end(&mut all).await);
            drop(stream.write_all(&all).await);
        }
    })
    .await
}

/// Ends one stream in the order that `turn` says.
async fn one(address: SocketAddr, turn: usize) {
    let Ok(mut stream) = TcpStream::connect(address).await else { return };
    let mood = [b'c', b'r', b'h', b'l'][turn % 4];
    let bytes = vec![mood; 1 + turn * 97 % 30_000];
    match turn / 4 % 6 {
        // Without a word.
        0 => {}
        1 => reset(stream),
        // With half of the work done.
        2 => drop(stream.write_all(&bytes).await),
        3 => {
            drop(stream.write_all(&bytes).await);
            reset(stream);
        }
        // Its half first, and all of the answer.
        4 => {
            drop(stream.write_all(&bytes).await);
            drop(stream.shutdown().await);
            drop(soon("the end", stream.read_to_end(&mut Vec::new())).await);
        }
        // Its half last, if there is an end to wait for.
        _ => {
            drop(stream.write_all(&bytes).await);
            if mood == b'l' {
                drop(stream.shutdown().await);
            }
            drop(soon("the end", stream.read_to_end(&mut Vec::new())).await);
        }
    }
}

async fn all_orders(web: &Sidecar, ports: &[u16]) {
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..8 {
        let address = web.address();
        clients.spawn(async move {
            for turn in 0..48 {
                one(address, client + turn).await;
            }
        });
    }
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    let mut left = Vec::new();
    let is_clean = crate::harness::within(crate::harness::SOON, || {
        left = half_closed(ports);
        left.is_empty()
    });
    assert!(is_clean.await, "half-closed sockets are left:\n{}", left.join("\n"));
}

/// The sidecar of `web` with an opaque listener to services without TLS.
async fn bare_caller(mesh: &TestMesh, app: SocketAddr, keys: &str) -> Sidecar {
    let yaml = format!(
        "{keys}\noutbound: [{{name: out, listen: '127.0.0.1:0', protocol: tcp, cluster: orders}}]\n\
         clusters: [{{name: orders, tls: none, endpoints: [{{address: '{app}'}}]}}]"
    );
    mesh.start("web", &yaml).await
}

#[tokio::test]
async fn streams_between_sidecars_that_end_in_every_order_leave_no_half_closed_sockets() {
    let (mesh, app) = (TestMesh::new(), moody().await);
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "").await;
    all_orders(&web, &[web.address().port(), orders.address().port(), app.address().port()]).await;
    eventually("nothing is under way", || web.app().drains.in_flight() == 0).await;
}

#[tokio::test]
async fn bare_streams_that_end_in_every_order_leave_no_half_closed_sockets() {
    let (mesh, app) = (TestMesh::new(), moody().await);
    let web = bare_caller(&mesh, app.address(), "").await;
    all_orders(&web, &[web.address().port(), app.address().port()]).await;
    eventually("nothing is under way", || web.app().drains.in_flight() == 0).await;
}

#[tokio::test]
async fn a_bare_stream_may_be_half_closed_by_either_side() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            if stream.read_u8().await.unwrap() == b'h' {
                stream.write_all(b"all there is").await.unwrap();
                stream.shutdown().await.unwrap();
            }
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).await.unwrap();
            tell.send(rest.len()).await.unwrap();
            drop(stream.write_all(b"heard").await);
        }
    })
    .await;
    let (mesh, mut answer) = (TestMesh::new(), String::new());
    let web = bare_caller(&mesh, app.address(), "").await;

    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"h").await.unwrap();
    soon("the app's half ends", stream.read_to_string(&mut answer)).await.unwrap();
    stream.write_all(&[7; 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(soon("the app has read the rest", told.recv()).await, Some(100_000));

    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(&[b'l'; 1 + 100_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    soon("the answer ends", stream.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(told.recv().await, Some(100_000));
    assert_eq!(answer, "all there isheard");
}

#[tokio::test]
async fn a_reset_passes_a_bare_stream_either_way_as_a_reset() {
    let (tell, mut told) = mpsc::channel(1);
    let app = TcpApp::start(move |mut stream| {
        let tell = tell.clone();
        async move {
            if stream.read_u8().await.unwrap() == b'r' {
                return reset(stream);
            }
            stream.write_all(b"go").await.unwrap();
            let ended = stream.read_to_end(&mut Vec::new()).await;
            tell.send(ended.map_err(|error| error.kind())).await.unwrap();
        }
    })
    .await;
    let mesh = TestMesh::new();
    let web = bare_caller(&mesh, app.address(), "").await;

    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"r").await.unwrap();
    let ended = soon("the app's reset", stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);

    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"l").await.unwrap();
    soon("the stream is through", stream.read_exact(&mut [0; 2])).await.unwrap();
    reset(stream);
    let ended = soon("the app hears of it", told.recv()).await.unwrap();
    assert_eq!(ended, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn a_half_closed_stream_ends_when_the_other_half_is_silent_for_too_long() {
    let app = TcpApp::start(async |mut stream| {
        // Never says anything, and never ends.
        drop(stream.read_to_end(&mut Vec::new()).await);
        std::future::pending::<()>().await;
    })
    .await;
    let mesh = TestMesh::new();
    let orders = mesh.callee("orders", app.address(), "protocol: tcp").await;
    let web = mesh.tcp_caller(&[orders.address()], "half_open_timeout: 1s").await;
    let mut stream = TcpStream::connect(web.address()).await.unwrap();
    stream.write_all(b"and?").await.unwrap();
    stream.shutdown().await.unwrap();
    let ended = soon("the stream is reset", stream.read_to_end(&mut Vec::new())).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(web.flagged(ResponseFlag::SI), 1);
}

#[tokio::test]
async fn a_pause_of_the_reader_ends_a_stream_only_where_the_configuration_says_so() {
    static BLOCK: [u8; 64 * 1024] = [7; 64 * 1024];
    // Floods whoever says `f`, and never reads.
    let app = TcpApp::start(async |mut stream| {
        if stream.read_u8().await.unwrap() == b'f' {
            while stream.write_all(&BLOCK).await.is_ok() {}
        }
        std::future::pending::<()>().await;
    })
    .await;
    let mesh = TestMesh::new();
    let impatient = bare_caller(&mesh, app.address(), "limits: {tcp_user_timeout: 1s}").await;
    let patient = bare_caller(&mesh, app.address(), "").await;
    let mut readers = Vec::new();
    for web in [&patient, &impatient] {
        let mut reader = TcpStream::connect(web.address()).await.unwrap();
        reader.write_all(b"f").await.unwrap();
        readers.push(reader);
    }
    let mut writer = TcpStream::connect(impatient.address()).await.unwrap();
    soon("the one that the app does not read is cut", async {
        while writer.write_all(&BLOCK).await.is_ok() {}
    })
    .await;
    let cut = ResponseFlag::UC;
    eventually("the one that the client does not read is cut, too", || impatient.flagged(cut) == 2).await;
    assert_eq!(patient.flagged(cut), 0);
    soon("the patient one goes on", readers[0].read_exact(&mut vec![0; 1 << 20])).await.unwrap();
}
