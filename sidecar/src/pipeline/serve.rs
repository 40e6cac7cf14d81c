//! One downstream connection: from the socket to requests or bytes.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, atomic::Ordering},
};

use outrider_certs::verify::Role;

use super::{
    authorize,
    door::{Door, From},
    entrance::{self, Entrance},
    http_connection::{self, Wire},
    intercepted, live,
    proxied::{self, Ends},
    tcp,
    worker::Worker,
};
use crate::{
    buffer::Prefixed,
    model::{
        Identity, ListenerKind, Snapshot,
        closed::{CallerSlot, Shed, Who},
        listener::{Inbound, Protocol},
        runtime::Refusal,
        transport::PeerKind,
        wire,
    },
    net::{Net, Stream},
    tls::{
        accept::{self, Accepted, Secured},
        trust::{Cut, Guard},
    },
};

/// Serves one accepted connection to its end.
pub async fn serve<N: Net>(
    worker: Arc<Worker<N>>,
    entrance: Arc<Entrance>,
    mut stream: N::Stream,
    address: SocketAddr,
) {
    let Some((accepted, snapshot)) = entrance.accept(&worker.snapshots) else { return };
    if let Some(limit) = snapshot.config.settings.limits.tcp_user_timeout {
        stream.set_user_timeout(limit);
    }
    // Not kept any longer than needed: a connection may live for days.
    let listener = Arc::clone(accepted.listener(&snapshot));
    let ends = Ends::seen(address, stream.local_address().unwrap_or(listener.address));
    let rules = listener.proxy_protocol(None).map(Arc::as_ref);
    // Boxed for its own time, as a handshake is.
    let (ends, first) = match Box::pin(proxied::read(&worker, &snapshot, rules, &mut stream, ends)).await {
        Ok(read) => read,
        Err(closed) => {
            stream.reset_on_close();
            return closed.count(&accepted, address);
        }
    };
    match &listener.kind {
        ListenerKind::OutboundHttp { .. } => {
            drop((listener, snapshot));
            let door =
                Arc::new(Door::new(accepted, From::App { address: ends.link.source.ip() }).between(ends));
            http_connection::serve_begun(worker, door, stream, first, Wire::Sniffed).await;
        }
        ListenerKind::OutboundTcp { .. } => {
            drop((listener, snapshot));
            let door = Door::new(accepted, From::App { address: ends.link.source.ip() }).between(ends);
            Box::pin(tcp::outbound(&worker, &door, stream, first)).await;
        }
        ListenerKind::Inbound(inbound) => {
            let inbound = Arc::clone(inbound);
            drop(listener);
            let stream = Prefixed::new(first, stream);
            let caller = Caller { stream, ends, original: None };
            Box::pin(serve_peer(worker, accepted, snapshot, inbound, caller)).await;
        }
        ListenerKind::InterceptedOutbound { .. } => {
            drop(listener);
            Box::pin(intercepted::outbound(worker, accepted, snapshot, (stream, address))).await;
        }
        ListenerKind::InterceptedInbound(_) => {
            drop(listener);
            Box::pin(intercepted::inbound(worker, accepted, snapshot, (stream, address))).await;
        }
    }
}

/// A connection from somebody who has proved nothing yet.
#[derive(Debug)]
pub(super) struct Caller<S> {
    /// The connection; what was read of it already comes first.
    pub(super) stream: Prefixed<S>,
    /// Between whom it is.
    pub(super) ends: Ends,
    /// Whom it dialled, if the kernel brought it here.
    pub(super) original: Option<SocketAddr>,
}

/// Serves a peer, once it has proved who it is.
pub(super) async fn serve_peer<N: Net>(
    worker: Arc<Worker<N>>,
    accepted: entrance::Accepted,
    snapshot: Arc<Snapshot>,
    inbound: Arc<Inbound>,
    Caller { stream, ends, original }: Caller<N::Stream>,
) {
    let address = ends.link.source;
    let (protocol, kind) = (inbound.protocol, inbound.peer);
    // Boxed for its own time: what a handshake takes is not kept.
    let from = (stream, address.ip(), original);
    let let_in = Box::pin(let_in(&worker, inbound, snapshot, &accepted, from)).await;
    match let_in {
        Ok((tls, trust, slot)) => {
            let door = peer_door(accepted, kind, &tls, (ends, original)).counted(slot.requests());
            let door = Arc::new(door);
            let live = live::connection(&worker, &door);
            let entered = enter(Arc::clone(&worker), door, protocol, tls.stream, trust.cut());
            tokio::select! {
                biased;
                () = entered => {}
                () = trust.cut() => {}
                () = live::over(&worker, live.as_ref()) => {}
            }
        }
        Err(closed) => closed.count(&accepted, address),
    }
}

/// Why a connection of somebody is not served.
#[derive(Debug)]
pub(super) enum Closed {
    /// It is not who may come in; in words for the log.
    Refused(Refusal, String),
    /// Some bound is reached.
    Shed(Shed),
}

impl Closed {
    /// Counts it, and tells whoever looks for the cause.
    pub(super) fn count(self, accepted: &entrance::Accepted, address: SocketAddr) {
        let (counts, listener) = (&accepted.entrance.counts, accepted.name());
        match self {
            Self::Refused(reason, cause) => {
                counts.refuse(reason);
                tracing::debug!(listener, peer = %address, ?reason, cause, "peer refused");
            }
            Self::Shed(reason) => {
                counts.closed.count_shed(reason);
                tracing::debug!(listener, peer = %address, ?reason, "peer shed");
            }
        }
    }
}

