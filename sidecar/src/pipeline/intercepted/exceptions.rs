//! Ports where not everybody has to prove who they are: the first bytes tell who does.
//!
//! ```text
//!             ┌ ClientHello ─▶ mutual TLS, as at any port; with `app_tls` only if it is for us ──▶ else bytes to the app
//! first bytes ┤
//!             └ anything else ─▶ plaintext permitted: requests, or bytes to the app
//!                             ─▶ probes: requests for these paths alone, everything else 403
//!                             ─▶ reset
//! ```
//! Whatever is let in here is of somebody unknown: it is counted by its exception, bounded by its address, and judged
//! again for as long as it lasts, so that an exception that is taken away is over.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::BytesMut;

use crate::{
    buffer::{self, Prefixed},
    connect::counted::Counted,
    detect::{self, ClientHello, Spoken, Verdict},
    model::{
        Snapshot,
        closed::{Shed, Who},
        detection::How,
        listener::{Exception, Inbound, Protocol},
        runtime::Refusal,
        wire,
    },
    net::{Net, Stream},
    pipeline::{
        door::{Door, From},
        entrance::Accepted,
        http_connection::{self, Wire},
        live,
        proxied::Ends,
        serve::{Caller, Closed, serve_peer},
        tcp::Bare,
        worker::Worker,
    },
    tls::trust::Cut,
};

/// A client that is silent for so long may be waiting for an app that speaks first. One that speaks first itself has
/// its bytes right behind the handshake of TCP.
const SILENCE: Duration = Duration::from_millis(1);
/// How much is read to see whom a `ClientHello` is for, in bytes; a longer one is not. Ours take 2 KiB, with everything
/// that TLS libraries offer.
const MAX_HELLO_BYTES: usize = 16 * 1024;

/// `ContentType.handshake` (RFC 8446 §5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// What a connection is.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// One of the mesh: its other end is to prove who it is.
    Mesh,
    /// Requests of somebody, or bytes where there is no HTTP.
    Unproven(Exception, Option<Wire>),
}

/// Serves one connection to a port that has exceptions.
pub(super) async fn serve<N: Net>(
    worker: Arc<Worker<N>>,
    accepted: Accepted,
    snapshot: Arc<Snapshot>,
    inbound: Arc<Inbound>,
    caller: Caller<N::Stream>,
) {
    let (ends, original) = (caller.ends, caller.original);
    let address = ends.link.source;
    let (bytes, stream) = caller.stream.into_parts();
    let door = plain_door(&accepted, ends, original, Exception::Plaintext);
    let mut first = First { stream, address: address.ip(), bytes: bytes.into() };
    let mut bare = Bare::new(&worker, &door);
    // Boxed for its own time, as a handshake is.
    let told = Box::pin(tell(&worker, &door, &snapshot, &inbound, (&mut first, &mut bare))).await;
    let First { stream, bytes, .. } = first;
    let told = match told {
        Ok(told) => told,
        Err(closed) => {
            bare.cancel(&worker);
            stream.reset_on_close();
            return closed.count(&accepted, address);
        }
    };
    let stream = Prefixed::new(bytes.freeze(), stream);
    let Told::Unproven(exception, http) = told else {
        bare.cancel(&worker);
        let caller = Caller { stream, ends, original };
        return Box::pin(serve_peer(worker, accepted, snapshot, inbound, caller)).await;
    };
    let counts = Arc::clone(&accepted.entrance.counts);
    let max = snapshot.config.settings.limits.max_connections_per_peer;
    drop((door, snapshot, inbound));
    let Some(slot) = counts.closed.open_for(Who::Address(address.ip()), max) else {
        bare.cancel(&worker);
        stream.reset_on_close();
        return Closed::Shed(Shed::Peer).count(&accepted, address);
    };
    tracing::debug!(listener = accepted.name(), peer = %address, ?exception, "let in without a proven identity");
    let door = plain_door(&accepted, ends, original, exception).counted(slot.requests());
    let [plaintext, probe, app_tls] = &counts.exceptions;
    let counts = match exception {
        Exception::Plaintext => plaintext,
        Exception::Probe => probe,
        Exception::AppTls => app_tls,
    };
    let stream = Counted::new(stream, counts);
    match http {
        Some(wire) => {
            bare.cancel(&worker);
            let door = Arc::new(door);
            let live = live::connection(&worker, &door);
            let served = http_connection::serve(Arc::clone(&worker), Arc::clone(&door), stream, wire);
            tokio::select! {
                biased;
                () = served => {}
                () = live::over(&worker, live.as_ref()) => {}
            }
        }
        None => bare.carry(&worker, &door, stream, Cut::never()).await,
    }
}

fn plain_door(accepted: &Accepted, ends: Ends, original: Option<SocketAddr>, exception: Exception) -> Door {
    let from = From::Plain { address: ends.link.source.ip(), exception };
    Door::new(accepted.clone(), from).intercepted(original).between(ends)
}

/// What is known of a connection.
#[derive(Debug)]
struct Found {
    spoken: Option<Spoken>,
    how: How,
    /// It is TLS, and not for us.
    is_apps: bool,
}

/// A connection, and what was read of it.
#[derive(Debug)]
struct First<S> {
    stream: S,
    address: IpAddr,
    bytes: BytesMut,
}

