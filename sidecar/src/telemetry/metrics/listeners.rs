//! Listeners and the peers that call them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::encoding::DescriptorEncoder;

use super::family::{Labels, metric, seconds};
use crate::model::{
    Generation, ListenerKind,
    closed::{Misuse, Shed},
    flag::ResponseFlag,
    generation::ListenerEntry,
    listener::Exception,
    runtime::{ListenerRuntime, PeerCount, Refusal},
};

/// What stands for all peers beyond the counted ones.
const OTHER_PEERS: &str = "other";

#[expect(clippy::cast_precision_loss, reason = "counts this large do not occur, and a gauge is a double")]
pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, config: &Generation) -> fmt::Result {
    let listeners: Vec<(&str, &ListenerRuntime)> =
        config.listeners.iter().map(|(name, entry)| (&**name, &*entry.runtime)).collect();
    let counters = |read: fn(&ListenerRuntime) -> &AtomicU64| {
        listeners
            .iter()
            .map(move |(name, runtime)| ([("listener", *name)], read(runtime).load(Ordering::Relaxed)))
    };
    metric("listener_accepted", "Connections accepted").counters(encoder, counters(|l| &l.accepted))?;
    metric("listener_active", "Connections open").gauges(
        encoder,
        listeners
            .iter()
            .map(|(name, runtime)| ([("listener", *name)], runtime.active.load(Ordering::Relaxed) as f64)),
    )?;
    metric("listener_shed", "Connections closed unserved because some bound was reached").counters(
        encoder,
        by_reason(&listeners, Shed::ALL.map(Shed::label), |runtime| &runtime.closed.shed),
    )?;
    metric("listener_misused", "HTTP connections ended for what their other end sent or did not send")
        .counters(
            encoder,
            by_reason(&listeners, Misuse::ALL.map(Misuse::label), |runtime| &runtime.closed.misused),
        )?;
    metric("listener_accept_errors", "Accepts that failed, as for want of file descriptors")
        .counters(encoder, counters(|l| &l.accept_errors))?;
    metric("listener_refused", "Connections of peers refused before any request").counters(
        encoder,
        by_reason(&listeners, Refusal::ALL.map(Refusal::label), |runtime| &runtime.refused),
    )?;
    metric("unrouted", "Requests answered before any cluster was chosen").counters(
        encoder,
        listeners.iter().flat_map(|(name, runtime)| {
            ResponseFlag::ALL.into_iter().zip(&runtime.unrouted).map(move |(flag, count)| {
                ([("listener", *name), ("flag", flag.letters())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    encode_detections(encoder, &listeners)?;
    encode_exceptions(encoder, config)?;
    encode_peers(encoder, &listeners)
}

fn encode_detections(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[(&str, &ListenerRuntime)],
) -> fmt::Result {
    metric("detections", "Connections by what they speak and how that was known").counters(
        encoder,
        listeners.iter().flat_map(|(name, runtime)| {
            runtime.detections.read().map(move |(protocol, how, count)| {
                ([("listener", *name), ("protocol", protocol), ("how", how)], count)
            })
        }),
    )?;
    seconds("detection_duration", "From accepting a connection to knowing what it speaks").histograms(
        encoder,
        listeners.iter().map(|(name, runtime)| ([("listener", *name)], runtime.detections.duration.read())),
    )
}

/// What came in without mutual TLS. Explicit listeners let nothing in without.
fn encode_exceptions(encoder: &mut DescriptorEncoder<'_>, config: &Generation) -> fmt::Result {
    let of = |(name, entry): (&'_ Arc<str>, &'_ ListenerEntry)| {
        let is_intercepted = matches!(entry.settings.kind, ListenerKind::InterceptedInbound(_));
        is_intercepted.then(|| (Arc::clone(name), Arc::clone(&entry.runtime)))
    };
    let listeners: Vec<_> = config.listeners.iter().filter_map(of).collect();
    let counts = || {
        listeners.iter().flat_map(|(name, runtime)| {
            let by_exception = Exception::ALL.map(Exception::label).into_iter().zip(&runtime.exceptions);
            by_exception
                .map(move |(exception, counts)| ([("listener", &**name), ("exception", exception)], counts))
        })
    };
    metric("inbound_exceptions", "Connections let in without mutual TLS").counters(
        encoder,
        counts().map(|(labels, counts)| (labels, counts.connections.load(Ordering::Relaxed))),
    )?;
    metric("inbound_exception_bytes", "Bytes from and to callers let in without mutual TLS").counters(
        encoder,
        counts().flat_map(|([listener, exception], counts)| {
            let both = [("sent", &counts.sent_bytes), ("received", &counts.received_bytes)];
            both.map(|(way, bytes)| ([listener, exception, ("way", way)], bytes.load(Ordering::Relaxed)))
        }),
    )
}

/// Series of counters by listener and reason.
fn by_reason<'a, const N: usize>(
    listeners: &'a [(&'a str, &'a ListenerRuntime)],
    labels: [&'static str; N],
    read: fn(&ListenerRuntime) -> &[AtomicU64; N],
) -> impl Iterator<Item = (Labels<'a, 2>, u64)> {
    listeners.iter().flat_map(move |(name, runtime)| {
        labels.into_iter().zip(read(runtime)).map(move |(label, count)| {
            ([("listener", *name), ("reason", label)], count.load(Ordering::Relaxed))
        })
    })
}

fn encode_peers(encoder: &mut DescriptorEncoder<'_>, listeners: &[(&str, &ListenerRuntime)]) -> fmt::Result {
    let read: Vec<_> = listeners.iter().map(|(name, runtime)| (name, runtime.peers.read())).collect();
    let rows: Vec<(&str, &str, &Arc<PeerCount>)> = read
        .iter()
        .flat_map(|(name, (named, other))| {
            let named = named.iter().map(|(peer, count)| (peer.as_str(), count));
            named.chain([(OTHER_PEERS, other)]).map(|(peer, count)| (**name, peer, count))
        })
        .collect();
    let counters = |read: fn(&PeerCount) -> &AtomicU64| {
        rows.iter().map(move |(listener, peer, count)| {
            ([("listener", *listener), ("peer", *peer)], read(count).load(Ordering::Relaxed))
        })
    };
    metric("peer_requests", "Requests and streams per verified peer")
        .counters(encoder, counters(|p| &p.requests))?;
    metric("peer_connections", "Connections per verified peer")
        .counters(encoder, counters(|p| &p.connections))
}
