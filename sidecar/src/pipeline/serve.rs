//! One downstream connection: from the socket to requests or bytes.

use std::{
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ::http::Version;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use outrider_certs::verify::Role;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;

use super::{
    door::{Door, From},
    entrance::{self, Entrance},
    http, tcp,
    worker::Worker,
};
use crate::{
    connect::http_client::CONNECTION_WINDOWS,
    drain::Phase,
    model::{
        Identity, ListenerKind, Snapshot,
        cluster::PeerKind,
        listener::{Inbound, Protocol},
        runtime::Refusal,
        settings::Limits,
        wire,
    },
    net::Net,
    tls::{
        accept::{self, Accepted},
        trust::{Cut, Guard},
    },
};

/// Bytes of one response stream that wait to be sent.
const MAX_SEND_BUFFER_BYTES: usize = 256 * 1024;
/// The own app may keep a connection unused for so long (as Envoy's `idle_timeout`): longer than HTTP clients do, so
/// that they close first and no request crosses a close. hyper has one timer for this and for slow heads; it starts with the
/// first byte, so a connection without a request for so long after its start is closed by a timer of ours.
const APP_IDLE: Duration = Duration::from_secs(3600);
/// HTTP/1 read buffer at least so large, whatever the header limit.
const MIN_READ_BUFFER_BYTES: usize = 64 * 1024;

/// Serves one accepted connection to its end.
pub async fn serve<N: Net>(
    worker: Arc<Worker<N>>,
    entrance: Arc<Entrance>,
    stream: N::Stream,
    address: SocketAddr,
) {
    let Some((accepted, snapshot)) = entrance.accept(&worker.snapshots) else { return };
    // Not kept any longer than needed: a connection may live for days.
    let listener = Arc::clone(accepted.listener(&snapshot));
    match &listener.kind {
        ListenerKind::OutboundHttp { .. } => {
            drop((listener, snapshot));
            let door = Arc::new(Door { accepted, from: From::App });
            serve_http(worker, door, stream, Wire::Plain).await;
        }
        ListenerKind::OutboundTcp { .. } => {
            drop((listener, snapshot));
            let door = Door { accepted, from: From::App };
            tcp::outbound(&worker, &door, stream).await;
        }
        ListenerKind::Inbound(inbound) => match identify(&worker, inbound, snapshot, stream).await {
            Ok((tls, trust)) => {
                let (protocol, peer) = (inbound.protocol, inbound.peer);
                drop(listener);
                let door = peer_door(accepted, peer, &tls, address);
                let entered = enter(worker, door, protocol, tls.stream, trust.cut());
                tokio::select! {
                    biased;
                    () = entered => {}
                    () = trust.cut() => {}
                }
            }
            Err((reason, cause)) => {
                entrance.counts.refuse(reason);
                tracing::debug!(listener = %listener.name, peer = %address, ?reason, cause, "peer refused");
            }
        },
    }
}

/// The handshake, and whether this peer may come in: for as long as it is trusted.
async fn identify<N: Net>(
    worker: &Worker<N>,
    inbound: &Inbound,
    snapshot: Arc<Snapshot>,
    stream: N::Stream,
) -> Result<(Accepted<N::Stream>, Guard), (Refusal, String)> {
    let no_identity = || (Refusal::NoIdentity, "this sidecar has no certificate".to_owned());
    let Identity { tls, bundles, .. } = snapshot.identity.as_deref().ok_or_else(no_identity)?;
    let config = match (inbound.peer, inbound.protocol) {
        (PeerKind::Outrider, _) => &tls.server_outrider,
        (PeerKind::Standard(_), Protocol::Http) => &tls.server_standard_http,
        (PeerKind::Standard(_), Protocol::Tcp) => &tls.server_standard_tcp,
    };
    let settings = &snapshot.config.settings;
    let limit = settings.limits.handshake_timeout;
    let accepted = accept::accept(stream, Arc::clone(config), limit).await?;
    let id = accepted.peer.id();
    if !inbound.allows(id, &settings.bootstrap.trust_domain) {
        return Err((Refusal::NotAllowed, format!("{id} may not call here")));
    }
    let chain = accepted.stream.get_ref().1.peer_certificates().unwrap_or_default();
    let trust = worker.dialer.trust.hold(chain, Role::Client, bundles);
    Ok((accepted, trust))
}

/// The door of a verified peer, who is counted from here on.
fn peer_door<S>(
    accepted: entrance::Accepted,
    kind: PeerKind,
    tls: &Accepted<S>,
    address: SocketAddr,
) -> Arc<Door> {
    let is_sidecar = kind == PeerKind::Outrider;
    let count = accepted.entrance.counts.peers.of(tls.peer.id());
    count.connections.fetch_add(1, Ordering::Relaxed);
    *count.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls.facts.clone());
    let from = From::Peer { peer: tls.peer.clone(), address: address.ip(), is_sidecar, count };
    Arc::new(Door { accepted, from })
}

