//! What the own app sends, wherever it is meant to go.
//!
//! ```text
//!   original destination ─▶ a cluster's: declared protocol, or found out ─▶ requests by HTTP, else an opaque stream
//!                        └▶ nobody's:    by the authority that it names ─▶ a cluster, or on to where it was going
//! ```

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    authority, original,
    race::{Found, OpenWay, race},
    refuse,
};
use crate::{
    connect::dial::Speak,
    detect::Spoken,
    model::{Snapshot, detection::How, listener::Protocol},
    net::Net,
    pipeline::{
        destination,
        door::{Door, From},
        entrance::Accepted,
        error::ProxyError,
        http_connection::{self, Wire},
        tcp::{self, Destination, Undecided},
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
    let door = Arc::new(Door::new(accepted, From::App).intercepted(original));
    drop(snapshot);
    let declared = |spoken| door.counts().detections.record(spoken, How::Declared, Duration::ZERO);
    match protocol {
        Protocol::Http => {
            declared(None);
            http_connection::serve(worker, door, stream, Wire::Sniffed).await;
        }
        Protocol::Tcp => {
            declared(Some(Spoken::Opaque));
            Box::pin(tcp::outbound(&worker, &door, stream, Bytes::new())).await;
        }
        Protocol::Detect => {
            let Some((door, stream, first)) = Box::pin(detected(&worker, door, original, stream)).await
            else {
                return;
            };
            http_connection::serve_begun(worker, door, stream, first, Wire::Sniffed).await;
        }
    }
}

/// Finds out what a connection carries. Serves it to its end, unless it is HTTP: then all of it is given back.
async fn detected<N: Net>(
    worker: &Arc<Worker<N>>,
    door: Arc<Door>,
    original: SocketAddr,
    mut stream: N::Stream,
) -> Option<(Arc<Door>, N::Stream, Bytes)> {
    let begun = worker.now();
    let mut destination = destination(worker, &door);
    let Found { mut first, spoken, how, mut way } =
        race(worker, &door, &mut stream, destination.as_ref().ok()).await?;
    // It may have been silent for long: what holds now counts, and a way to elsewhere does not.
    let before = std::mem::replace(&mut destination, self::destination(worker, &door));
    let same = |(now, before): (&Destination, &Destination)| now.cluster.name() == before.cluster.name();
    if !destination.as_ref().ok().zip(before.as_ref().ok()).is_some_and(same) {
        way = None;
    }
    door.counts().detections.record(Some(spoken), how, worker.now().saturating_duration_since(begun));
    let snapshot = door.load(&worker.snapshots);
    let is_known = !matches!(route::at_address(&snapshot, original), AtAddress::Unknown);
    drop(snapshot);
    match spoken {
        Spoken::Http1 if !is_known => {
            let named = authority::of_request(worker, &door, &mut stream, first).await?;
            first = named.read;
            // One that is refused is told so.
            if named.destination.is_some() || destination.is_err() {
                return Some((door, stream, first));
            }
        }
        // What is asked of whom is told with each request, compressed: those to nobody we know are passed on one by one.
        Spoken::Http1 | Spoken::Http2 => return Some((door, stream, first)),
        Spoken::Tls if !is_known => {
            let named = authority::of_hello(worker, &door, &mut stream, first).await?;
            first = named.read;
            if let Some(named) = named.destination {
                // The way leads to where it was going.
                (destination, way) = (Ok(named), None);
            }
        }
        Spoken::Tls => {
            destination = destination.map(Destination::with_own_tls);
            if destination.as_ref().is_ok_and(|destination| destination.speak == Speak::OwnTls) {
                // The way has TLS of ours.
                way = None;
            }
        }
        Spoken::Opaque => {}
    }
    carry(worker, &door, stream, (destination, first, way)).await;
    None
}

/// Where a stream goes that names nobody.
fn destination<N: Net>(worker: &Worker<N>, door: &Door) -> Result<Destination, ProxyError> {
    let snapshot = door.load(&worker.snapshots);
    destination::find(worker, door, &snapshot, None).map(|cluster| Destination::new(&cluster, &snapshot))
}

/// Carries an opaque stream to its end.
async fn carry<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    stream: N::Stream,
    (destination, first, way): (Result<Destination, ProxyError>, Bytes, Option<OpenWay<N>>),
) {
    match (destination, way) {
        (Err(error), _) => tcp::refuse(worker, door, &stream, &error),
        (Ok(destination), None) => tcp::outbound_to(worker, door, destination, stream, first).await,
        (Ok(_), Some(Ok((undecided, server)))) => undecided.into_opaque(door, stream, first, server).await,
        (Ok(destination), Some(Err(error))) => Undecided::failed(worker, door, &destination, &stream, &error),
    }
}
