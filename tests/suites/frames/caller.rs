//! What a sidecar tells the callee of its app's streams, and when.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_rustls::server::TlsStream;

use super::{Frame, OPAQUE, expect, next, send};
use crate::harness::{
    Sidecar, TestMesh, eventually,
    peer::{ALPN_TCP, TlsPeer, server_config},
    soon,
};

type Stream = TlsStream<TcpStream>;

/// A sidecar of `orders`, played by the test.
async fn orders<F>(mesh: &TestMesh, serve: impl Fn(Stream) -> F + Clone + Send + 'static) -> TlsPeer
where
    F: Future<Output = ()> + Send + 'static,
{
    TlsPeer::start(server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_TCP]), serve).await
}

/// Connections made to `orders`.
fn opened(web: &Sidecar) -> u64 {
    web.cluster("orders").runtime.pool.opened.load(Ordering::Relaxed)
}

/// The bytes of the stream that is under way, up to its FIN.
async fn rest(stream: &mut Stream) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        match next(stream).await {
            Some(Frame::Data(bytes)) => all.extend_from_slice(&bytes),
            Some(Frame::Fin) => return all,
            other => panic!("{other:?}"),
        }
    }
}

/// Sends `bytes` and the end; what comes back.
async fn ask(address: SocketAddr, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut client = TcpStream::connect(address).await?;
    client.write_all(bytes).await?;
    client.shutdown().await?;
    let mut answer = Vec::new();
    soon("the stream ends", client.read_to_end(&mut answer)).await?;
    Ok(answer)
}

