//! CONNECT: the own app asks its proxy for a stream to a destination (RFC 9110 §9.3.6; of HTTP/2, RFC 9113 §8.5).
//!
//! Where it leads is found as for a request; what it carries is an opaque stream, opened as one of an outbound TCP
//! listener. The success is told when that way is open, so a failure has an answer, and a failed attempt is repeated
//! elsewhere. Then the stream is one that has left HTTP, like any other ([`super::switched`]).
//!
//! A cluster with `tls: public` is reached without TLS of ours: whoever asks for a tunnel to it speaks TLS itself. That is
//! made sure of, so that nothing goes there in the clear by mistake.

use std::sync::Arc;

use http::{Method, Request, Response, Version, request::Parts};
use hyper::{
    body::{Body as _, Incoming},
    ext::Protocol,
    upgrade::OnUpgrade,
};

use super::{
    attempt::Held,
    destination,
    door::{Door, From},
    error::ProxyError,
    head, notes, rate_limit,
    switched::{After, Far, Opaque, Switched},
    tcp::{self, Known, Opened, Routing, Way},
    trace, wanting,
    worker::Worker,
};
use crate::{
    canonical,
    connect::dial::{Connection, Speak},
    detect::{self, Spoken, Verdict},
    model::{Cluster, ListenerKind, listener::Asked},
    net::Net,
    relay::{
        activity::Activity,
        body::ResponseBody,
        replay::{Replay, Rest},
        session::{Duplex, Lent},
    },
    resilience::circuit_breaker::RequestSlot,
    telemetry::{record::RequestRecord, trail::Traffic},
};

/// First bytes by which TLS is known: a record's header, and the type of its first message (RFC 8446 §5.1, §4).
pub(super) const TLS_START_BYTES: usize = 6;

/// Whether it is the own app's request for a tunnel. A peer's is a request as any other, and refused.
pub(super) fn is_asked<B>(door: &Door, request: &Request<B>) -> bool {
    request.method() == Method::CONNECT
        && matches!(door.from, From::App { .. })
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
    let mut snapshot = door.load(&worker.snapshots);
    record.write(|trail| trail.kind = Traffic::Tunnel);
    let headers = Some(request.headers());
    drop(trace::begin((worker, door), &snapshot.config, headers, record));
    door.admit(&snapshot, Asked::Bytes, || worker.clock.wall())?;
    let listener = door.listener(&snapshot);
    if !matches!(listener.kind, ListenerKind::OutboundHttp { .. }) {
        return Err(ProxyError::Unsupported("CONNECT"));
    }
    let downstream = (request.version() == Version::HTTP_2).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    head::check(&head, &snapshot.config.settings.limits)?;
    let asked = asked(&head)?;
    if !body.is_end_stream() {
        return Err(ProxyError::BadRequest("a CONNECT with content".to_owned()));
    }
    notes::for_whom(record, &asked);
    let mut unrouted = destination::find(worker, door, &snapshot, Some(&asked));
    if let Err(ProxyError::NotDiscovered(key)) = unrouted {
        snapshot = wanting::wait(worker, key, || door.load(&worker.snapshots)).await?;
        unrouted = destination::find(worker, door, &snapshot, Some(&asked));
    }
    // Whom its TLS is for is not said before the tunnel is there.
    let known = Known { unrouted, port: canonical::port(&asked), name: None };
    let destination = Routing::default().find((worker, door), &snapshot, known)?.with_own_tls();
    let cluster = Arc::clone(&destination.cluster);
    destination.note(worker, door, record);
    // A tunnel that was asked for is one, whatever comes of it.
    drop(rate_limit::admit_stream(door, &cluster, worker.now())?);
    drop(snapshot);

    let is_own_tls = destination.speak == Speak::OwnTls;
    let opening = tcp::open_silent(worker, &destination, record);
    let Opened { way, in_flight, slot, .. } = match cluster.settings.policy.request_timeout {
        Some(limit) => {
            let elapsed = |_elapsed| ProxyError::Timeout { limit };
            tokio::time::timeout(limit, opening).await.map_err(elapsed)??
        }
        None => opening.await?,
    };
    let upstream = opaque(worker, way, is_own_tls);
    let rest = Replay::new(body, 0, Activity::new(&worker.clock, record.moved()), None).answered();
    Ok(Tunnel { upstream, cluster, held: Held::of(in_flight), rest, slot, downstream })
}

impl Tunnel {
    /// Tells the caller that its tunnel is open; what follows is relayed.
    pub(super) fn begin<N: Net>(
        self,
        worker: &Arc<Worker<N>>,
        door: &Door,
        record: RequestRecord,
    ) -> Response<ResponseBody> {
        let Self { upstream, cluster, held, rest, slot, downstream } = self;
        let response = Response::new(ResponseBody::local(""));
        record.answered(response.status().as_u16(), worker.now());
        let upstream = Far::Opaque(upstream);
        Box::new(Switched { upstream, cluster, record, held, rest, slot, live: None })
            .start(worker, door, downstream);
        response
    }
}

/// Where a request for a tunnel is to lead: `host:port` in canonical form.
fn asked(head: &Parts) -> Result<String, ProxyError> {
    let bad = || ProxyError::BadRequest("the target of CONNECT is not \"host:port\"".to_owned());
    // Not what `Host` says, but what says it must be well-formed.
    let sent = head::authority(head)?;
    if head.uri.authority().is_none() || head.uri.scheme().is_some() {
        return Err(bad());
    }
    let asked = canonical::authority(sent).ok_or_else(bad)?;
    // RFC 9110 §9.3.6: "A server MUST reject a CONNECT request that targets an empty or invalid port number".
    let has_port = canonical::port(&asked).is_some_and(|port| port != 0);
    if has_port { Ok(asked.into_owned()) } else { Err(bad()) }
}

/// Whether these are the [first bytes](TLS_START_BYTES) of TLS.
pub(super) fn is_tls(first: &[u8]) -> bool {
    detect::client(first, TLS_START_BYTES) == Verdict::Decided(Spoken::Tls)
}

fn opaque<N: Net>(worker: &Arc<Worker<N>>, way: Way<N::Stream>, is_own_tls: bool) -> Opaque {
    match way {
        Way::Framed(session, cut) => {
            let (stream, lent) = Duplex::new(session);
            let after = GiveBack { worker: Arc::clone(worker), lent };
            Opaque { stream: Box::new(stream), cut, is_own_tls, after: Some(Box::new(after)) }
        }
        Way::Bare(connection) => {
            let cut = connection.cut();
            Opaque { stream: Box::new(connection), cut, is_own_tls, after: None }
        }
    }
}

/// A framed connection that is kept for another stream when both directions of this one have ended. Else it is closed:
/// that is how the far side learns of an abort.
#[derive(Debug)]
struct GiveBack<N: Net> {
    worker: Arc<Worker<N>>,
    lent: Lent<Connection<N::Stream>>,
}

impl<N: Net> After for GiveBack<N> {
    fn ended(self: Box<Self>) {
        let Self { worker, lent } = *self;
        if let Some(served) = lent.back().filter(|served| served.has_ended && served.is_shut) {
            worker.tcp_pool.give_back(served.session.into_stream(), worker.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(target: &str, host: &str) -> Result<String, String> {
        let request =
            Request::connect(target).header("host", host).body(()).map_err(|error| error.to_string())?;
        super::asked(&request.into_parts().0).map_err(|error| error.to_string())
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
