//! Kept connections to apps and peers: when they are used again, when not, and how many there are.

mod caps;
mod framed;
mod http1;
mod http2;

use std::{net::SocketAddr, sync::atomic::Ordering};

use http::{Method, StatusCode};
use outrider::model::pool_counts::Closed;

use crate::harness::{Sidecar, client::call, soon};

/// Connections of that cluster closed for that reason.
fn closed(sidecar: &Sidecar, cluster: &str, why: Closed) -> u64 {
    sidecar.cluster(cluster).runtime.pool.closed_for(why)
}

/// Connections of that cluster made.
fn opened(sidecar: &Sidecar, cluster: &str) -> u64 {
    sidecar.cluster(cluster).runtime.pool.opened.load(Ordering::Relaxed)
}

/// A request that is never repeated on doubt, and its answer.
async fn post(address: SocketAddr) -> String {
    let (status, text) = soon("an answer", call(address, Method::POST)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    text
}
