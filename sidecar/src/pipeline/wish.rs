//! A request's wish to leave HTTP for another protocol: what it asks for, in the form that the next hop speaks.
//!
//! ```text
//!                      HTTP/1.1                          HTTP/2
//!   WebSocket          GET, Upgrade: websocket, 101      extended CONNECT, 200 (RFC 8441)
//!   anything else      Upgrade, 101                      (has no form: the wish is not passed on)
//! ```
//! The handshake's proof (`Sec-WebSocket-Key`, `-Accept`) belongs to one HTTP/1.1 hop; everything else of the handshake,
//! as the subprotocol and the extensions, is between the caller and the app and passes as it is.

use bytes::Bytes;
use h2::SendStream;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{
        CONNECTION, CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
    },
};
use http_body::Body as _;
use hyper::{body::Incoming, ext::Protocol, upgrade::OnUpgrade};

use super::{
    door::{Door, From},
    respond::Audience,
    switched::Far,
    worker::Worker,
};
use crate::{
    authz::{self, Asked, Verdict},
    connect::dial::Speak,
    headers::{framing::FramingError, reserved, upgrade, websocket},
    model::{Snapshot, wire},
    net::Net,
    relay::{h2_stream::H2Stream, received::Received, replay::RequestBody},
};

/// WebSocket's name, as `Upgrade` and as `:protocol`.
const WEBSOCKET: &str = "websocket";
/// The one version of its handshake (RFC 6455 §4.1).
const WEBSOCKET_VERSION: HeaderValue = HeaderValue::from_static("13");
/// What carries the status of [`wire::DECLINED`]: no success, and no app's word.
const DECLINED: StatusCode = StatusCode::FORBIDDEN;

/// A request's wish to switch protocols.
#[derive(Debug)]
pub(super) struct Wish {
    protocol: Wanted,
    caller: Caller,
    /// The caller's side, once the switch is made.
    downstream: OnUpgrade,
}

#[derive(Debug)]
enum Wanted {
    /// With our key for the next hop, if that is HTTP/1.1.
    WebSocket(HeaderValue),
    /// The protocols to choose from.
    Other(HeaderValue),
}

/// In which form the wish came.
#[derive(Debug)]
enum Caller {
    /// HTTP/1.1; with the key of the caller's handshake, if it is WebSocket's.
    Http1(Option<HeaderValue>),
    /// HTTP/2.
    Http2 {
        /// A sidecar of ours understands [`wire::DECLINED`].
        is_sidecar: bool,
    },
}

/// A switch that the upstream has made.
#[derive(Debug)]
pub(super) struct Switch {
    /// The upstream's side.
    pub(super) upstream: Far,
    /// To which protocol, as `Upgrade` says it.
    protocol: HeaderValue,
}

impl Wish {
    /// The wish of a request, taken out of it; `None` for an ordinary request, which costs one look-up. A wish for
    /// WebSocket that is not well-formed is passed on as any other `Upgrade`: the app answers it.
    pub(super) fn of<N: Net>(
        worker: &Worker<N>,
        door: &Door,
        request: &mut Request<Incoming>,
    ) -> Option<Box<Self>> {
        let (protocol, caller) = if request.method() == Method::CONNECT {
            let protocol = request.extensions().get::<Protocol>()?;
            if !protocol.as_str().eq_ignore_ascii_case(WEBSOCKET) {
                return None;
            }
            let is_sidecar = door.audience() == Audience::Sidecar;
            (Wanted::WebSocket(worker.with_rng(websocket::key)), Caller::Http2 { is_sidecar })
        } else {
            let wanted = upgrade::wanted(request.headers(), request.version())?;
            match take_key(request, &wanted) {
                Some(key) => (Wanted::WebSocket(worker.with_rng(websocket::key)), Caller::Http1(Some(key))),
                None => (Wanted::Other(wanted), Caller::Http1(None)),
            }
        };
        Some(Box::new(Self { protocol, caller, downstream: hyper::upgrade::on(request) }))
    }

    /// Whether only HTTP/1.1 has a form for it.
    pub(super) fn is_http1_only(&self) -> bool {
        matches!(self.protocol, Wanted::Other(_))
    }

    /// Whether it may be passed on to the own app. What follows a switch to another protocol than WebSocket is bytes that
    /// nobody looks at, whatever the request asked for: who asks must be allowed a stream by the rules, if there are any.
    pub(super) fn may_pass<N: Net>(&self, worker: &Worker<N>, door: &Door, snapshot: &Snapshot) -> bool {
        let successor = door.accepted.successor(&worker.snapshots);
        let snapshot = successor.as_deref().unwrap_or(snapshot);
        let (From::Peer { peer, .. }, Some(inbound)) = (&door.from, door.inbound(snapshot)) else {
            return true;
        };
        let port = inbound.app_port(door.original());
        let stream = || authz::verdict(&snapshot.config.settings, inbound, peer.id(), port, Asked::Stream);
        !self.is_http1_only() || stream().is_none_or(Verdict::passes)
    }

    /// Whether it came as HTTP/1.1: then the whole connection leaves HTTP.
    pub(super) fn is_from_http1(&self) -> bool {
        matches!(self.caller, Caller::Http1(_))
    }

