//! The request's head, judged and made what the next hop may see.

use std::sync::Arc;

use http::{HeaderValue, Method, Version, header, request::Parts, uri::Scheme};
use hyper::{body::Body, ext::Protocol};

use super::{
    door::{Door, From},
    error::ProxyError,
    wish::Wish,
    worker::Worker,
};
use crate::{
    connect::dial::Speak,
    headers::{cookie, forwarded, framing, hop_by_hop, reserved},
    model::{
        Cluster, Listener, Snapshot,
        cluster::AppProtocol,
        listener::{Asked, Inbound},
        settings::Limits,
        transport::{HttpVersion, PeerKind, Transport},
        wire,
    },
    net::Net,
};

/// Judges a head before anything is decided on it; returns whom the request is for, as it was sent.
///
/// # Errors
/// [`ProxyError::HeadersTooLarge`], [`ProxyError::BadRequest`], [`ProxyError::Unsupported`].
pub(super) fn judge(head: &Parts, wish: Option<&Wish>, limits: &Limits) -> Result<String, ProxyError> {
    check(head, limits)?;
    if head.method == Method::CONNECT {
        if wish.is_none() {
            let is_extended = head.extensions.get::<Protocol>().is_some();
            let what = if is_extended { "CONNECT with a :protocol other than websocket" } else { "CONNECT" };
            return Err(ProxyError::Unsupported(what));
        }
        // RFC 8441 §4: an extended CONNECT has a path, as other requests have.
        if !head.uri.path().starts_with('/') {
            return Err(bad(framing::FramingError::Target));
        }
    }
    authority(head).map(str::to_owned)
}

/// What holds for the head of every request.
///
/// # Errors
/// [`ProxyError::HeadersTooLarge`], [`ProxyError::BadRequest`].
pub(super) fn check(head: &Parts, limits: &Limits) -> Result<(), ProxyError> {
    let target_bytes = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    if !framing::fits(&head.headers, target_bytes, limits.header_count, limits.header_bytes) {
        return Err(ProxyError::HeadersTooLarge);
    }
    framing::check_request(head).map_err(bad)
}

/// Whom a request is for, as it was sent.
///
/// # Errors
/// [`ProxyError::BadRequest`].
pub(super) fn authority(head: &Parts) -> Result<&str, ProxyError> {
    framing::authority(head).map_err(bad)
}

fn bad(error: framing::FramingError) -> ProxyError {
    ProxyError::BadRequest(error.to_string())
}

/// Whether an absolute target of HTTP/1 (`GET http://host/`, as proxies are asked) can be had as its scheme says. An
/// `https` one asks us for TLS with the server that it names, which is what `tls: public` makes; where it would mean less
/// than that, the app shall ask for a tunnel.
///
/// # Errors
/// [`ProxyError::Unsupported`].
pub(super) fn check_scheme(head: &Parts, listener: &Listener, cluster: &Cluster) -> Result<(), ProxyError> {
    let is_asked = head.version <= Version::HTTP_11 && !listener.is_inbound();
    let Some(scheme) = head.uri.scheme().filter(|_| is_asked) else { return Ok(()) };
    if *scheme == Scheme::HTTP {
        return Ok(());
    }
    if *scheme != Scheme::HTTPS {
        return Err(ProxyError::Unsupported("a target that is neither http:// nor https://"));
    }
    match &cluster.settings.transport {
        Transport::Public(_) => Ok(()),
        Transport::Mesh(..) | Transport::Plain(_) | Transport::App => Err(ProxyError::Unsupported(
            "an https:// target, other than by CONNECT or in a cluster with tls: public,",
        )),
    }
}

/// An HTTP/1.0 request may name no host, but the next hop must: the service it goes to is as much as is known.
pub(super) fn unnamed(snapshot: &Snapshot, cluster: &Cluster) -> String {
    match &cluster.settings.transport {
        Transport::App => snapshot.config.settings.bootstrap.service.clone(),
        Transport::Public(public) => public.server_name.to_string(),
        Transport::Mesh(..) | Transport::Plain(_) => cluster.name().to_string(),
    }
}

