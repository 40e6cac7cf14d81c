//! What is under way for the own app, and whether it still may be: judged again when the rules change.
//!
//! A request is judged when it begins, and may last for days. So what comes from others is registered for as long as it
//! lasts, with what it asked for. When another configuration is in force (or for those who came by an exception, whose day
//! may be over, each time), the worker's sweeper judges all of it by the newest snapshot, and ends
//! what the rules allow no more:
//!
//! ```text
//!   admitted ──hold()──▶ Guard ──▶ a request without an answer: 403; with one: trailers of gRPC, or broken off
//!                          │       a stream, a connection that has left HTTP: reset
//!   sweeper ──judge()──────┘       a connection whose peer may not connect any more: closed, a little later
//! ```
//! What is still allowed is not touched.

use std::{
    future::{Future, poll_fn},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::{Duration, SystemTime},
};

use http::request::Parts;
use slab::Slab;

use super::{
    door::{Door, From},
    entrance::Accepted,
    error::ProxyError,
    worker::Worker,
};
use crate::{
    authz::{self, Fields, Kept, Verdict},
    canonical,
    model::{
        Snapshot,
        authorization::{Authorization, Mode},
        closed::Revoked,
        listener::{self, Exception, Inbound, Protocol},
    },
    net::Net,
    relay::permit::Permit,
};

/// Judged between two yields: each is compared with some hundred rules at worst.
const AT_A_TIME: usize = 64;
/// A connection of somebody who may not connect any more is closed after this: what was under way on it can end in its own
/// way, and whoever is let in again at once loses nothing.
const LINGER: Duration = Duration::from_secs(1);

/// Why something was ended that had been allowed when it began.
pub(super) const REASON: &str = "no_longer_allowed";

/// What is under way for the own app in one worker. Bounded as connections, streams and requests are.
#[derive(Debug, Default)]
pub struct Live(Mutex<Slab<Entry>>);

#[derive(Debug)]
struct Entry {
    /// The generation whose rules it was judged by last.
    generation: u64,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    /// Where it is registered.
    live: Arc<Live>,
    key: usize,
    caller: Arc<Caller>,
    what: What,
    /// It was a request, and bytes have followed that nobody looks at.
    is_bytes_by_now: AtomicBool,
    permit: Permit,
}

/// Who is there, and where they came in: of one connection.
#[derive(Debug)]
pub(super) struct Caller {
    accepted: Accepted,
    from: From,
    original: Option<SocketAddr>,
    /// From where, by the network's word and by a proxy's.
    whence: [IpAddr; 2],
}

/// What is under way.
#[derive(Debug)]
enum What {
    Connection,
    /// An opaque stream.
    Bytes,
    Request(Kept, IsBare),
}

type IsBare = bool;

/// Something that is registered, until this is dropped.
#[derive(Debug)]
pub(super) struct Guard(Arc<Held>);

impl Live {
    fn hold(self: &Arc<Self>, caller: &Arc<Caller>, generation: u64, what: What) -> Guard {
        let mut entries = self.lock();
        let entry = entries.vacant_entry();
        let (live, key) = (Arc::clone(self), entry.key());
        let (caller, is_bytes_by_now) = (Arc::clone(caller), AtomicBool::new(false));
        let held = Arc::new(Held { live, key, caller, what, is_bytes_by_now, permit: Permit::default() });
        entry.insert(Entry { generation, held: Arc::clone(&held) });
        Guard(held)
    }

    /// Judges what was judged by other rules, and ends what is allowed no more. Call it about once a second.
    pub(super) async fn judge<N: Net>(&self, worker: &Worker<N>) {
        let due = self.due(worker.snapshots.load().config.rules);
        let mut ended = [0_u64; Revoked::ALL.len()];
        for some in due.chunks(AT_A_TIME) {
            for held in some.iter().filter(|held| !held.may(worker)) {
                let kind = held.what.kind();
                let counts = &held.caller.accepted.entrance.counts.revoked;
                if let (Some(all), Some(count)) = (ended.get_mut(kind as usize), counts.get(kind as usize)) {
                    // Counted first: whoever sees it ended finds it counted.
                    count.fetch_add(1, Ordering::Relaxed);
                    *all += 1;
                }
                held.permit.revoke();
            }
            tokio::task::yield_now().await;
        }
        let [connections, requests, streams] = ended;
        if ended.iter().any(|count| *count > 0) {
            tracing::warn!(connections, requests, streams, "ending what is under way and allowed no more");
        }
    }

