//! The app behind each replica's sidecar: says who it is, after a while, and notes what it was asked.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::task::JoinSet;
use turmoil::net::TcpListener;

use super::load::NUMBER;

/// Where the app listens, on each replica's loopback.
pub(super) const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
/// Response header: which replica answered.
pub(super) const REPLICA: &str = "x-replica";
/// Slowest answer, in milliseconds.
const MAX_WORK_MS: u64 = 20;

/// How often the apps of all replicas together have seen each request, by its number.
pub(super) type Seen = Arc<Mutex<BTreeMap<u32, u32>>>;

/// Serves for ever.
pub(super) async fn serve(name: &'static str, seed: u64, seen: Seen) -> turmoil::Result {
    let listener = TcpListener::bind(APP).await?;
    let rng = Arc::new(Mutex::new(fastrand::Rng::with_seed(seed)));
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await?;
        let (seen, rng) = (Arc::clone(&seen), Arc::clone(&rng));
        let service = service_fn(move |request| answer(name, Arc::clone(&seen), Arc::clone(&rng), request));
        connections.spawn(async move {
            // A connection that breaks is the caller's affair.
            drop(
                auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await,
            );
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn answer(
    name: &'static str,
    seen: Seen,
    rng: Arc<Mutex<fastrand::Rng>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number: u32 = request.headers()[NUMBER].to_str().unwrap().parse().unwrap();
    *seen.lock().unwrap().entry(number).or_default() += 1;
    let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let work = rng.lock().unwrap().u64(1..=MAX_WORK_MS);
    tokio::time::sleep(Duration::from_millis(work)).await;
    Ok(Response::builder().header(REPLICA, name).body(Full::new(asked)).unwrap())
}
