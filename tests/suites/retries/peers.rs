//! Failures of a peer's sidecar: what HTTP/2 says of a request that was not answered decides what may be repeated.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use http::{Method, StatusCode};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_rustls::server::TlsStream;

use super::PLENTY;
use crate::harness::{
    Client, HttpApp, Sidecar, TestMesh, body,
    client::{call, field},
    peer::{ALPN_H2, TlsPeer, server_config},
    raw_h2::{begin, goaway, next_request, reset},
    soon,
};

/// A good replica and a peer that takes requests and gives no answer, asked in turns.
struct Two {
    _mesh: TestMesh,
    _sidecar: Sidecar,
    good: HttpApp,
    /// Requests that the bad one has got.
    bad: Arc<AtomicUsize>,
    _peer: TlsPeer,
    web: Sidecar,
}

/// What the bad one does with a request on that stream; `None` closes the connection.
type Act = fn(u32) -> Option<Vec<u8>>;

impl Two {
    async fn with(act: Act) -> Self {
        let mesh = TestMesh::new();
        let good = HttpApp::named("good").await;
        let sidecar = mesh.callee("orders", good.address(), "").await;
        let bad: Arc<AtomicUsize> = Arc::default();
        let count = Arc::clone(&bad);
        let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]);
        let peer = TlsPeer::start(config, move |stream| serve(stream, act, Arc::clone(&count))).await;
        let web = mesh.caller(&[peer.address(), sidecar.address()], PLENTY).await;
        Self { _mesh: mesh, _sidecar: sidecar, good, bad, _peer: peer, web }
    }

    fn bad(&self) -> usize {
        self.bad.load(Ordering::Relaxed)
    }
}

async fn serve(mut stream: TlsStream<TcpStream>, act: Act, count: Arc<AtomicUsize>) {
    if begin(&mut stream).await.is_none() {
        return;
    }
    while let Some(id) = next_request(&mut stream).await {
        count.fetch_add(1, Ordering::Relaxed);
        match act(id) {
            Some(bytes) => stream.write_all(&bytes).await.unwrap(),
            None => break,
        }
    }
    drop(stream.shutdown().await);
}

/// Ten requests in turns: all succeed, and the bad one was asked.
async fn costs_nothing(act: Act, method: Method, what: &str) {
    let two = Two::with(act).await;
    for _ in 0..10 {
        let called = soon(what, call(two.web.address(), method.clone())).await;
        assert_eq!(called, (StatusCode::OK, "good".to_owned()), "{what}");
    }
    assert!(two.bad() > 0 && two.web.retries() > 0, "{what}: the bad one was never asked");
    assert_eq!(two.good.count(), 10, "{what}");
}

/// Ten requests in turns: what the bad one got is answered with 503, and nobody else got it.
async fn is_done_once_at_most(act: Act, what: &str) {
    let two = Two::with(act).await;
    let mut failed = 0;
    for _ in 0..10 {
        let mut client = Client::http1(two.web.address()).await;
        let response = soon(what, client.post("/", "once")).await.unwrap();
        if response.status() == StatusCode::OK {
            continue;
        }
        failed += 1;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{what}");
        assert_eq!(field(&response, "x-outrider-reason"), Some("reset_before_answer"), "{what}");
    }
    assert!(failed > 0, "{what}: the bad one was never asked");
    assert_eq!((two.bad(), two.good.count(), two.web.retries()), (failed, 10 - failed, 0), "{what}");
}

const REFUSED: Act = |id| Some(reset(id, h2::Reason::REFUSED_STREAM));
const GONE_BEFORE_IT: Act = |id| Some(goaway(id.saturating_sub(2), h2::Reason::NO_ERROR));
const ERROR_BEFORE_IT: Act = |id| Some(goaway(id.saturating_sub(2), h2::Reason::INTERNAL_ERROR));

#[tokio::test]
async fn a_stream_that_was_refused_is_sent_elsewhere_whatever_the_method() {
    // RFC 9113 §8.7: "the REFUSED_STREAM error code … indicate[s] that the stream is being closed prior to any
    // processing having occurred. Any request that was sent on the reset stream can be safely retried."
    for method in [Method::GET, Method::POST] {
        costs_nothing(REFUSED, method, "REFUSED_STREAM").await;
    }
}

