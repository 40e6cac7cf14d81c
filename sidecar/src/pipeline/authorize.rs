//! Whether what a peer asks for may go to the own app, and what is told of that. The judging is [`crate::authz`]'s.
//!
//! Rules are about identities: the own app is not asked for one, and who comes in by an exception from mutual TLS has none
//! and is judged by that exception ([`Door::admit`]).

use std::{borrow::Cow, sync::atomic::Ordering};

use http::request::Parts;
use outrider_certs::SpiffeId;

use super::{
    door::{Door, From},
    entrance::Accepted,
    error::ProxyError,
    head,
};
use crate::{
    authz::{self, Asked, Judged, Misfit, Sent, Verdict},
    canonical::Care,
    headers::framing,
    model::{
        Settings, Snapshot,
        listener::{Inbound, Protocol},
        runtime::ListenerRuntime,
    },
    relay::frame::StreamKind,
    telemetry::record::RequestRecord,
};

/// Brings the head of a request to the own app into its one spelling, judges it, and tells the verdict. From here on the
/// head is what the app gets, as far as rules look at it.
///
/// # Errors
/// [`ProxyError::BadRequest`]: it has no one spelling. [`ProxyError::NotAuthorized`].
pub(super) fn request(
    door: &Door,
    snapshot: &Snapshot,
    head: &mut Parts,
    authority: &str,
    record: &RequestRecord,
) -> Result<(), ProxyError> {
    framing::check_method(&head.method).map_err(head::bad)?;
    let settings = &snapshot.config.settings;
    let (From::Peer { peer, .. }, Some(inbound)) = (&door.from, door.inbound(snapshot)) else {
        return head::respell(head, Care::Plain);
    };
    let (caller, port) = (peer.id(), inbound.app_port(door.original()));
    let sent = Sent { method: &head.method, path: head.uri.path(), authority, headers: &head.headers };
    let judged = authz::of_request(settings, inbound, (caller, port), sent);
    let Judged { path, verdict } = judged.map_err(|error| ProxyError::BadRequest(error.to_string()))?;
    if let Cow::Owned(path) = path {
        head::set_path(head, path)?;
    }
    let Some(verdict) = verdict else { return Ok(()) };
    told(door.counts(), verdict, record);
    let (listener, method, path) = (door.accepted.name(), head.method.as_str(), head.uri.path());
    match verdict {
        Verdict::Allowed(_) => Ok(()),
        Verdict::Audited => {
            tracing::info!(listener, %caller, port, authority, method, path, "no authorization rule allows a request, which passes as mode is audit");
            Ok(())
        }
        Verdict::Denied => {
            tracing::warn!(listener, %caller, port, authority, method, path, "no authorization rule allows a request: denied");
            Err(ProxyError::NotAuthorized)
        }
    }
}

/// Judges an opaque stream to the own app, and tells the verdict.
///
/// # Errors
/// [`ProxyError::NotAuthorized`].
pub(super) fn stream(
    door: &Door,
    snapshot: &Snapshot,
    kind: StreamKind,
    record: &RequestRecord,
) -> Result<(), ProxyError> {
    let (From::Peer { peer, .. }, Some(inbound)) = (&door.from, door.inbound(snapshot)) else {
        return Ok(());
    };
    let port = inbound.app_port(door.original());
    let verdict = authz::verdict(&snapshot.config.settings, inbound, peer.id(), port, Asked::Stream);
    let Some(verdict) = verdict else { return Ok(()) };
    told(door.counts(), verdict, record);
    let (listener, caller) = (door.accepted.name(), peer.id());
    match (verdict, kind) {
        (Verdict::Allowed(_), _) => return Ok(()),
        (Verdict::Audited, _) => {
            tracing::info!(listener, %caller, port, "no authorization rule allows a stream, which passes as mode is audit");
            return Ok(());
        }
        // Its caller does not know yet whether it is a request: those are judged when they come.
        (Verdict::Denied, StreamKind::Undecided) => {
            tracing::debug!(listener, %caller, port, "no authorization rule allows a stream: denied");
        }
        (Verdict::Denied, StreamKind::Opaque) => {
            tracing::warn!(listener, %caller, port, "no authorization rule allows a stream: denied");
        }
    }
    Err(ProxyError::NotAuthorized)
}

/// Whether a peer that has just proved who it is may have a connection there at all: where nothing but bytes is carried,
/// everything that it can ask for is known. What is denied is told here, what is not with each stream.
pub(super) fn connection(
    accepted: &Accepted,
    settings: &Settings,
    inbound: &Inbound,
    (caller, port): (&SpiffeId, u16),
) -> bool {
    if inbound.protocol != Protocol::Tcp {
        return true;
    }
    let verdict = authz::verdict(settings, inbound, caller, port, Asked::Stream);
    let is_denied = verdict.is_some_and(|verdict| !verdict.passes());
    if is_denied {
        count(&accepted.entrance.counts, Verdict::Denied);
        tracing::warn!(listener = accepted.name(), %caller, port, "no authorization rule allows a connection: refused");
    }
    !is_denied
}

/// Whether no rule allows the peer a stream, while some allow it requests: what it sends as bytes may be those.
pub(super) fn is_for_requests(door: &Door, snapshot: &Snapshot) -> bool {
    let settings = &snapshot.config.settings;
    let (From::Peer { peer, .. }, Some(inbound), Some(rules)) =
        (&door.from, door.inbound(snapshot), settings.authorization.as_deref())
    else {
        return false;
    };
    let port = inbound.app_port(door.original());
    let verdict = authz::verdict(settings, inbound, peer.id(), port, Asked::Stream);
    let is_about_it =
        |rule| matches!(authz::misfit(rule, peer.id(), port, Asked::Stream), Some(Misfit::Stream));
    verdict.is_some_and(|verdict| !verdict.passes()) && rules.rules().iter().any(is_about_it)
}

fn told(counts: &ListenerRuntime, verdict: Verdict<'_>, record: &RequestRecord) {
    count(counts, verdict);
    record.write(|trail| trail.authorization = Some(verdict.told()));
}

fn count(counts: &ListenerRuntime, verdict: Verdict<'_>) {
    if let Some(count) = counts.authorized.get(verdict.index()) {
        count.fetch_add(1, Ordering::Relaxed);
    }
}