/// The handshake and the bounds around it: how many are under way, and how many connections the peer has then.
async fn let_in<N: Net>(
    worker: &Worker<N>,
    inbound: Arc<Inbound>,
    snapshot: Arc<Snapshot>,
    listener: &entrance::Accepted,
    (stream, address, original): (Prefixed<N::Stream>, IpAddr, Option<SocketAddr>),
) -> Result<(Accepted<Prefixed<N::Stream>>, Guard, CallerSlot), Closed> {
    let began = worker.now();
    let place = worker.handshakes.begin(address, began).ok_or(Closed::Shed(Shed::Handshakes))?;
    let (accepted, trust) = tokio::select! {
        biased;
        identified = identify(worker, (listener, &inbound, original), &snapshot, stream) => {
            identified.map_err(|(reason, cause)| Closed::Refused(reason, cause))?
        }
        () = place.given_up() => return Err(Closed::Shed(Shed::Handshakes)),
    };
    let counts = &listener.entrance.counts;
    counts.handshakes.record(worker.now().saturating_duration_since(began));
    let max = snapshot.config.settings.limits.max_connections_per_peer;
    let slot = counts.closed.open_for(Who::Peer(accepted.peer.id().clone()), max);
    let slot = slot.ok_or(Closed::Shed(Shed::Peer))?;
    Ok((accepted, trust, slot))
}

/// The handshake, and whether this peer may come in: for as long as it is trusted.
async fn identify<N: Net>(
    worker: &Worker<N>,
    (listener, inbound, original): (&entrance::Accepted, &Inbound, Option<SocketAddr>),
    snapshot: &Snapshot,
    stream: Prefixed<N::Stream>,
) -> Result<(Accepted<Prefixed<N::Stream>>, Guard), (Refusal, String)> {
    let no_identity = || (Refusal::NoIdentity, "this sidecar has no certificate".to_owned());
    let Identity { tls, bundles, .. } = snapshot.identity.as_deref().ok_or_else(no_identity)?;
    let config = match (inbound.peer, inbound.protocol) {
        (PeerKind::Outrider, _) => &tls.server_outrider,
        (PeerKind::Standard, Protocol::Http | Protocol::Detect) => &tls.server_standard_http,
        (PeerKind::Standard, Protocol::Tcp) => &tls.server_standard_tcp,
    };
    let settings = &snapshot.config.settings;
    let limit = settings.limits.handshake_timeout;
    let accepted = accept::accept(stream, Arc::clone(config), limit).await?;
    let id = accepted.peer.id();
    let rules = settings.authorization.as_deref();
    let may_connect = inbound.allows(id, &settings.bootstrap.trust_domain, rules)
        && authorize::connection(listener, settings, inbound, (id, inbound.app_port(original)));
    if !may_connect {
        return Err((Refusal::NotAllowed, format!("{id} may not call here")));
    }
    let chain = accepted.stream.get_ref().1.peer_certificates().unwrap_or_default();
    let trust = worker.connector.dialer.trust.hold(chain, Role::Client, bundles);
    Ok((accepted, trust))
}

/// The door of a verified peer, who is counted from here on.
fn peer_door<S>(
    accepted: entrance::Accepted,
    kind: PeerKind,
    tls: &Accepted<S>,
    (ends, original): (Ends, Option<SocketAddr>),
) -> Door {
    let is_sidecar = kind == PeerKind::Outrider;
    let count = accepted.entrance.counts.peers.of(tls.peer.id());
    count.connections.fetch_add(1, Ordering::Relaxed);
    *count.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls.facts.clone());
    let from = From::Peer { peer: tls.peer.clone(), address: ends.link.source.ip(), is_sidecar, count };
    Door::new(accepted, from).intercepted(original).between(ends)
}

/// A verified peer is in: requests or bytes, as the application protocol says.
async fn enter<N: Net>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    protocol: Protocol,
    stream: Secured<Prefixed<N::Stream>>,
    cut: Cut,
) {
    let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let is_sidecar = matches!(door.from, From::Peer { is_sidecar: true, .. });
    match (protocol, alpn.as_deref()) {
        (Protocol::Http | Protocol::Detect, Some(wire::ALPN_H2 | wire::ALPN_STANDARD_H2)) => {
            http_connection::serve(worker, door, stream, Wire::Http2).await;
        }
        (Protocol::Http | Protocol::Detect, Some(wire::ALPN_H1)) => {
            http_connection::serve(worker, door, stream, Wire::Http1).await;
        }
        (Protocol::Http | Protocol::Detect, Some(wire::ALPN_STANDARD_H1)) if !is_sidecar => {
            http_connection::serve(worker, door, stream, Wire::Http1).await;
        }
        (Protocol::Http | Protocol::Detect, None) if !is_sidecar => {
            http_connection::serve(worker, door, stream, Wire::Sniffed).await;
        }
        // To an intercepted port, callers send what they could not tell: looked at here, stream by stream.
        (Protocol::Http, Some(wire::ALPN_TCP)) if is_sidecar && door.original().is_some() => {
            tcp::inbound_framed(&worker, &door, stream, cut).await;
        }
        (Protocol::Tcp | Protocol::Detect, Some(wire::ALPN_TCP)) if is_sidecar => {
            tcp::inbound_framed(&worker, &door, stream, cut).await;
        }
        (Protocol::Tcp, _) if !is_sidecar => tcp::inbound_plain(&worker, &door, stream, cut).await,
        (Protocol::Http | Protocol::Tcp | Protocol::Detect, _) => {
            door.counts().refuse(Refusal::NoProtocol);
            tracing::debug!(listener = door.accepted.name(), ?alpn, "peer speaks another protocol");
        }
    }
}
