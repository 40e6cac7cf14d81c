//! What the own app sends, wherever it is meant to go.

use std::sync::Arc;

use super::original;
use crate::{
    model::{Snapshot, listener::Protocol, runtime::Refusal},
    net::{Net, Stream},
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
    stream: N::Stream,
) {
    let Some(original) = original(&stream, &accepted, &snapshot) else {
        accepted.entrance.counts.refuse(Refusal::NotRedirected);
        return stream.reset_on_close();
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
