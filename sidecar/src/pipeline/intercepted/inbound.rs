//! What comes for the own app, from whomever.

use std::{net::SocketAddr, sync::Arc};

use super::{exceptions, original, refuse};
use crate::{
    buffer::Prefixed,
    model::{Snapshot, runtime::Refusal},
    net::{Net, Purpose, Stream as _},
    pipeline::{
        entrance::Accepted,
        proxied::{self, Ends},
        serve::{Caller, serve_peer},
        worker::Worker,
    },
};

/// Serves one connection to the own app, if it proves who it is, or comes by an exception from that.
pub(in crate::pipeline) async fn inbound<N: Net>(
    worker: Arc<Worker<N>>,
    accepted: Accepted,
    snapshot: Arc<Snapshot>,
    (mut stream, address): (N::Stream, SocketAddr),
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
    let (ends, rules) = (Ends::seen(address, original), inbound.proxy_protocol.as_deref());
    // Boxed for its own time, as a handshake is.
    let (ends, first) = match Box::pin(proxied::read(&worker, &snapshot, rules, &mut stream, ends)).await {
        Ok(read) => read,
        Err(closed) => {
            stream.reset_on_close();
            return closed.count(&accepted, address);
        }
    };
    let caller = Caller { stream: Prefixed::new(first, stream), ends, original: Some(original) };
    let is_any_open = |from| inbound.exceptions.is_any_open(from, worker.clock.wall());
    if !inbound.exceptions.is_none() && ends.whence().into_iter().all(is_any_open) {
        return exceptions::serve(worker, accepted, snapshot, inbound, caller).await;
    }
    serve_peer(worker, accepted, snapshot, inbound, caller).await;
}
