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
        serve::{Caller, Closed, serve_peer},
        tcp::Bare,
        worker::Worker,
    },
};

/// A client that is silent for so long may be waiting for an app that speaks first. One that speaks first itself has
/// its bytes right behind the handshake of TCP.
const SILENCE: Duration = Duration::from_millis(1);
/// How often a connection that came by an exception is judged again, whatever it carries: as often as trust in peers is.
const JUDGE_INTERVAL: Duration = Duration::from_secs(1);
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
    let (address, original) = (caller.address, caller.original);
    let (_, stream) = caller.stream.into_parts();
    let door = plain_door(&accepted, address, original, Exception::Plaintext);
    let mut first = First { stream, address: address.ip(), bytes: BytesMut::new() };
    let mut bare = Bare::new(&worker, &door);
    // Boxed for its own time, as a handshake is.
    let told = Box::pin(tell(&worker, &door, &snapshot, &inbound, (&mut first, &mut bare))).await;
    let First { stream, bytes, .. } = first;
    let told = match told {
        Ok(told) => told,
        Err(closed) => {
            bare.cancel();
            stream.reset_on_close();
            return closed.count(&accepted, address);
        }
    };
    let stream = Prefixed::new(bytes.freeze(), stream);
    let Told::Unproven(exception, http) = told else {
        bare.cancel();
        let caller = Caller { stream, address, original };
        return Box::pin(serve_peer(worker, accepted, snapshot, inbound, caller)).await;
    };
    let counts = Arc::clone(&accepted.entrance.counts);
    let max = snapshot.config.settings.limits.max_connections_per_peer;
    drop((door, snapshot, inbound));
    let Some(_slot) = counts.closed.open_for(Who::Address(address.ip()), max) else {
        bare.cancel();
        stream.reset_on_close();
        return Closed::Shed(Shed::Peer).count(&accepted, address);
    };
    tracing::debug!(listener = accepted.name(), peer = %address, ?exception, "let in without a proven identity");
    let door = plain_door(&accepted, address, original, exception);
    let [plaintext, probe, app_tls] = &counts.exceptions;
    let counts = match exception {
        Exception::Plaintext => plaintext,
        Exception::Probe => probe,
        Exception::AppTls => app_tls,
    };
    let stream = Counted::new(stream, counts);
    match http {
        Some(wire) => {
            bare.cancel();
            let door = Arc::new(door);
            let served = http_connection::serve(Arc::clone(&worker), Arc::clone(&door), stream, wire);
            tokio::select! {
                biased;
                () = served => {}
                () = outstayed(&worker, &door, exception) => {}
            }
        }
        None => bare.carry(&worker, &door, stream, taken_away(&worker, &door, exception)).await,
    }
}

fn plain_door(
    accepted: &Accepted,
    address: SocketAddr,
    original: Option<SocketAddr>,
    exception: Exception,
) -> Door {
    let door = Door::new(accepted.clone(), From::Plain { address: address.ip(), exception });
    match original {
        Some(original) => door.intercepted(original),
        None => door,
    }
}

/// Resolves when the exception that a connection came in by holds no more.
async fn taken_away<N: Net>(worker: &Worker<N>, door: &Door, exception: Exception) {
    let is_open = || {
        let snapshot = door.load(&worker.snapshots);
        let now = worker.clock.wall();
        door.inbound(&snapshot).is_some_and(|inbound| inbound.exceptions.is_open(exception, now))
    };
    while is_open() {
        tokio::time::sleep(JUDGE_INTERVAL).await;
    }
}

/// Resolves when that is so, and what was under way has had as long as in a drain. What begins after it is answered with
/// 403; but a connection that has left HTTP begins nothing.
async fn outstayed<N: Net>(worker: &Worker<N>, door: &Door, exception: Exception) {
    taken_away(worker, door, exception).await;
    let deadline = door.load(&worker.snapshots).config.settings.drain.deadline;
    tokio::time::sleep(deadline).await;
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
    let permits_plaintext = inbound.exceptions.permits_plaintext(worker.clock.wall());
    let may_be_bytes = permits_plaintext && inbound.protocol != Protocol::Http;
    let found = async {
        if may_be_bytes {
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
        let may_be_apps = spoken == Some(Spoken::Tls) && inbound.exceptions.app_tls;
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
        Some(spoken) => {
            plaintext(inbound, spoken, permits_plaintext).map_or_else(|| refused(Refusal::Plaintext), Ok)
        }
        // What may still become a request is not carried as if it could not: its head would pass as it is.
        None if how == How::Timeout => refused(Refusal::Timeout),
        None if may_be_bytes && !first.is_handshake() => Ok(Told::Unproven(Exception::Plaintext, None)),
        None => Ok(Told::Mesh),
    }
}

/// What plaintext is let in as; `None`: not at all.
fn plaintext(inbound: &Inbound, spoken: Spoken, permits_plaintext: bool) -> Option<Told> {
    let is_http = matches!(spoken, Spoken::Http1 | Spoken::Http2);
    // HTTP/2 with prior knowledge is told by its first bytes once more: ALPN stands for a peer of the mesh.
    let wire = if spoken == Spoken::Http1 { Wire::Http1 } else { Wire::Sniffed };
    if permits_plaintext && is_http && inbound.protocol != Protocol::Tcp {
        return Some(Told::Unproven(Exception::Plaintext, Some(wire)));
    }
    if permits_plaintext && inbound.protocol != Protocol::Http {
        return Some(Told::Unproven(Exception::Plaintext, None));
    }
    let may_be_probe = spoken == Spoken::Http1 && !inbound.exceptions.probes.is_empty();
    may_be_probe.then_some(Told::Unproven(Exception::Probe, Some(wire)))
}
