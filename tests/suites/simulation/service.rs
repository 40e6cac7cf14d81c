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
use tokio::{sync::watch, task::JoinSet};
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

/// How an app is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Mood {
    /// As it should be.
    #[default]
    Well,
    /// It takes requests and answers none, until it is in another mood.
    Stalled,
    /// It takes so much longer.
    Slow(Duration),
    /// It answers so many percent of requests with this status.
    Failing(u32, u16),
}

/// The app of one replica.
#[derive(Clone)]
pub(super) struct Service {
    /// Who it says it is.
    pub(super) name: &'static str,
    /// What it was asked.
    pub(super) seen: Seen,
    /// How it is.
    pub(super) mood: watch::Receiver<Mood>,
    /// Its chances.
    pub(super) rng: Arc<Mutex<fastrand::Rng>>,
}

/// Serves for ever.
pub(super) async fn serve(app: Service) -> turmoil::Result {
    let listener = TcpListener::bind(APP).await?;
    let mut connections = JoinSet::new();
    loop {
        let (stream, _peer) = listener.accept().await?;
        let app = app.clone();
        let service = service_fn(move |request| answer(app.clone(), request));
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

async fn answer(mut app: Service, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let number: u32 = request.headers()[NUMBER].to_str().unwrap().parse().unwrap();
    *app.seen.lock().unwrap().entry(number).or_default() += 1;
    let asked = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let (work, chance) = {
        let mut rng = app.rng.lock().unwrap();
        (Duration::from_millis(rng.u64(1..=MAX_WORK_MS)), rng.u32(0..100))
    };
    let mood = *app.mood.borrow();
    let more = if let Mood::Slow(more) = mood { more } else { Duration::ZERO };
    tokio::time::sleep(work + more).await;
    // One that was stopped goes on where it was.
    app.mood.wait_for(|mood| *mood != Mood::Stalled).await.expect("the mesh outlives its apps");
    let response = Response::builder().header(REPLICA, app.name);
    let fails_with = if let Mood::Failing(percent, status) = mood
        && chance < percent
    {
        Some(status)
    } else {
        None
    };
    Ok(match fails_with {
        Some(status) => response.status(status).body(Full::default()),
        None => response.body(Full::new(asked)),
    }
    .unwrap())
}