#[tokio::test]
async fn a_stream_above_goaways_last_is_sent_elsewhere_whatever_the_method() {
    // RFC 9113 §6.8: streams above the identifier "were not or will not be processed".
    for (act, what) in [(GONE_BEFORE_IT, "GOAWAY NO_ERROR"), (ERROR_BEFORE_IT, "GOAWAY INTERNAL_ERROR")] {
        for method in [Method::GET, Method::POST] {
            costs_nothing(act, method, what).await;
        }
    }
}

const CLOSED: Act = |_id| None;
const INTERNAL: Act = |id| Some(reset(id, h2::Reason::INTERNAL_ERROR));
const CANCELLED: Act = |id| Some(reset(id, h2::Reason::CANCEL));

#[tokio::test]
async fn an_idempotent_request_without_an_answer_is_sent_elsewhere() {
    for (act, what) in [(CLOSED, "closed"), (INTERNAL, "INTERNAL_ERROR"), (CANCELLED, "CANCEL")] {
        costs_nothing(act, Method::GET, what).await;
    }
}

#[tokio::test]
async fn a_post_without_an_answer_may_have_been_done_and_is_not_repeated() {
    for (act, what) in [(CLOSED, "closed"), (INTERNAL, "INTERNAL_ERROR"), (CANCELLED, "CANCEL")] {
        is_done_once_at_most(act, what).await;
    }
}

/// GOAWAY that names the request's own stream as processed, and then the end of the connection.
async fn processed_then_gone(reason: h2::Reason) {
    let mesh = TestMesh::new();
    let good = HttpApp::named("good").await;
    let sidecar = mesh.callee("orders", good.address(), "").await;
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]);
    let bad: Arc<AtomicUsize> = Arc::default();
    let count = Arc::clone(&bad);
    let peer = TlsPeer::start(config, move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            if begin(&mut stream).await.is_some()
                && let Some(id) = next_request(&mut stream).await
            {
                count.fetch_add(1, Ordering::Relaxed);
                stream.write_all(&goaway(id, reason)).await.unwrap();
                drop(stream.shutdown().await);
            }
        }
    })
    .await;
    let web = mesh.caller(&[peer.address(), sidecar.address()], PLENTY).await;
    let mut failed = 0;
    for _ in 0..6 {
        let (status, text) = soon("an answer", call(web.address(), Method::POST)).await;
        if status != StatusCode::OK {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{text}");
            failed += 1;
        }
    }
    assert!(failed > 0, "{reason:?}: the bad one was never asked");
    assert_eq!((bad.load(Ordering::Relaxed), good.count()), (failed, 6 - failed), "{reason:?}: done twice");
}

#[tokio::test]
async fn a_stream_below_goaways_last_may_have_been_done_and_is_not_repeated() {
    // RFC 9113 §6.8: up to the last stream identifier, streams "might have been processed".
    for reason in [h2::Reason::NO_ERROR, h2::Reason::INTERNAL_ERROR, h2::Reason::ENHANCE_YOUR_CALM] {
        processed_then_gone(reason).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_closes_each_new_connection_is_not_dialled_for_ever() {
    let mesh = TestMesh::new();
    let config = server_config(&mesh.ca, &mesh.ca.leaf("orders"), &[ALPN_H2]);
    let peer = TlsPeer::start(config, async |mut stream| drop(stream.shutdown().await)).await;
    let web = mesh.caller(&[peer.address()], "retry: {max_retries: 2, backoff_base: 1ms}").await;
    let (status, _text) = soon("an answer", call(web.address(), Method::POST)).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let dialled = peer.connections();
    assert!(dialled <= 6, "{dialled} connections for three attempts of one request");
}

#[tokio::test]
async fn a_drained_sidecar_costs_no_request() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("good").await;
    let going = mesh.callee("orders", app.address(), "").await;
    let staying = mesh.callee("orders", app.address(), "").await;
    let web = mesh.caller(&[going.address(), staying.address()], PLENTY).await;
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let address = web.address();
            tokio::spawn(async move {
                let mut client = Client::http1(address).await;
                for _ in 0..150 {
                    let response = client.post("/", "once").await.unwrap();
                    assert_eq!(response.status(), StatusCode::OK);
                    assert_eq!(body::text(response.into_body()).await, "good");
                }
            })
        })
        .collect();
    crate::harness::eventually("the load runs", || app.count() > 50).await;
    soon("the drain ends", going.app().drain()).await;
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(app.count(), 600);
}
