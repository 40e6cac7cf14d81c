//! CONNECT: the own app asks its proxy for a stream to a destination (RFC 9110 §9.3.6; of HTTP/2, RFC 9113 §8.5).
//!
//! Where it leads is found as for a request; what it carries is an opaque stream, opened as one of an outbound TCP
//! listener. The success is told when that way is open, so a failure has an answer, and a failed attempt is repeated
//! elsewhere. Then the stream is one that has left HTTP, like any other ([`super::switched`]).
//!
//! A cluster with `tls: public` is reached without TLS of ours: whoever asks for a tunnel to it speaks TLS itself. That is
//! made sure of, so that nothing goes there in the clear by mistake.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Method, Request, Response, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    ext::Protocol,
    upgrade::OnUpgrade,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    attempt::Held,
    destination,
    door::{Door, From},
    error::ProxyError,
    head,
    switched::{Far, Opaque, Switched},
    tcp::{self, Destination, Opened, Way},
    worker::Worker,
};
use crate::{
    connect::dial::{Connection, Speak},
    model::{Cluster, ListenerKind},
    net::{Net, Stream},
    relay::{
        activity::Activity,
        body::ResponseBody,
        replay::{Replay, Rest},
        session::{Session, Sink, Source},
    },
    resilience::{circuit_breaker::RequestSlot, retry_budget},
    route,
    telemetry::record::RequestRecord,
    tls::trust::Cut,
};

/// First bytes of TLS by which it is known: a record's header, and the type of its first message.
pub(super) const TLS_START_BYTES: usize = 6;

/// Whether it is the own app's request for a tunnel. A peer's is a request as any other, and refused.
pub(super) fn is_asked<B>(door: &Door, request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        && matches!(door.from, From::App)
        && request.extensions().get::<Protocol>().is_none()
}

/// A tunnel whose way is open.
pub(super) struct Tunnel {
    upstream: Opaque,
    cluster: Arc<Cluster>,
    held: Held,
    /// The request has no body.
    rest: Rest,
    slot: RequestSlot,
    /// The caller's stream of HTTP/2; `None` if its whole connection becomes the tunnel.
    downstream: Option<OnUpgrade>,
}

/// Opens the way to where a request for a tunnel leads. Dropping the future gives it up.
///
/// # Errors
/// As for requests, and as for opaque streams: none of them has seen a byte of the stream.
pub(super) async fn open<N: Net>(
    worker: &Arc<Worker<N>>,
    door: &Door,
    mut request: Request<Incoming>,
    record: &mut RequestRecord,
) -> Result<Tunnel, ProxyError> {
    let snapshot = door.load(&worker.snapshots);
    door.admit(&snapshot)?;
    let listener = door.listener(&snapshot);
    if !matches!(listener.kind, ListenerKind::OutboundHttp { .. }) {
        return Err(ProxyError::Unsupported("CONNECT"));
    }
    let is_http2 = request.version() == http::Version::HTTP_2;
    let downstream = is_http2.then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    head::check(&head, &snapshot.config.settings.limits)?;
    let authority = target_of(&head)?;
    if !body.is_end_stream() {
        return Err(ProxyError::BadRequest("a CONNECT with content".to_owned()));
    }
    let cluster = destination::find(worker, door, &snapshot, Some(&authority))?;
    record.routed(Arc::clone(&cluster.runtime));
    retry_budget::record_request(&cluster.runtime.retry_budget, worker.now());
    let destination = Destination::new(&cluster, &snapshot).with_own_tls();
    drop(snapshot);
    let is_own_tls = destination.speak == Speak::OwnTls;
    let opening = tcp::open_silent(worker, &destination);
    let opened = match cluster.settings.timeouts.request {
        Some(limit) => {
            let elapsed = |_elapsed| ProxyError::Timeout { limit };
            tokio::time::timeout(limit, opening).await.map_err(elapsed)?
        }
        None => opening.await,
    };
    let Opened { way, in_flight, slot, .. } = opened?;
    let upstream = opaque(worker, way, is_own_tls);
    let rest = Replay::new(body, 0, Activity::new(&worker.clock)).answered();
    Ok(Tunnel { upstream, cluster, held: Held::of(in_flight), rest, slot, downstream })
}

impl Tunnel {
    /// Tells the caller that its tunnel is open; what follows is relayed.
    pub(super) fn begin<N: Net>(
        self,
        worker: &Arc<Worker<N>>,
        door: &Door,
        mut record: RequestRecord,
    ) -> Response<ResponseBody> {
        let Self { upstream, cluster, held, rest, slot, downstream } = self;
        let response = Response::new(ResponseBody::local(""));
        record.set_status(response.status().as_u16());
        record.head_received(worker.now());
        let upstream = Far::Opaque(upstream);
        Box::new(Switched { upstream, cluster, record, held, rest, slot }).start(worker, door, downstream);
        response
    }
}