/// A verified peer is in: requests or bytes, as the application protocol says.
async fn enter<N: Net>(
    worker: Arc<Worker<N>>,
    door: Arc<Door>,
    protocol: Protocol,
    stream: TlsStream<N::Stream>,
    cut: Cut,
) {
    let alpn = stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec);
    let is_sidecar = matches!(door.from, From::Peer { is_sidecar: true, .. });
    match (protocol, alpn.as_deref()) {
        (Protocol::Http, Some(wire::ALPN_H2 | wire::ALPN_STANDARD_H2)) => {
            serve_http(worker, door, stream, Wire::Http2).await;
        }
        (Protocol::Http, None | Some(wire::ALPN_STANDARD_H1)) if !is_sidecar => {
            serve_http(worker, door, stream, Wire::Http1).await;
        }
        (Protocol::Tcp, Some(wire::ALPN_TCP)) => tcp::inbound_framed(&worker, &door, stream, cut).await,
        (Protocol::Tcp, _) if !is_sidecar => tcp::inbound_plain(&worker, &door, stream, cut).await,
        (Protocol::Http | Protocol::Tcp, _) => {
            door.counts().refuse(Refusal::NoProtocol);
            tracing::debug!(listener = door.accepted.name(), ?alpn, "peer speaks another protocol");
        }
    }
}

/// What HTTP version a connection may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// From the own app: HTTP/1 or HTTP/2 with prior knowledge, told apart by the first bytes.
    Plain,
    /// Agreed on by ALPN, or by its absence.
    Http1,
    /// Agreed on by ALPN.
    Http2,
}

/// Serves HTTP until the connection ends or the drain ends it: HTTP/2 is told to go away when the drain begins, idle
/// HTTP/1 connections of the own app are served a while longer (`Phase::Closing`), so that none is closed under a
/// request on its way.
async fn serve_http<N, S>(worker: Arc<Worker<N>>, door: Arc<Door>, stream: S, wire: Wire)
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let builder = builder(&door.load(&worker.snapshots).config.settings.limits, wire);
    let is_http2 = Arc::new(AtomicBool::new(wire == Wire::Http2));
    let is_used = Arc::new(AtomicBool::new(wire != Wire::Plain));
    let mut watcher = door.drain().watcher();
    let service = {
        let (door, is_http2, is_used) = (Arc::clone(&door), Arc::clone(&is_http2), Arc::clone(&is_used));
        service_fn(move |request: ::http::Request<Incoming>| {
            is_http2.store(request.version() == Version::HTTP_2, Ordering::Relaxed);
            is_used.store(true, Ordering::Relaxed);
            http::handle(Arc::clone(&worker), Arc::clone(&door), request)
        })
    };
    let mut unused = pin!(unused(&is_used));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = loop {
        let next = match watcher.phase() {
            Phase::Running => Phase::Draining,
            Phase::Draining if is_http2.load(Ordering::Relaxed) || wire != Wire::Plain => {
                connection.as_mut().graceful_shutdown();
                Phase::Forced
            }
            Phase::Draining => Phase::Closing,
            Phase::Closing => {
                connection.as_mut().graceful_shutdown();
                Phase::Forced
            }
            Phase::Forced => return,
        };
        tokio::select! {
            biased;
            ended = connection.as_mut() => break ended,
            () = watcher.reached(next) => {}
            () = &mut unused => return,
        }
    };
    if let Err(error) = ended {
        tracing::debug!(listener = door.accepted.name(), error, "downstream connection ended");
    }
}

/// Ends when a connection has carried no request for [`APP_IDLE`] after its start, and never if it has.
async fn unused(is_used: &AtomicBool) {
    if !is_used.load(Ordering::Relaxed) {
        tokio::time::sleep(APP_IDLE).await;
    }
    if is_used.load(Ordering::Relaxed) {
        std::future::pending().await
    }
}

fn builder(limits: &Limits, wire: Wire) -> auto::Builder<TokioExecutor> {
    let head_timeout = if wire == Wire::Plain { APP_IDLE } else { limits.header_read_timeout };
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder = match wire {
        Wire::Plain => builder,
        Wire::Http1 => builder.http1_only(),
        Wire::Http2 => builder.http2_only(),
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes.max(MIN_READ_BUFFER_BYTES))
        .half_close(false)
        .auto_date_header(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.stream_window_bytes.saturating_mul(CONNECTION_WINDOWS))
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.header_bytes).unwrap_or(u32::MAX))
        .max_send_buf_size(MAX_SEND_BUFFER_BYTES)
        .auto_date_header(false);
    // Peers alone: the way to the own app cannot die without it, and one that is halted (a debugger) would be cut off.
    if wire == Wire::Http2 {
        builder.http2().keep_alive_interval(wire::PING_INTERVAL).keep_alive_timeout(wire::PING_TIMEOUT);
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_does_not_stay() {
        let is_used = AtomicBool::new(false);
        let limit = APP_IDLE + Duration::from_secs(1);
        tokio::time::timeout(limit, unused(&is_used)).await.unwrap();
        is_used.store(true, Ordering::Relaxed);
        tokio::time::timeout(2 * limit, unused(&is_used)).await.unwrap_err();
    }
}