/// Makes the head what the next hop may see. Returns which attempt the hop before said this is, counted from 1.
pub(super) fn rewrite<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    snapshot: &Snapshot,
    cluster: &Cluster,
    head: &mut Parts,
) -> u32 {
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
        (From::Plain { address, .. }, _) => {
            reserved::strip(headers);
            worker.with_rng(|rng| forwarded::plain(headers, *address, rng));
            1
        }
        (From::App | From::Peer { .. }, _) => {
            reserved::strip(headers);
            if cluster.settings.transport.is_outside() {
                forwarded::outside(headers);
            } else {
                worker.with_rng(|rng| forwarded::outbound(headers, rng));
            }
            1
        }
    }
}

/// What somebody asks for by a request: what decides whether it is let in where its sender has proved nothing.
pub(super) fn asked<'a>(head: &'a Parts, body: &impl Body, wish: Option<&Wish>) -> Asked<'a> {
    Asked::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        is_bare: body.is_end_stream() && wish.is_none(),
    }
}

/// What to speak upstream. The far side restores what the calling app spoke.
pub(super) fn speak(
    inbound: Option<&Arc<Inbound>>,
    cluster: &Cluster,
    wish: Option<&Wish>,
    head: &mut Parts,
) -> Speak {
    let is_http1_only = wish.is_some_and(Wish::is_http1_only);
    let app_version = reserved::take(&mut head.headers, wire::APP_VERSION);
    let speak = match &cluster.settings.transport {
        Transport::Mesh(peer, version) => {
            let is_sidecar = *peer == PeerKind::Outrider;
            if is_sidecar {
                head.headers.insert(wire::APP_VERSION, version_label(head.version));
            }
            match version {
                HttpVersion::Http2 if is_http1_only && is_sidecar => Speak::Http1,
                HttpVersion::Http2 => Speak::Http2,
                // An HTTP/1 head must name its trailers, which gRPC never does: they would be lost.
                HttpVersion::Http1 if is_sidecar && head.version == Version::HTTP_2 => Speak::Http2,
                HttpVersion::Http1 => Speak::Http1,
            }
        }
        Transport::Public(public) => match public.protocol {
            // What both ends are sure to have a form for.
            AppProtocol::Auto if wish.is_some() => Speak::Http1,
            AppProtocol::Auto => Speak::Either,
            AppProtocol::Http1 => Speak::Http1,
            AppProtocol::Http2 => Speak::Http2,
        },
        Transport::Plain(AppProtocol::Auto) if is_http1_only => Speak::Http1,
        Transport::Plain(protocol) => app_speak(*protocol, None, head.version),
        Transport::App => match inbound.map_or(AppProtocol::Http1, |inbound| inbound.app_protocol) {
            AppProtocol::Auto if is_http1_only => Speak::Http1,
            protocol @ (AppProtocol::Auto | AppProtocol::Http1 | AppProtocol::Http2) => {
                app_speak(protocol, app_version.as_ref(), head.version)
            }
        },
    };
    if speak != Speak::Http2 {
        cookie::join(&mut head.headers);
    }
    speak
}

/// What to speak with an app, or with whoever is spoken to without TLS: what the calling app spoke, if nothing is said.
fn app_speak(protocol: AppProtocol, app_version: Option<&HeaderValue>, version: Version) -> Speak {
    match protocol {
        AppProtocol::Http1 => Speak::Http1,
        AppProtocol::Http2 => Speak::Http2,
        AppProtocol::Auto => {
            let was_http2 = match app_version {
                Some(version) => version == "2",
                None => version == Version::HTTP_2,
            };
            if was_http2 { Speak::Http2 } else { Speak::Http1 }
        }
    }
}

fn version_label(version: Version) -> HeaderValue {
    HeaderValue::from_static(match version {
        Version::HTTP_2 => "2",
        Version::HTTP_10 => "1.0",
        _ => "1.1",
    })
}
