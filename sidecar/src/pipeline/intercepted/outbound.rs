//! What the own app sends, wherever it is meant to go.

use std::{net::SocketAddr, sync::Arc};

use super::{original, refuse};
use crate::{
    model::{Snapshot, listener::Protocol},
    net::Net,
    pipeline::{
        door::{Door, From},
        entrance::Accepted,
        http_connection::{self, Wire},
        tcp,
        worker::Worker,
    },
    route::{self, AtAddress},
};

/// Serves one connection of the own app.
pub(in crate::pipeline) async fn outbound<N: Net>(
    worker: Arc<Worker<N>>,
    accepted: Accepted,
    snapshot: Arc<Snapshot>,
    (stream, address): (N::Stream, SocketAddr),
) {
    let original = original(&worker, (&stream, address), (&accepted, &snapshot), |_made| true);
    let original = match original {
        Ok(original) => original,
        Err(reason) => return refuse(&stream, &accepted.entrance.counts, reason),
    };
    let protocol = match route::at_address(&snapshot, original) {
        AtAddress::Service(cluster) | AtAddress::Endpoint(cluster, _) => cluster.settings.protocol,
        AtAddress::Unknown => Protocol::Detect,
    };
    drop(snapshot);
    let door = Door::new(accepted, From::App).intercepted(original);
    match protocol {
        Protocol::Http => http_connection::serve(worker, Arc::new(door), stream, Wire::Sniffed).await,
        Protocol::Tcp => Box::pin(tcp::outbound(&worker, &door, stream)).await,
        Protocol::Detect => http_connection::serve(worker, Arc::new(door), stream, Wire::Sniffed).await,
    }
}
