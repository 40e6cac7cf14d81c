//! What the own app sends, wherever it is meant to go.
//!
//! ```text
//!   original destination ─▶ a cluster's: declared protocol, or found out ─▶ requests by HTTP, else an opaque stream
//!                        ├▶ not known yet: the controller is asked, and the connection waits
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
    detect::Spoken,
    model::{Snapshot, detection::How, listener::Protocol, wanted::Key},
    net::Net,
    pipeline::{
        destination,
        door::{Door, From},
        entrance::Accepted,
        error::ProxyError,
        http_connection::{self, Wire},
        tcp::{self, Destination, Known, Routing},
        wanting,
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
        AtAddress::Unknown => match wanting::of_address(&snapshot, original) {
            // Boxed for its own time.
            Some(key) => Box::pin(discovered(&worker, &accepted, key, original)).await,
            None => Protocol::Detect,
        },
    };
    let door = Arc::new(Door::new(accepted, From::App { address: address.ip() }).intercepted(Some(original)));
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

/// Waits for the controller's word on whom a connection was made to; what that speaks. Without it, whoever speaks HTTP is told
/// why its requests are refused.
async fn discovered<N: Net>(
    worker: &Arc<Worker<N>>,
    accepted: &Accepted,
    key: Key,
    original: SocketAddr,
) -> Protocol {
    let Ok(snapshot) = wanting::wait(worker, key, || accepted.load(&worker.snapshots)).await else {
        return Protocol::Detect;
    };
    match route::at_address(&snapshot, original) {
        AtAddress::Service(cluster) | AtAddress::Endpoint(cluster, _) => cluster.settings.protocol,
        AtAddress::Unknown => Protocol::Detect,
    }
}

/// Finds out what a connection carries. Serves it to its end, unless it is HTTP: then all of it is given back.
async fn detected<N: Net>(
    worker: &Arc<Worker<N>>,
    door: Arc<Door>,
    original: SocketAddr,
    mut stream: N::Stream,
) -> Option<(Arc<Door>, N::Stream, Bytes)> {
    let (begun, mut routing) = (worker.now(), Routing::default());
    let before = destination(worker, &door, &door.load(&worker.snapshots), &mut routing).ok();
    let Found { mut first, spoken, how, mut way } = race(worker, &door, &mut stream, before.as_ref()).await?;
    door.counts().detections.record(Some(spoken), how, worker.now().saturating_duration_since(begun));
    let snapshot = door.load(&worker.snapshots);
    let is_known = !matches!(route::at_address(&snapshot, original), AtAddress::Unknown);
    // It may have been silent for long: what holds now counts, and a way to elsewhere does not.
    let mut destination = destination(worker, &door, &snapshot, &mut routing);
    let needs_name = Known::of((worker, &door), &snapshot, None).needs_name(&door, &snapshot);
    match spoken {
        Spoken::Http1 if !is_known => {
            // It goes by what it asks for, and on to where it was going if that is nobody's.
            let unrouted = destination::find(worker, &door, &snapshot, None);
            destination = unrouted.map(|cluster| Destination::new(&cluster, &snapshot, &door));
            drop(snapshot);
            let named = authority::of_request(worker, &door, &mut stream, first).await?;
            first = named.read;
            // One that is refused is told so.
            if named.destination.is_some() || named.has_rules || destination.is_err() {
                return Some((door, stream, first));
            }
        }
        // What is asked of whom is told with each request, compressed: those to nobody we know are passed on one by one.
        Spoken::Http1 | Spoken::Http2 => return Some((door, stream, first)),
        Spoken::Tls if !is_known || needs_name => {
            drop(snapshot);
            let hello = tcp::hello(worker, &door, &mut stream, first).await?;
            first = hello.read;
            let (snapshot, name) = (door.load(&worker.snapshots), hello.name.as_deref());
            let mut known = Known::of((worker, &door), &snapshot, name);
            if !is_known && let Some(named) = name.and_then(|name| authority::of_name(&snapshot, name)) {
                known.unrouted = Ok(Arc::clone(named));
            }
            destination = routing.find((worker, &door), &snapshot, known).map(Destination::with_own_tls);
        }
        Spoken::Tls => destination = destination.map(Destination::with_own_tls),
        Spoken::Opaque => {}
    }
    let is_same = |(now, before): (&Destination, &Destination)| {
        // One of an app's own TLS has none of ours.
        now.cluster.name() == before.cluster.name() && now.speak == before.speak
    };
    if !destination.as_ref().ok().zip(before.as_ref()).is_some_and(is_same) {
        way = None;
    }
    carry(worker, &door, stream, (destination, first, way)).await;
    None
}

/// Where a stream goes that names nobody.
fn destination<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    snapshot: &Snapshot,
    routing: &mut Routing,
) -> Result<Destination, ProxyError> {
    routing.find((worker, door), snapshot, Known::of((worker, door), snapshot, None))
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
        (Ok(_), Some(Ok((undecided, server)))) => undecided.into_opaque(stream, first, server).await,
        (Ok(_), Some(Err(not_opened))) => not_opened.tell(worker, door, &stream),
    }
}