impl<S: Stream> First<S> {
    /// Reads on, up to `max` bytes in all; whether there was more.
    async fn more(&mut self, max: usize) -> bool {
        matches!(buffer::append(&mut self.stream, &mut self.bytes, max).await, Ok(1..))
    }

    /// What the client speaks; `None` if its bytes end before they tell.
    async fn spoken(&mut self) -> Option<Spoken> {
        loop {
            match detect::client(&self.bytes, detect::MAX_BYTES) {
                Verdict::Decided(spoken) => return Some(spoken),
                Verdict::More if self.more(detect::MAX_BYTES).await => {}
                Verdict::More => return None,
            }
        }
    }

    /// Whether a `ClientHello` is for us.
    async fn is_for_the_mesh(&mut self) -> bool {
        loop {
            match ClientHello::parse(&self.bytes) {
                Ok(Some(hello)) => return hello.alpn.iter().any(|name| name.starts_with(wire::ALPN_PREFIX)),
                Ok(None) if self.bytes.len() < MAX_HELLO_BYTES && self.more(MAX_HELLO_BYTES).await => {}
                Ok(None) | Err(_) => return false,
            }
        }
    }

    /// Whether bytes that tell nothing yet can be those of a handshake alone.
    fn is_handshake(&self) -> bool {
        self.bytes.first() == Some(&HANDSHAKE_RECORD)
    }
}

/// Tells what a connection is, within the time that a handshake has and as one of those under way.
async fn tell<N: Net>(
    worker: &Worker<N>,
    door: &Door,
    snapshot: &Snapshot,
    inbound: &Inbound,
    (first, bare): (&mut First<N::Stream>, &mut Bare<N>),
) -> Result<Told, Closed> {
    let since = worker.now();
    let place = worker.handshakes.begin(first.address, since).ok_or(Closed::Shed(Shed::Handshakes))?;
    let limit = snapshot.config.settings.limits.handshake_timeout;
    let (exceptions, now) = (&inbound.exceptions, worker.clock.wall());
    let permits_plaintext = door.whence().into_iter().all(|from| exceptions.permits_plaintext(from, now));
    let is_open = |exception| door.whence().into_iter().all(|from| exceptions.is_open(exception, from, now));
    let (probes, app_tls) = (is_open(Exception::Probe), is_open(Exception::AppTls));
    let may_be_bytes = permits_plaintext && inbound.protocol != Protocol::Http;
    let found = async {
        // What a proxy before us sent in one piece with its header is there already.
        if may_be_bytes && first.bytes.is_empty() {
            let app_speaks_first = async {
                tokio::time::sleep(SILENCE).await;
                bare.app_speaks_first(worker, door).await;
            };
            tokio::select! {
                biased;
                _spoke_or_ended = first.more(detect::MAX_BYTES) => {}
                () = app_speaks_first => return Found { spoken: Some(Spoken::Opaque), how: How::Server, is_apps: false },
            }
        }
        let spoken = first.spoken().await;
        let how = if spoken.is_some() { How::Client } else { How::SilentEnd };
        let may_be_apps = spoken == Some(Spoken::Tls) && app_tls;
        Found { spoken, how, is_apps: may_be_apps && !first.is_for_the_mesh().await }
    };
    let in_vain = Found { spoken: None, how: How::Timeout, is_apps: false };
    let Found { spoken, how, is_apps } = tokio::select! {
        biased;
        found = tokio::time::timeout(limit, found) => found.unwrap_or(in_vain),
        () = place.given_up() => return Err(Closed::Shed(Shed::Handshakes)),
    };
    let elapsed = worker.now().saturating_duration_since(since);
    door.counts().detections.record(spoken, how, elapsed);
    let refused = |reason| Err(Closed::Refused(reason, format!("{spoken:?} ({how:?})")));
    match spoken {
        Some(Spoken::Tls) if is_apps => Ok(Told::Unproven(Exception::AppTls, None)),
        Some(Spoken::Tls) => Ok(Told::Mesh),
        Some(spoken) => plaintext(inbound.protocol, spoken, (permits_plaintext, probes))
            .map_or_else(|| refused(Refusal::Plaintext), Ok),
        // What may still become a request is not carried as if it could not: its head would pass as it is.
        None if how == How::Timeout => refused(Refusal::Timeout),
        None if may_be_bytes && !first.is_handshake() => Ok(Told::Unproven(Exception::Plaintext, None)),
        None => Ok(Told::Mesh),
    }
}

/// What plaintext is let in as; `None`: not at all.
fn plaintext(
    protocol: Protocol,
    spoken: Spoken,
    (permits_plaintext, permits_probes): (bool, bool),
) -> Option<Told> {
    let is_http = matches!(spoken, Spoken::Http1 | Spoken::Http2);
    // HTTP/2 with prior knowledge is told by its first bytes once more: ALPN stands for a peer of the mesh.
    let wire = if spoken == Spoken::Http1 { Wire::Http1 } else { Wire::Sniffed };
    if permits_plaintext && is_http && protocol != Protocol::Tcp {
        return Some(Told::Unproven(Exception::Plaintext, Some(wire)));
    }
    if permits_plaintext && protocol != Protocol::Http {
        return Some(Told::Unproven(Exception::Plaintext, None));
    }
    (spoken == Spoken::Http1 && permits_probes).then_some(Told::Unproven(Exception::Probe, Some(wire)))
}