/// Where a request for a tunnel is to lead: `host:port` in canonical form.
fn target_of(head: &Parts) -> Result<String, ProxyError> {
    let bad = || ProxyError::BadRequest("the target of CONNECT is not \"host:port\"".to_owned());
    // Not what `Host` says, but what says it must be well-formed.
    let sent = head::authority(head)?;
    if head.uri.authority().is_none() || head.uri.scheme().is_some() {
        return Err(bad());
    }
    let destination = route::canonical(sent).ok_or_else(bad)?;
    // RFC 9110 §9.3.6: "A server MUST reject a CONNECT request that targets an empty or invalid port number".
    let has_port = route::port(&destination).is_some_and(|port| port != 0);
    if has_port { Ok(destination.into_owned()) } else { Err(bad()) }
}

/// Whether these are the first bytes of TLS: a handshake record (RFC 8446 §5.1) that begins with a `ClientHello` (§4).
pub(super) fn is_tls(first: &[u8]) -> bool {
    matches!(first, [22, 3, _minor, _, _, 1, ..])
}

fn opaque<N: Net>(worker: &Arc<Worker<N>>, way: Way<N::Stream>, is_own_tls: bool) -> Opaque {
    match way {
        Way::Framed(session, cut) => {
            let worker = Arc::clone(worker);
            let stream = Framed { worker, session: Some(session), has_ended: false, is_shut: false };
            Opaque { stream: Box::new(stream), cut, is_own_tls }
        }
        Way::Bare(connection) => {
            let cut: Cut = connection.cut();
            Opaque { stream: Box::new(connection), cut, is_own_tls }
        }
    }
}

/// A stream in frames, as bytes. When both of its directions have ended, its connection is kept for the next one.
/// Dropped earlier, the connection is closed: that is how the far side learns of an abort.
#[derive(Debug)]
struct Framed<N: Net> {
    worker: Arc<Worker<N>>,
    /// There until this is dropped.
    session: Option<Session<Connection<N::Stream>>>,
    has_ended: bool,
    is_shut: bool,
}

impl<N: Net> Framed<N> {
    fn session(&mut self) -> io::Result<&mut Session<Connection<N::Stream>>> {
        self.session.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<N: Net> AsyncRead for Framed<N> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        ready!(Pin::new(&mut Source(self.session()?)).poll_read(cx, buf))?;
        self.has_ended |= buf.filled().len() == before && room > 0;
        Poll::Ready(Ok(()))
    }
}

impl<N: Net> AsyncWrite for Framed<N> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut Sink(self.session()?)).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut Sink(self.session()?)).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut Sink(self.session()?)).poll_shutdown(cx))?;
        self.is_shut = true;
        Poll::Ready(Ok(()))
    }
}

impl<N: Net> Stream for Framed<N> {
    /// Nothing to do: see the type.
    fn reset_on_close(&self) {}
}

impl<N: Net> Drop for Framed<N> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && self.has_ended
            && self.is_shut
        {
            self.worker.tcp_pool.give_back(session.into_stream(), self.worker.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, host: &str) -> Result<String, String> {
        let request =
            Request::connect(target).header("host", host).body(()).map_err(|error| error.to_string())?;
        target_of(&request.into_parts().0).map_err(|error| error.to_string())
    }

    #[test]
    fn a_destination_is_a_host_and_a_port_in_one_spelling() {
        for (target, expected) in [
            ("orders:443", "orders:443"),
            ("ORDERS.example.:8080", "orders.example:8080"),
            ("10.0.0.1:65535", "10.0.0.1:65535"),
            ("[2001:DB8:0::1]:1", "[2001:db8::1]:1"),
        ] {
            assert_eq!(asked(target, "elsewhere").as_deref(), Ok(expected), "{target}");
        }
        for target in [
            "orders",
            "orders:",
            "orders:0",
            "orders:080",
            "orders:65536",
            "u@orders:80",
            "/orders:80",
            "http://orders:80",
        ] {
            assert!(asked(target, "orders:80").is_err(), "{target}");
        }
        assert!(asked("orders:80", "two, hosts").is_ok(), "the target wins");
    }

    #[test]
    fn tls_is_known_by_its_first_record() {
        for first in [&b"\x16\x03\x01\x02\x00\x01"[..], b"\x16\x03\x03\x00\xf4\x01\x00\x00\xf0"] {
            assert!(is_tls(first), "{first:?}");
        }
        for first in [
            &b"\x16\x03\x01\x02\x00"[..],
            b"\x16\x03\x01\x02\x00\x02",
            b"\x15\x03\x01\x00\x02\x01",
            b"\x16\x02\x01\x02\x00\x01",
            b"GET / HTTP/1.1",
            b"",
        ] {
            assert!(!is_tls(first), "{first:?}");
        }
        assert!(!is_tls(&[22; TLS_START_BYTES]));
    }
}