#[tokio::test]
async fn a_client_that_speaks_first_waits_for_no_answer_to_its_opening() {
    let mesh = TestMesh::new();
    let peer = orders(&mesh, async |mut stream| {
        while let Some(opened) = next(&mut stream).await {
            assert_eq!(opened, Frame::open(OPAQUE));
            // All of it is here before anything is said: not one more turn is needed.
            assert_eq!(rest(&mut stream).await, b"GET it");
            send(&mut stream, &[Frame::Accepted, Frame::data(b"got it"), Frame::Fin]).await;
        }
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "").await;
    for _ in 0..3 {
        assert_eq!(ask(web.address(), b"GET it").await.unwrap(), b"got it");
    }
    assert_eq!(opened(&web), 1);
}

#[tokio::test]
async fn what_comes_later_and_before_the_answer_goes_out_at_once() {
    let mesh = TestMesh::new();
    let (tell, mut told) = mpsc::channel(1);
    let peer = orders(&mesh, move |mut stream| {
        let tell = tell.clone();
        async move {
            expect(&mut stream, &[Frame::open(OPAQUE)]).await;
            tell.send(()).await.unwrap();
            expect(&mut stream, &[Frame::data(b"one")]).await;
            tell.send(()).await.unwrap();
            expect(&mut stream, &[Frame::data(b"two")]).await;
            tell.send(()).await.unwrap();
            expect(&mut stream, &[Frame::Fin]).await;
            send(&mut stream, &[Frame::Accepted, Frame::data(b"heard"), Frame::Fin]).await;
            assert_eq!(next(&mut stream).await, None);
        }
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "").await;
    let mut client = TcpStream::connect(web.address()).await.unwrap();
    for word in [&b"one"[..], b"two"] {
        soon("the peer is so far", told.recv()).await.unwrap();
        client.write_all(word).await.unwrap();
    }
    soon("the peer is so far", told.recv()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    soon("the stream ends", client.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(answer, b"heard");
}

#[tokio::test]
async fn only_so_much_is_sent_before_the_answer() {
    const EARLY: usize = 16 * 1024 - 3;
    let mesh = TestMesh::new();
    let (tell, mut told) = mpsc::channel(1);
    let (go, gone) = (Arc::new(tokio::sync::Notify::new()), Arc::new(AtomicUsize::new(0)));
    let (wait, early) = (Arc::clone(&go), Arc::clone(&gone));
    let peer = orders(&mesh, move |mut stream| {
        let (tell, wait, early) = (tell.clone(), Arc::clone(&wait), Arc::clone(&early));
        async move {
            expect(&mut stream, &[Frame::open(OPAQUE)]).await;
            while early.load(Ordering::Relaxed) < EARLY {
                let Some(Frame::Data(bytes)) = next(&mut stream).await else { panic!("no data") };
                early.fetch_add(bytes.len(), Ordering::Relaxed);
            }
            wait.notified().await;
            send(&mut stream, &[Frame::Accepted]).await;
            tell.send(rest(&mut stream).await.len()).await.unwrap();
            send(&mut stream, &[Frame::Fin]).await;
        }
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "").await;
    let mut client = TcpStream::connect(web.address()).await.unwrap();
    client.write_all(&[7; 100_000]).await.unwrap();
    client.shutdown().await.unwrap();
    eventually("the early bytes are there", || gone.load(Ordering::Relaxed) >= EARLY).await;
    go.notify_one();
    let later = soon("the stream ends", told.recv()).await.unwrap();
    assert_eq!((gone.load(Ordering::Relaxed), later), (EARLY, 100_000 - EARLY));
}

/// Refuses every stream, after it has been told all that there is; says how often.
async fn refuser(mesh: &TestMesh, refused: &Arc<AtomicUsize>) -> TlsPeer {
    let refused = Arc::clone(refused);
    orders(mesh, move |mut stream| {
        let refused = Arc::clone(&refused);
        async move {
            while let Some(opened) = next(&mut stream).await {
                assert_eq!(opened, Frame::open(OPAQUE));
                assert_eq!(rest(&mut stream).await, b"INCR n");
                send(&mut stream, &[Frame::refused("connect_failed")]).await;
                expect(&mut stream, &[Frame::Cancel]).await;
                send(&mut stream, &[Frame::Fin]).await;
                refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await
}

/// Takes every stream and keeps what it says.
async fn taker(mesh: &TestMesh, heard: &Arc<Mutex<Vec<Vec<u8>>>>) -> TlsPeer {
    let heard = Arc::clone(heard);
    orders(mesh, move |mut stream| {
        let heard = Arc::clone(&heard);
        async move {
            while let Some(opened) = next(&mut stream).await {
                assert_eq!(opened, Frame::open(OPAQUE));
                send(&mut stream, &[Frame::Accepted]).await;
                let said = rest(&mut stream).await;
                heard.lock().unwrap().push(said);
                send(&mut stream, &[Frame::data(b"1"), Frame::Fin]).await;
            }
        }
    })
    .await
}

const TWO: &str = "balance: round_robin, retry: {budget_min_per_second: 100}";

#[tokio::test]
async fn early_bytes_that_one_endpoint_refuses_arrive_once_at_another() {
    let mesh = TestMesh::new();
    let (refused, heard) = (Arc::default(), Arc::default());
    let (first, second) = (refuser(&mesh, &refused).await, taker(&mesh, &heard).await);
    let web = mesh.tcp_caller(&[first.address(), second.address()], TWO).await;
    for _ in 0..6 {
        assert_eq!(ask(web.address(), b"INCR n").await.unwrap(), b"1");
        eventually("both connections are free", || web.app().drains.in_flight() == 0).await;
    }
    assert_eq!(*heard.lock().unwrap(), vec![b"INCR n".to_vec(); 6]);
    assert!(refused.load(Ordering::Relaxed) >= 2, "the first was asked");
    assert_eq!(opened(&web), 2, "neither connection was lost by it");
}

/// Reads a stream's beginning and ends the connection without an answer: with TLS's own end or without.
async fn quitter(mesh: &TestMesh, is_orderly: bool) -> TlsPeer {
    orders(mesh, move |mut stream| async move {
        expect(&mut stream, &[Frame::open(OPAQUE)]).await;
        assert_eq!(rest(&mut stream).await, b"INCR n");
        if is_orderly {
            stream.shutdown().await.unwrap();
        }
    })
    .await
}

/// Asks until the first endpoint has been asked.
async fn asked_both(web: &Sidecar, first: &TlsPeer) -> Vec<io::Result<Vec<u8>>> {
    let mut answers = Vec::new();
    while first.connections() == 0 {
        answers.push(ask(web.address(), b"INCR n").await);
    }
    answers
}

#[tokio::test]
async fn early_bytes_are_sent_elsewhere_after_an_orderly_end_without_an_answer() {
    let (mesh, heard) = (TestMesh::new(), Arc::default());
    let (first, second) = (quitter(&mesh, true).await, taker(&mesh, &heard).await);
    let web = mesh.tcp_caller(&[first.address(), second.address()], TWO).await;
    let answers = asked_both(&web, &first).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(heard.lock().unwrap().len(), answers.len());
}

#[tokio::test]
async fn early_bytes_are_not_sent_twice_when_nobody_knows_what_became_of_them() {
    let (mesh, heard) = (TestMesh::new(), Arc::default());
    let (first, second) = (quitter(&mesh, false).await, taker(&mesh, &heard).await);
    let web = mesh.tcp_caller(&[first.address(), second.address()], TWO).await;
    let answers = asked_both(&web, &first).await;
    let failed = answers.iter().filter(|answer| answer.is_err()).count();
    assert_eq!(failed, 1, "{answers:?}");
    assert_eq!(heard.lock().unwrap().len(), answers.len() - 1);
    assert_eq!(web.retries(), 0);
}

#[tokio::test]
async fn the_next_stream_goes_elsewhere_than_on_a_connection_that_is_being_freed() {
    let mesh = TestMesh::new();
    let release = Arc::new(tokio::sync::Notify::new());
    let wait = Arc::clone(&release);
    let peer = orders(&mesh, move |mut stream| {
        let wait = Arc::clone(&wait);
        async move {
            expect(&mut stream, &[Frame::open(OPAQUE)]).await;
            rest(&mut stream).await;
            send(&mut stream, &[Frame::refused("connect_failed")]).await;
            expect(&mut stream, &[Frame::Cancel]).await;
            wait.notified().await;
            send(&mut stream, &[Frame::Fin]).await;
            assert_eq!(next(&mut stream).await, None);
        }
    })
    .await;
    let web = mesh.tcp_caller(&[peer.address()], "retry: {max_retries: 0}").await;
    for _ in 0..2 {
        ask(web.address(), b"x").await.unwrap_err();
    }
    assert_eq!(peer.connections(), 2);
    release.notify_one();
    release.notify_one();
}
