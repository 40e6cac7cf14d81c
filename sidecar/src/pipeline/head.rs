//! The request's head, judged and made what the next hop may see.

use http::{HeaderValue, Method, Version, header, request::Parts};

use super::{
    door::{Door, From},
    error::ProxyError,
    worker::Worker,
};
use crate::{
    connect::dial::{self, Speak},
    headers::{cookie, forwarded, framing, hop_by_hop, reserved},
    model::{
        Cluster, Listener, ListenerKind, Snapshot,
        cluster::{AppProtocol, PeerKind, Transport},
        wire,
    },
    net::Net,
};

/// Judges a head before anything is decided on it; returns whom the request is for, as it was sent.
///
/// # Errors
/// [`ProxyError::BadRequest`], [`ProxyError::Unsupported`].
pub(super) fn judge(head: &Parts, header_count: usize) -> Result<String, ProxyError> {
    let bad = |error: framing::FramingError| ProxyError::BadRequest(error.to_string());
    framing::check_request(head, header_count).map_err(bad)?;
    if head.method == Method::CONNECT {
        return Err(ProxyError::Unsupported("CONNECT"));
    }
    framing::authority(head).map(str::to_owned).map_err(bad)
}

/// An HTTP/1.0 request may name no host, but the next hop must: the service it goes to is as much as is known.
pub(super) fn unnamed(snapshot: &Snapshot, cluster: &Cluster) -> String {
    match cluster.settings.transport {
        Transport::App => snapshot.config.settings.bootstrap.service.clone(),
        Transport::Mesh(_) => cluster.name().to_string(),
    }
}

/// Makes the head what the next hop may see. Returns which attempt the hop before said this is, counted from 1.
pub(super) fn rewrite<N: Net>(worker: &Worker<N>, door: &Door, snapshot: &Snapshot, head: &mut Parts) -> u32 {
    let headers = &mut head.headers;
    hop_by_hop::strip_request(headers);
    // Answered hop by hop: hyper sends 100 Continue as soon as we read the body.
    headers.remove(header::EXPECT);
    match (&door.from, &snapshot.identity) {
        (From::Peer { peer, address, is_sidecar, .. }, Some(own)) => {
            let attempt = if *is_sidecar { reserved::take(headers, wire::ATTEMPT) } else { None };
            let version = if *is_sidecar { reserved::take(headers, wire::APP_VERSION) } else { None };
            reserved::strip(headers);
            // Kept until `speak` has read it.
            if let Some(version) = version {
                headers.insert(wire::APP_VERSION, version);
            }
            worker.with_rng(|rng| forwarded::inbound(headers, peer.id(), own.svid.id(), *address, rng));
            attempt.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1)
        }
        (From::App | From::Peer { .. }, _) => {
            reserved::strip(headers);
            worker.with_rng(|rng| forwarded::outbound(headers, rng));
            1
        }
    }
}

/// What to speak upstream. The far side restores what the calling app spoke.
pub(super) fn speak(listener: &Listener, cluster: &Cluster, head: &mut Parts) -> Speak {
    let app_version = reserved::take(&mut head.headers, wire::APP_VERSION);
    let speak = match (&listener.kind, cluster.settings.transport) {
        (_, Transport::Mesh(peer)) => {
            if peer == PeerKind::Outrider {
                head.headers.insert(wire::APP_VERSION, version_label(head.version));
            }
            dial::mesh_http(peer)
        }
        (ListenerKind::Inbound(inbound), Transport::App) => match inbound.app_protocol {
            AppProtocol::Http1 => Speak::Http1,
            AppProtocol::Http2 => Speak::Http2,
            AppProtocol::Auto => {
                let was_http2 = match app_version {
                    Some(version) => version == "2",
                    None => head.version == Version::HTTP_2,
                };
                if was_http2 { Speak::Http2 } else { Speak::Http1 }
            }
        },
        (ListenerKind::OutboundHttp { .. } | ListenerKind::OutboundTcp { .. }, Transport::App) => {
            Speak::Http1
        }
    };
    if speak == Speak::Http1 {
        cookie::join(&mut head.headers);
    }
    speak
}

fn version_label(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    })
}
