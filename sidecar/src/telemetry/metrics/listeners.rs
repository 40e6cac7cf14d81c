//! Listeners and the peers that call them.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::family::{Labels, Sink, bytes, metric, seconds};
use crate::model::{
    Generation, ListenerKind,
    authorization::VERDICTS,
    closed::{Misuse, Revoked, Shed},
    flag::ResponseFlag,
    generation::ListenerEntry,
    listener::Exception,
    runtime::{ListenerRuntime, PeerCount, Refusal},
};

/// What stands for all peers beyond the counted ones.
const OTHER_PEERS: &str = "other";

#[expect(clippy::cast_precision_loss, reason = "counts this large do not occur, and a gauge is a double")]
pub(super) fn encode(sink: &mut Sink<'_>, config: &Generation) -> fmt::Result {
    let listeners: Vec<(&str, &ListenerRuntime)> =
        config.listeners.iter().map(|(name, entry)| (&**name, &*entry.runtime)).collect();
    let counters = |read: fn(&ListenerRuntime) -> &AtomicU64| {
        listeners
            .iter()
            .map(move |(name, runtime)| ([("listener", *name)], read(runtime).load(Ordering::Relaxed)))
    };
    metric("listener_accepted", "Connections accepted").counters(sink, counters(|l| &l.accepted))?;
    metric("listener_active", "Connections open").gauges(
        sink,
        listeners
            .iter()
            .map(|(name, runtime)| ([("listener", *name)], runtime.active.load(Ordering::Relaxed) as f64)),
    )?;
    metric("listener_shed", "Connections closed unserved because some bound was reached")
        .counters(sink, by_reason(&listeners, Shed::ALL.map(Shed::label), |runtime| &runtime.closed.shed))?;
    metric("listener_misused", "HTTP connections ended for what their other end sent or did not send")
        .counters(
            sink,
            by_reason(&listeners, Misuse::ALL.map(Misuse::label), |runtime| &runtime.closed.misused),
        )?;
    metric("listener_recycled", "HTTP connections of peers ended in favour of new ones, for their age")
        .counters(sink, counters(|l| &l.recycled))?;
    metric("listener_accept_errors", "Accepts that failed, as for want of file descriptors")
        .counters(sink, counters(|l| &l.accept_errors))?;
    metric("listener_refused", "Connections of peers refused before any request").counters(
        sink,
        by_reason(&listeners, Refusal::ALL.map(Refusal::label), |runtime| &runtime.refused),
    )?;
    seconds("listener_handshake_duration", "TLS handshakes with peers that were let in").histograms(
        sink,
        listeners.iter().map(|(name, runtime)| ([("listener", *name)], runtime.handshakes.read())),
    )?;
    metric(
        "listener_no_longer_allowed",
        "What was under way and was ended when the rules allowed it no more",
    )
    .counters(
        sink,
        listeners.iter().flat_map(|(name, runtime)| {
            Revoked::ALL.into_iter().zip(&runtime.revoked).map(move |(kind, count)| {
                ([("listener", *name), ("kind", kind.label())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    metric("unrouted", "Requests answered before any cluster was chosen").counters(
        sink,
        listeners.iter().flat_map(|(name, runtime)| {
            ResponseFlag::ALL.into_iter().zip(&runtime.unrouted).map(move |(flag, count)| {
                ([("listener", *name), ("flag", flag.letters())], count.load(Ordering::Relaxed))
            })
        }),
    )?;
    encode_detections(sink, &listeners)?;
    encode_authorized(sink, config)?;
    encode_exceptions(sink, config)?;
    encode_peers(sink, &listeners)
}

fn encode_detections(sink: &mut Sink<'_>, listeners: &[(&str, &ListenerRuntime)]) -> fmt::Result {
    metric("detections", "Connections by what they speak and how that was known").counters(
        sink,
        listeners.iter().flat_map(|(name, runtime)| {
            runtime.detections.read().map(move |(protocol, how, count)| {
                ([("listener", *name), ("protocol", protocol), ("how", how)], count)
            })
        }),
    )?;
    seconds("detection_duration", "From accepting a connection to knowing what it speaks").histograms(
        sink,
        listeners.iter().map(|(name, runtime)| ([("listener", *name)], runtime.detections.duration.read())),
    )
}

/// What rules said. Listeners of the own app have none.
fn encode_authorized(sink: &mut Sink<'_>, config: &Generation) -> fmt::Result {
    let inbound = || config.listeners.iter().filter(|(_, entry)| entry.settings.is_inbound());
    metric("authorization", "Calls of verified peers, by what authorization rules say of them").counters(
        sink,
        inbound().flat_map(|(name, entry)| {
            VERDICTS.into_iter().zip(&entry.runtime.authorized).map(move |(verdict, count)| {
                ([("listener", &**name), ("verdict", verdict)], count.load(Ordering::Relaxed))
            })
        }),
    )
}

/// What came in without mutual TLS. Explicit listeners let nothing in without.
fn encode_exceptions(sink: &mut Sink<'_>, config: &Generation) -> fmt::Result {
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
        sink,
        counts().map(|(labels, counts)| (labels, counts.connections.load(Ordering::Relaxed))),
    )?;
    bytes("inbound_exception", "Bytes from and to callers let in without mutual TLS").counters(
        sink,
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

fn encode_peers(sink: &mut Sink<'_>, listeners: &[(&str, &ListenerRuntime)]) -> fmt::Result {
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
        .counters(sink, counters(|p| &p.requests))?;
    metric("peer_connections", "Connections per verified peer").counters(sink, counters(|p| &p.connections))
}
