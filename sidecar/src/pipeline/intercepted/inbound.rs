//! What comes for the own app, from whomever.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{exceptions, original};
use crate::{
    buffer::Prefixed,
    model::{Snapshot, runtime::Refusal},
    net::{Net, Stream},
    pipeline::{
        entrance::Accepted,
        serve::{Caller, serve_peer},
        worker::Worker,
    },
};

/// Serves one connection to the own app, if it proves who it is, or comes by an exception from that.
pub(in crate::pipeline) async fn inbound<N: Net>(
    worker: Arc<Worker<N>>,
    accepted: Accepted,
    snapshot: Arc<Snapshot>,
    (stream, address): (N::Stream, SocketAddr),
) {
    let original = original(&stream, &accepted, &snapshot)
        // The kernel's rules bring nothing else here. Were they others, we would carry it to anywhere.
        .filter(|original| worker.is_own(original.ip()));
    let inbound = original.and_then(|original| accepted.listener(&snapshot).inbound(Some(original)).cloned());
    let (Some(original), Some(inbound)) = (original, inbound) else {
        accepted.entrance.counts.refuse(Refusal::NotRedirected);
        return stream.reset_on_close();
    };
    let stream = Prefixed::new(Bytes::new(), stream);
    let caller = Caller { stream, address, original: Some(original) };
    if !inbound.exceptions.is_none() && inbound.exceptions.is_any_open(worker.clock.wall()) {
        return exceptions::serve(worker, accepted, snapshot, inbound, caller).await;
    }
    serve_peer(worker, accepted, snapshot, inbound, caller).await;
}
