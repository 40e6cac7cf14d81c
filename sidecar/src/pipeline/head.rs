//! The request's head, judged and made what the next hop may see.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{
    HeaderValue, Method, Uri, Version, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use hyper::{body::Body, ext::Protocol};

use super::{
    deadline::Deadline,
    door::{Door, From},
    error::ProxyError,
    respond::Audience,
    wish::Wish,
    worker::Worker,
};
use crate::{
    canonical::{self, Care},
    connect::dial::Speak,
    headers::{
        cookie, edits,
        forwarded::{self, Verified},
        framing, hop_by_hop, reserved, timeout,
    },
    model::{
        Cluster, Listener, Snapshot,
        cluster::AppProtocol,
        edits::Edits,
        listener::{Asked, Inbound},
        policy::Policy,
        settings::Limits,
        transport::{HttpVersion, PeerKind, Transport},
        wire,
    },
    net::Net,
    route::{Chosen, rewrite},
};

/// Judges a head before anything is decided on it; returns whom the request is for, in
/// canonical form; empty if it names nobody and need not.
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
    let sent = authority(head)?;
    if sent.is_empty() {
        return Ok(String::new());
    }
    canonical::authority(sent).map(Cow::into_owned).ok_or_else(|| bad(framing::FramingError::HostMalformed))
}

/// Writes the path of the target in its one spelling: what is decided on from here on is what the next hop gets.
///
/// # Errors
/// [`ProxyError::BadRequest`]: it has none.
pub(super) fn respell(head: &mut Parts, care: Care) -> Result<(), ProxyError> {
    let path = canonical::path(head.uri.path(), care);
    match path.map_err(|error| ProxyError::BadRequest(error.to_string()))? {
        Cow::Borrowed(_) => Ok(()),
        Cow::Owned(path) => set_path(head, path),
    }
}

/// Has a target without a path ask for the root (`http://host?a=b`; over HTTP/2, `?a=b`), as it is judged: HTTP/1 would be
/// written so, and HTTP/2 would not.
///
/// # Errors
/// [`ProxyError::BadRequest`]: it is no target then either.
pub(super) fn root(head: &mut Parts) -> Result<(), ProxyError> {
    match head.uri.path_and_query().map(PathAndQuery::as_str) {
        Some(target) if target.starts_with('?') => {
            let target = ["/", target].concat();
            set_target(head, target)
        }
        _ => Ok(()),
    }
}

/// Gives the target another path; its query stays.
///
/// # Errors
/// [`ProxyError::BadRequest`]: it is no path of a target.
pub(super) fn set_path(head: &mut Parts, path: String) -> Result<(), ProxyError> {
    let target = match head.uri.query() {
        Some(query) => [&path, "?", query].concat(),
        None => path,
    };
    set_target(head, target)
}

/// Checks that the head says once who asks and what is sent.
///
/// # Errors
/// [`ProxyError::BadRequest`].
pub(super) fn check_single(head: &Parts) -> Result<(), ProxyError> {
    framing::check_single(&head.headers).map_err(bad)
}

