//! What comes for the own app, from whomever.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{exceptions, original, refuse};
use crate::{
    buffer::Prefixed,
    model::{Snapshot, runtime::Refusal},
    net::{Net, Purpose},
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
    // One that we make to ourselves as to any endpoint is to come in; one to the app is not.
    let original = original(&worker, (&stream, address), (&accepted, &snapshot), |made| made == Purpose::App)
        // The kernel's rules bring nothing else here. Were they others, we would carry it to anywhere.
        .and_then(
            |original| if worker.is_own(original) { Ok(original) } else { Err(Refusal::NotRedirected) },
        );
    let original = match original {
        Ok(original) => original,
        Err(reason) => return refuse(&stream, &accepted.entrance.counts, reason),
    };
    let Some(inbound) = accepted.listener(&snapshot).inbound(Some(original)).cloned() else {
        return refuse(&stream, &accepted.entrance.counts, Refusal::NotRedirected);
    };
    let caller = Caller { stream: Prefixed::new(Bytes::new(), stream), address, original: Some(original) };
    if !inbound.exceptions.is_none() && inbound.exceptions.is_any_open(worker.clock.wall()) {
        return exceptions::serve(worker, accepted, snapshot, inbound, caller).await;
    }
    serve_peer(worker, accepted, snapshot, inbound, caller).await;
}
