//! Live connections and the trust they stand on: a root that is taken out of the bundle closes what it vouched for.
//!
//! A handshake proves a peer once, and connections live for days. So each connection with a peer is registered with the
//! chain that the peer showed and the bundles that it was held against. When the snapshot holds other bundles, the
//! worker's sweeper has the chains verified again, and connections whose chain leads to no trusted root are cut.
//!
//! ```text
//!   handshake ──hold()──▶ Guard ──cut()──▶ Cut: a future for whoever owns the connection
//!                           │ check(): an I/O error for whoever reads or writes
//!   sweeper ──judge()───────┘
//! ```
//! # Invariants
//! - Time alone cuts nothing: renewal never touches live connections (`design.md` §6), so a certificate, of either side,
//!   that runs out while connected says nothing about the peer. Chains are therefore verified at this moment *or* at
//!   that of their handshake; at the latter, only the bundles can have made a difference.
//! - A handshake begun with old bundles and ended after a change is judged too: what counts is what each connection was
//!   held against, not when it was registered.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::SystemTime,
};

use futures_util::task::AtomicWaker;
use outrider_certs::{
    trust_bundle::TrustBundles,
    verify::{self, Role},
};
use rustls::pki_types::CertificateDer;

use crate::{clock::Clock, model::status::IdentityStatus};

/// Chains verified between two yields: a few milliseconds in which the worker does nothing else.
const CHAINS_AT_A_TIME: usize = 16;

/// The live connections of one worker with peers. Bounded as connections are; each entry holds the peer's chain, at most
/// the 64 KiB that rustls takes, usually one kilobyte.
#[derive(Debug)]
pub struct Registry {
    clock: Clock,
    status: Arc<IdentityStatus>,
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    next: u64,
    /// By age, so that connections are cut in the same order in every run of a simulation.
    entries: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// What the chain was last held against.
    bundles: Arc<TrustBundles>,
    held: Arc<Held>,
}

#[derive(Debug)]
struct Held {
    chain: Box<[CertificateDer<'static>]>,
    /// The peer's.
    role: Role,
    /// Wall time of the handshake.
    since: SystemTime,
    is_cut: AtomicBool,
    /// One is enough: all I/O of a connection, and the wait for its cut, are in one task.
    owner: AtomicWaker,
}

/// A registered connection, until it is dropped. Belongs to whoever owns the connection.
#[derive(Debug)]
pub struct Guard {
    registry: Arc<Registry>,
    number: u64,
    held: Arc<Held>,
}

/// Resolves when the connection must be closed at once. Await it only in the task that does the connection's I/O.
#[derive(Clone, Debug)]
pub struct Cut(Option<Arc<Held>>);

impl Registry {
    /// A registry without connections; what it cuts is counted in `status`.
    #[must_use]
    pub fn new(clock: Clock, status: Arc<IdentityStatus>) -> Arc<Self> {
        Arc::new(Self { clock, status, live: Mutex::default() })
    }

    /// Registers a connection after its handshake, in which `chain` was verified against `bundles` for a peer in `role`.
    #[must_use]
    pub fn hold(
        self: &Arc<Self>,
        chain: &[CertificateDer<'static>],
        role: Role,
        bundles: &Arc<TrustBundles>,
    ) -> Guard {
        let held = Arc::new(Held {
            chain: chain.into(),
            role,
            since: self.clock.wall(),
            is_cut: AtomicBool::new(false),
            owner: AtomicWaker::new(),
        });
        let mut live = self.lock();
        let number = live.next;
        live.next += 1;
        live.entries.insert(number, Entry { bundles: Arc::clone(bundles), held: Arc::clone(&held) });
        drop(live);
        Guard { registry: Arc::clone(self), number, held }
    }

    /// Cuts the connections whose peers `bundles` do not vouch for. Call it about once a second with the newest: while
    /// they are the same, it compares pointers only.
    pub async fn judge(&self, bundles: &Arc<TrustBundles>) {
        let due = self.due(bundles);
        let now = self.clock.wall();
        let mut cut = 0_u64;
        for some in due.chunks(CHAINS_AT_A_TIME) {
            for held in some.iter().filter(|held| !held.is_trusted(bundles, now)) {
                // Counted first: whoever sees the connection closed finds it counted.
                self.status.trust_cuts.fetch_add(1, Ordering::Relaxed);
                held.cut();
                cut += 1;
            }
            tokio::task::yield_now().await;
        }
        if cut > 0 {
            tracing::warn!(cut, "closing connections of peers that no root of the trust bundle vouches for");
        }
    }

    /// What was not yet held against `bundles`.
    fn due(&self, bundles: &Arc<TrustBundles>) -> Vec<Arc<Held>> {
        let mut due = Vec::new();
        for entry in self.lock().entries.values_mut() {
            if Arc::ptr_eq(&entry.bundles, bundles) {
                continue;
            }
            // A renewal of our own certificate brings equal bundles.
            if entry.bundles != *bundles && !entry.held.is_cut() {
                due.push(Arc::clone(&entry.held));
            }
            entry.bundles = Arc::clone(bundles);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn is_trusted(&self, bundles: &TrustBundles, now: SystemTime) -> bool {
        [now, self.since].into_iter().any(|time| verify::peer(&self.chain, bundles, self.role, time).is_ok())
    }

    fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.owner.wake();
    }

    /// Whether it is cut; if not, the task of `cx` is woken when it is.
    fn poll_cut(&self, cx: &Context<'_>) -> bool {
        self.owner.register(cx.waker());
        self.is_cut()
    }
}

impl Guard {
    /// For the connection's owner to wait for beside its work.
    #[must_use]
    pub fn cut(&self) -> Cut {
        Cut(Some(Arc::clone(&self.held)))
    }

    /// To be asked before each read and write.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] once the connection is cut. Until then, the task of `cx` is woken by the cut.
    pub fn check(&self, cx: &Context<'_>) -> io::Result<()> {
        if self.held.poll_cut(cx) {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "the peer is no longer trusted"));
        }
        Ok(())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.registry.lock().entries.remove(&self.number);
    }
}

impl Cut {
    /// For a connection that stands on no trust, as that of the own app.
    #[must_use]
    pub fn never() -> Self {
        Self(None)
    }
}

impl Future for Cut {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &self.0 {
            Some(held) if held.poll_cut(cx) => Poll::Ready(()),
            Some(_) | None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests;