/// Has the head ask for that path and query.
fn set_target(head: &mut Parts, target: String) -> Result<(), ProxyError> {
    let bad = |error: &dyn std::fmt::Display| ProxyError::BadRequest(error.to_string());
    let mut parts = std::mem::take(&mut head.uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(target).map_err(|error| bad(&error))?);
    head.uri = Uri::from_parts(parts).map_err(|error| bad(&error))?;
    Ok(())
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

pub(super) fn bad(error: framing::FramingError) -> ProxyError {
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

/// What a request's route changes of it, and what is asked without that.
pub(super) struct Edited<'a> {
    /// The changes.
    pub(super) edits: Option<&'a Edits>,
    /// The prefix of the path by which the route was found.
    pub(super) prefix: Option<&'a str>,
    /// Whom the caller asks for, in canonical form; empty if it names nobody.
    pub(super) asked: &'a str,
}

impl<'a> Edited<'a> {
    /// What the chosen route changes of a request for that authority.
    pub(super) fn of(chosen: Chosen<'a>, asked: &'a str) -> Self {
        Self { edits: chosen.policy.edits.as_deref(), prefix: chosen.prefix, asked }
    }

    /// Whom the route asks for instead.
    fn host(&self) -> Option<&str> {
        self.edits?.host.as_deref()
    }
}

/// Whom the next hop is asked for, of a caller that asks for `asked`.
pub(super) fn addressed(
    asked: String,
    edits: Option<&Edits>,
    snapshot: &Snapshot,
    cluster: &Cluster,
) -> String {
    match edits.and_then(|edits| edits.host.as_deref()) {
        Some(host) => host.to_owned(),
        None if asked.is_empty() => unnamed(snapshot, cluster),
        None => asked,
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

/// By when there must be an answer to a request under that policy, which came at `started`. Takes off what its sender says of it.
pub(super) fn deadline(door: &Door, head: &mut Parts, policy: &Policy, started: Instant) -> Deadline {
    let patience = patience(door, head);
    let is_from_sidecar = door.audience() == Audience::Sidecar;
    Deadline::new(started, head, policy.request_timeout, patience, is_from_sidecar)
}

/// How long whoever sent a request waits for the answer's head, as far as it may say so.
fn patience(door: &Door, head: &mut Parts) -> Option<Duration> {
    match &door.from {
        // It can only be less than what the app would have had to wait anyway.
        From::App { .. } | From::Peer { is_sidecar: true, .. } => {
            reserved::take(&mut head.headers, wire::TIMEOUT_MS).as_ref().and_then(timeout::ours)
        }
        From::Peer { is_sidecar: false, .. } | From::Plain { .. } => None,
    }
}

/// Makes the head what the next hop may see. Returns which attempt the hop before said this is, counted from 1.
///
/// # Errors
/// [`ProxyError::BadRequest`]: its route changes the path, and it has none that can be.
pub(super) fn rewrite<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    (snapshot, cluster): (&Snapshot, &Cluster),
    edited: &Edited<'_>,
    head: &mut Parts,
) -> Result<u32, ProxyError> {
    if let Some(path) = edited.edits.and_then(|edits| edits.path.as_ref()) {
        let target = rewrite::target(path, &head.uri, edited.prefix);
        set_target(head, target.map_err(|error| ProxyError::BadRequest(error.to_string()))?)?;
    }
    let headers = &mut head.headers;
    let mut told = 1;
    hop_by_hop::strip_request(headers);
    if !cluster.settings.transport.is_outside() {
        reserved::strip_lookalikes(headers);
    }
    // After what `Connection` names is off, so that a caller cannot have it taken off again; before what we tell ourselves.
    if let Some(edits) = edited.edits {
        edits::apply(headers, &edits.request);
    }
    let settings = snapshot.config.settings.forwarded;
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
            let verified = Verified { peer: peer.id(), own: own.svid.id(), address: *address };
            worker.with_rng(|rng| forwarded::inbound(headers, verified, settings, edited.asked, rng));
            told = attempt.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(1);
        }
        (From::Plain { address, .. }, _) => {
            reserved::strip(headers);
            let hops = door.inbound(snapshot).map_or(0, |inbound| inbound.exceptions.trusted_hops);
            worker.with_rng(|rng| forwarded::plain(headers, *address, hops, edited.asked, rng));
        }
        (From::App { .. } | From::Peer { .. }, _) => {
            reserved::strip(headers);
            if cluster.settings.transport.is_outside() {
                forwarded::outside(headers);
            } else {
                let asked = edited.host().map(|_| edited.asked).filter(|asked| !asked.is_empty());
                worker.with_rng(|rng| forwarded::outbound(headers, settings, asked, rng));
                if let Some(address) = door.said() {
                    forwarded::said(headers, address);
                }
            }
        }
    }
    Ok(told)
}

/// What somebody asks for by a request: what decides whether it is let in where its sender has proved nothing.
pub(super) fn asked<'a>(head: &'a Parts, body: &impl Body, wish: Option<&Wish>) -> Asked<'a> {
    Asked::Request {
        method: head.method.as_str(),
        path: head.uri.path(),
        is_bare: body.is_end_stream() && wish.is_none(),
    }
}

/// What to speak upstream, and what is left of the wish to leave HTTP: it may be ignored (RFC 9110 §7.8), and where the
/// next hop has no form for it, this is an ordinary request.
pub(super) fn speak<'a>(
    inbound: Option<&Arc<Inbound>>,
    cluster: &Cluster,
    wish: Option<&'a Wish>,
    head: &mut Parts,
) -> (Speak, Option<&'a Wish>) {
    let speak = upstream_speak(inbound, cluster, wish, head);
    (speak, wish.filter(|wish| speak == Speak::Http1 || !wish.is_http1_only()))
}

/// What to speak upstream. The far side restores what the calling app spoke.
fn upstream_speak(
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