    /// What is to be judged under the generation of that number.
    fn due(&self, number: u64) -> Vec<Arc<Held>> {
        let mut due = Vec::new();
        for (_, Entry { generation, held }) in &mut *self.lock() {
            // What somebody unknown may do depends on the day, too.
            let is_due = *generation != number || matches!(held.caller.from, From::Plain { .. });
            *generation = number;
            if is_due && !held.permit.is_revoked() {
                due.push(Arc::clone(held));
            }
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl What {
    fn kind(&self) -> Revoked {
        match self {
            Self::Connection => Revoked::Connection,
            Self::Bytes => Revoked::Stream,
            Self::Request(..) => Revoked::Request,
        }
    }
}

impl Held {
    /// Whether it may go on, by the newest snapshot.
    fn may<N: Net>(&self, worker: &Worker<N>) -> bool {
        // What somebody unknown may have is said of the request as a whole.
        let is_stream =
            self.is_bytes_by_now.load(Ordering::Acquire) && matches!(self.caller.from, From::Peer { .. });
        self.caller.may(worker, &self.what) && (!is_stream || self.caller.may(worker, &What::Bytes))
    }
}

impl Caller {
    pub(super) fn new(
        accepted: Accepted,
        from: From,
        (original, whence): (Option<SocketAddr>, [IpAddr; 2]),
    ) -> Self {
        Self { accepted, from, original, whence }
    }

    /// Whether that may go on, by the newest snapshot, also where the listener's life has ended.
    fn may<N: Net>(&self, worker: &Worker<N>, what: &What) -> bool {
        let successor = self.accepted.successor(&worker.snapshots);
        let snapshot = successor.unwrap_or_else(|| self.accepted.load(&worker.snapshots));
        let inbound = self.accepted.listener(&snapshot).inbound(self.original);
        // A listener for the own app alone has no rules.
        inbound.is_none_or(|inbound| self.is_allowed(&snapshot, inbound, what, || worker.clock.wall()))
    }

    fn is_allowed(
        &self,
        snapshot: &Snapshot,
        inbound: &Inbound,
        what: &What,
        now: impl Fn() -> SystemTime,
    ) -> bool {
        let settings = &snapshot.config.settings;
        match &self.from {
            From::App { .. } => true,
            From::Peer { peer, .. } => {
                let rules = settings.authorization.as_deref();
                if !inbound.allows(peer.id(), &settings.bootstrap.trust_domain, rules) {
                    return false;
                }
                let asked = match what {
                    // Where nothing but bytes is carried, that is all that can be asked for.
                    What::Connection if inbound.protocol == Protocol::Tcp => authz::Asked::Stream,
                    What::Connection => return true,
                    What::Bytes => authz::Asked::Stream,
                    What::Request(kept, _) => kept.asked(),
                };
                let port = inbound.app_port(self.original);
                match authz::verdict(settings, inbound, peer.id(), port, asked) {
                    Some(Verdict::Allowed(_)) => rules.is_none_or(|rules| is_clear(rules, port, asked)),
                    Some(verdict @ (Verdict::Denied | Verdict::Audited)) => verdict.passes(),
                    None => true,
                }
            }
            From::Plain { exception, .. } => {
                let from_all = |may: &dyn Fn(IpAddr) -> bool| self.whence.into_iter().all(may);
                let asked = match what {
                    // Whatever may be asked on it.
                    What::Connection => {
                        return from_all(&|from| inbound.exceptions.is_open(Exception::Probe, from, now()));
                    }
                    What::Bytes => listener::Asked::Bytes,
                    What::Request(kept, is_bare) => match kept.asked() {
                        authz::Asked::Stream => listener::Asked::Bytes,
                        authz::Asked::Request(request) => listener::Asked::Request {
                            method: request.method.as_str(),
                            path: request.path,
                            is_bare: *is_bare,
                        },
                    },
                };
                from_all(&|from| inbound.permits((*exception, from), asked, now()))
            }
        }
    }
}

/// Whether the path has the one spelling that these rules ask for: the app has got it as it was judged then.
fn is_clear(rules: &Authorization, port: u16, asked: authz::Asked<'_>) -> bool {
    match (rules.mode(), asked) {
        (Mode::Audit, _) | (_, authz::Asked::Stream) => true,
        (Mode::Enforce, authz::Asked::Request(request)) => {
            canonical::path(request.path, rules.care(port)).is_ok_and(|clear| clear == request.path)
        }
    }
}

/// The path of a request as it was sent, where that is what it is judged by: of somebody unknown.
pub(super) fn sent(door: &Door, head: &Parts) -> Option<Box<str>> {
    matches!(door.from, From::Plain { .. }).then(|| head.uri.path().into())
}

/// Registers a request that was allowed by that snapshot, and whose head is in its one spelling; `None` for the own app's.
pub(super) fn request<N: Net>(
    (worker, door): (&Worker<N>, &Door),
    snapshot: &Snapshot,
    (head, authority, is_bare): (&Parts, &str, bool),
    sent: Option<Box<str>>,
) -> Option<Guard> {
    if !door.is_inbound() {
        return None;
    }
    let rules = snapshot.config.settings.authorization.as_deref();
    let fields = rules.map(|rules| Fields::of(&head.headers, rules)).unwrap_or_default();
    let method = authz::Request::method(&head.method);
    let path = sent.as_deref().unwrap_or(head.uri.path());
    let request = authz::Request { method, path, authority, fields: &fields };
    let what = What::Request(Kept::from(authz::Asked::Request(request)), is_bare);
    Some(worker.live.hold(door.caller(), snapshot.config.rules, what))
}

/// Registers an opaque stream that is about to be admitted.
pub(super) fn stream<N: Net>(worker: &Worker<N>, door: &Door) -> Option<Guard> {
    hold(worker, door, What::Bytes)
}

/// Registers a connection that was just let in.
pub(super) fn connection<N: Net>(worker: &Worker<N>, door: &Door) -> Option<Guard> {
    hold(worker, door, What::Connection)
}

/// The generation is that of the connection's beginning: it is judged once more if that is not the newest.
fn hold<N: Net>(worker: &Worker<N>, door: &Door, what: What) -> Option<Guard> {
    door.is_inbound().then(|| worker.live.hold(door.caller(), door.accepted.generation(), what))
}

/// Awaits an answer for as long as its request may be asked. `run` is pinned by the caller, so that it is there once.
///
/// # Errors
/// Those of `run`; [`ProxyError::NoLongerAllowed`].
pub(super) fn until<T>(
    guard: Option<&Guard>,
    mut run: Pin<&mut impl Future<Output = Result<T, ProxyError>>>,
) -> impl Future<Output = Result<T, ProxyError>> {
    poll_fn(move |cx| match run.as_mut().poll(cx) {
        Poll::Pending if guard.is_some_and(|guard| guard.0.permit.poll_revoked(cx)) => {
            Poll::Ready(Err(ProxyError::NoLongerAllowed))
        }
        polled @ (Poll::Pending | Poll::Ready(_)) => polled,
    })
}

/// Resolves when what is registered may not go on; for what is not, never.
pub(super) async fn revoked(guard: Option<&Guard>) {
    match guard {
        Some(guard) => guard.0.permit.revoked().await,
        None => std::future::pending().await,
    }
}

/// What `one` comes to; `None` if the other is over before.
pub(super) async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = ()>) -> Option<T> {
    tokio::select! {
        biased;
        () = other => None,
        done = one => Some(done),
    }
}

/// Whether what is registered may not go on.
pub(super) fn is_revoked(guard: Option<&Guard>) -> bool {
    guard.is_some_and(|guard| guard.0.permit.is_revoked())
}

/// Resolves when a connection is to be closed: its peer may not connect any more, and what was under way has had the time
/// to end.
pub(super) async fn over<N: Net>(worker: &Worker<N>, guard: Option<&Guard>) {
    loop {
        revoked(guard).await;
        tokio::time::sleep(LINGER).await;
        let Some(Guard(held)) = guard else { return };
        // Before it is judged: what takes it away once more is not lost.
        held.permit.renew();
        if !held.may(worker) {
            return;
        }
    }
}

impl Guard {
    /// The leave to go on.
    pub(super) fn permit(&self) -> Permit {
        self.0.permit.clone()
    }

    /// The request has become a stream of bytes that nobody looks at: from here on it has to be allowed as that, too.
    pub(super) fn becomes_bytes(&self) {
        let held = &self.0;
        held.is_bytes_by_now.store(true, Ordering::Release);
        // The rules may have changed since it was found that it may: it is judged once more, if they have.
        if let Some(entry) = held.live.lock().get_mut(held.key) {
            entry.generation = held.caller.accepted.generation();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.0.live.lock().try_remove(self.0.key));
    }
}