    /// Puts the wish into a request for the next hop.
    pub(super) fn dress(&self, request: &mut Request<RequestBody>, speak: Speak) {
        match (&self.protocol, speak) {
            (Wanted::WebSocket(_), Speak::Http2) => {
                *request.method_mut() = Method::CONNECT;
                request.extensions_mut().insert(h2::ext::Protocol::from_static(WEBSOCKET));
                request.headers_mut().remove(CONTENT_LENGTH);
            }
            (Wanted::WebSocket(key), Speak::Http1 | Speak::Either | Speak::Tcp | Speak::OwnTls) => {
                *request.method_mut() = Method::GET;
                let headers = request.headers_mut();
                headers.remove(CONTENT_LENGTH);
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
                headers.insert(SEC_WEBSOCKET_KEY, key.clone());
                headers.entry(SEC_WEBSOCKET_VERSION).or_insert(WEBSOCKET_VERSION);
            }
            (Wanted::Other(protocols), _) => {
                let headers = request.headers_mut();
                headers.insert(UPGRADE, protocols.clone());
                headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
            }
        }
    }

    /// What an upstream's answer means: the switch, or `None` if it was declined, which is an answer as any other.
    ///
    /// # Errors
    /// [`FramingError::WrongSwitch`], or [`FramingError::NoSwitch`] for a refusal that this caller would take for consent.
    pub(super) fn settle(
        &self,
        stream: Option<SendStream<Bytes>>,
        is_sidecar: bool,
        response: &mut Response<Received>,
    ) -> Result<Option<Box<Switch>>, FramingError> {
        let status = response.status();
        let (upstream, protocol) = match stream {
            // RFC 8441 §5: a 2xx is the switch.
            Some(send) if status.is_success() => {
                let Received::Http2(receive) = std::mem::replace(response.body_mut(), Received::Taken) else {
                    return Err(FramingError::WrongSwitch);
                };
                let stream = H2Stream::new(send, receive, is_sidecar);
                (Far::Stream(stream), HeaderValue::from_static(WEBSOCKET))
            }
            None if status == StatusCode::SWITCHING_PROTOCOLS => {
                let protocol = self.agreed(response.headers()).ok_or(FramingError::WrongSwitch)?;
                (Far::Connection(hyper::upgrade::on(response)), protocol)
            }
            Some(_) if status == StatusCode::SWITCHING_PROTOCOLS => return Err(FramingError::Switch),
            declined => {
                if let Some(mut stream) = declined {
                    // Nothing will follow. Fails only for a stream that has ended already.
                    drop(stream.send_data(Bytes::new(), true));
                }
                if is_sidecar {
                    restore_status(response);
                }
                let is_consent = response.status().is_success();
                let is_misread = is_consent && matches!(self.caller, Caller::Http2 { is_sidecar: false });
                return if is_misread { Err(FramingError::NoSwitch) } else { Ok(None) };
            }
        };
        Ok(Some(Box::new(Switch { upstream, protocol })))
    }

    /// The protocol that a 101 switches to, if it may.
    fn agreed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        match &self.protocol {
            Wanted::WebSocket(key) => {
                let mut accepts = headers.get_all(SEC_WEBSOCKET_ACCEPT).iter();
                // RFC 6455 §4.1: an absent or another value fails the connection.
                let is_proven = accepts.next().is_some_and(|accept| *accept == websocket::accept(key))
                    && accepts.next().is_none();
                upgrade::agreed(headers, &HeaderValue::from_static(WEBSOCKET)).filter(|_| is_proven)
            }
            Wanted::Other(protocols) => upgrade::agreed(headers, protocols),
        }
    }

    /// Makes a head, already cleaned, the one that tells the caller of the switch; returns its status.
    pub(super) fn consent(&self, headers: &mut HeaderMap, switch: &Switch) -> StatusCode {
        headers.remove(CONTENT_LENGTH);
        if let Wanted::WebSocket(_) = self.protocol {
            headers.remove(SEC_WEBSOCKET_ACCEPT);
        }
        let Caller::Http1(key) = &self.caller else { return StatusCode::OK };
        headers.insert(UPGRADE, switch.protocol.clone());
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        if let Some(key) = key {
            headers.insert(SEC_WEBSOCKET_ACCEPT, websocket::accept(key));
        }
        StatusCode::SWITCHING_PROTOCOLS
    }

    /// Makes a refusal's head, already cleaned, one that this caller takes for a refusal; returns its status.
    pub(super) fn refusal(&self, headers: &mut HeaderMap, status: StatusCode) -> StatusCode {
        if self.is_from_http1() || !status.is_success() {
            return status;
        }
        headers.insert(wire::DECLINED, HeaderValue::from(status.as_u16()));
        DECLINED
    }

    /// The caller's side, once it has got the answer.
    pub(super) fn into_downstream(self) -> OnUpgrade {
        self.downstream
    }
}

/// Takes the key out of a well-formed handshake of WebSocket (RFC 6455 §4.1).
fn take_key(request: &mut Request<Incoming>, wanted: &HeaderValue) -> Option<HeaderValue> {
    let is_asked = upgrade::is_only(wanted, WEBSOCKET)
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && request.headers().get(SEC_WEBSOCKET_KEY).is_some_and(websocket::is_key)
        && request.headers().get_all(SEC_WEBSOCKET_KEY).iter().nth(1).is_none();
    if is_asked { request.headers_mut().remove(SEC_WEBSOCKET_KEY) } else { None }
}

/// The status with which an app declined, where its sidecar could not say it so.
fn restore_status(response: &mut Response<Received>) {
    let declined = reserved::take(response.headers_mut(), wire::DECLINED);
    let status = declined.and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok());
    if let Some(status) = status.filter(StatusCode::is_success) {
        *response.status_mut() = status;
    }
}
