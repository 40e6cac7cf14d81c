//! Reading a sidecar's admin socket: who it talked to, and how that went.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode, header::HOST};
use http_body_util::{BodyExt, Full, Limited};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::client::{self, MAX_BODY_BYTES};

/// Time for an answer of a sidecar's own.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Answer of `GET /clusters`, as far as the demo reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Clusters {
    /// Every cluster.
    pub clusters: Vec<Cluster>,
}

/// One cluster: a hop, seen by its caller.
#[derive(Clone, Debug, Deserialize)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// What became of requests.
    pub requests: Requests,
    /// Retries made.
    pub retries: u64,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// What became of requests to a cluster.
#[derive(Clone, Debug, Deserialize)]
pub struct Requests {
    /// How many ended, by class of status (`2xx`); `none` had none.
    pub by_status: BTreeMap<String, u64>,
    /// Time to the response's head.
    pub latency_ms: LatencyMs,
}

/// Quantiles of a latency; none without any request.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct LatencyMs {
    /// Median.
    pub p50: Option<f64>,
    /// 99 of 100.
    pub p99: Option<f64>,
}

impl Requests {
    /// All that ended.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// Those without an answer or with one that says that a server failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        ["none", "5xx"].iter().filter_map(|class| self.by_status.get(*class)).sum()
    }
}

/// One endpoint.
#[derive(Clone, Debug, Deserialize)]
pub struct Endpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// Times it was chosen.
    pub picks: u64,
    /// Attempts without a usable answer.
    pub failures: u64,
    /// Whether it may be asked: `usable`, `resting` while ejected, `due` for a probe, `unhealthy`.
    pub standing: String,
    /// Facts of the newest handshake with it; none if there was none.
    pub tls: Option<Tls>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, Deserialize)]
pub struct Tls {
    /// The verified peer's SPIFFE ID.
    pub peer: String,
    /// As `TLSv1_3`.
    pub version: String,
    /// As `TLS13_AES_128_GCM_SHA256`.
    pub cipher_suite: String,
    /// As `X25519MLKEM768`.
    pub key_exchange: String,
}

/// Answer of `GET /listeners`, as far as the demo reads it.
#[derive(Clone, Debug, Deserialize)]
pub struct Listeners {
    /// Every listener.
    pub listeners: Vec<Listener>,
}

/// One listener.
#[derive(Clone, Debug, Deserialize)]
pub struct Listener {
    /// Who called.
    pub peers: Vec<Peer>,
    /// Connections refused before any request, by reason.
    pub refused: BTreeMap<String, u64>,
}

/// One caller on an inbound listener.
#[derive(Clone, Debug, Deserialize)]
pub struct Peer {
    /// Its verified SPIFFE ID.
    pub peer: String,
    /// Its requests.
    pub requests: u64,
}

/// Asks a sidecar for its clusters.
///
/// # Errors
/// If its socket can't be reached or the answer is not the one expected.
pub async fn clusters(socket: &Path) -> anyhow::Result<Clusters> {
    read(socket, "/clusters").await
}

/// Asks a sidecar for its listeners.
///
/// # Errors
/// As [`clusters`].
pub async fn listeners(socket: &Path) -> anyhow::Result<Listeners> {
    read(socket, "/listeners").await
}

/// Whether the process `pid` answers on that socket and says that it is ready.
pub async fn is_ready(socket: &Path, pid: i32) -> bool {
    let Ok(stream) = UnixStream::connect(socket).await else { return false };
    let is_owner = stream.peer_cred().is_ok_and(|owner| owner.pid() == Some(pid));
    is_owner && matches!(tokio::time::timeout(TIMEOUT, get(stream, "/ready")).await, Ok(Ok(_)))
}

async fn read<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let reading = || format!("reading {path} on {}", socket.display());
    let stream = UnixStream::connect(socket).await.with_context(reading)?;
    let body = tokio::time::timeout(TIMEOUT, get(stream, path))
        .await
        .with_context(reading)?
        .with_context(reading)?;
    serde_json::from_slice(&body).with_context(reading)
}

async fn get(stream: UnixStream, path: &str) -> anyhow::Result<Bytes> {
    let mut sender = client::handshake(stream).await?;
    let request = Request::get(path).header(HOST, "admin").body(Full::new(Bytes::new()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)?;
    let body = body.to_bytes();
    anyhow::ensure!(status == StatusCode::OK, "{status}: {}", String::from_utf8_lossy(&body).trim_end());
    Ok(body)
}
