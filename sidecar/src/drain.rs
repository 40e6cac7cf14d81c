//! Drain: stop taking new work, finish the old within a deadline; and the only way to start a task.
//!
//! ```text
//!            advance             advance            advance
//!   Running ─────────▶ Draining ─────────▶ Closing ─────────▶ Forced
//!                          ╰──────────────────────────────────▶╯
//! ```
//! *Draining*: not ready, listeners closed, `Connection: close` and GOAWAY go out, what is in flight goes on.
//! *Closing*: the grace for idle connections of the own app is over; they are closed as well.
//! *Forced*: all is done, or the deadline passed; everything left is dropped.
//!
//! `advance` may skip phases and never goes back.

use std::{future::Future, sync::Arc};

use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

use crate::model::Listener;

/// How far the drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Taking new work.
    Running,
    /// Listeners are closed; idle keep-alive connections of the own app are still served.
    Draining,
    /// Idle connections are closed too.
    Closing,
    /// Everything left is dropped.
    Forced,
}

/// Starts and observes a drain. Clones share it.
#[derive(Clone, Debug)]
pub struct Drain {
    phase: Arc<watch::Sender<Phase>>,
    /// What brings new work in; it must have ended before "no work is left" means anything.
    sources: TaskTracker,
    tasks: TaskTracker,
}

/// A drain per direction: a pod that ends takes no new calls while its app may still make some. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Drains {
    /// Calls of peers to the own app.
    pub inbound: Drain,
    /// Calls of the own app.
    pub outbound: Drain,
}

impl Drains {
    /// The drain of a listener's direction.
    #[must_use]
    pub fn of(&self, listener: &Listener) -> &Drain {
        if listener.is_inbound() { &self.inbound } else { &self.outbound }
    }

    /// Moves both on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.inbound.advance(phase);
        self.outbound.advance(phase);
    }

    /// How far the one that is further has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.inbound.phase().max(self.outbound.phase())
    }

    /// What both wait for.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.inbound.in_flight() + self.outbound.in_flight()
    }

    /// Waits until everything in flight has ended, in both directions.
    pub async fn finished(&self) {
        self.inbound.finished().await;
        self.outbound.finished().await;
    }
}

/// Tells a task how far the drain has come; cheap to clone.
#[derive(Clone, Debug)]
pub struct Watcher {
    phase: watch::Receiver<Phase>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    /// A drain that has not begun.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Arc::new(watch::Sender::new(Phase::Running)),
            sources: TaskTracker::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.phase.send_if_modified(|current| {
            let moves = phase > *current;
            if moves {
                *current = phase;
            }
            moves
        });
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// A watcher for a task.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { phase: self.phase.subscribe() }
    }

    /// Tasks that are still alive: what a drain waits for.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.tasks.len()
    }

    /// Says that more may come, until the token is dropped: a drain waits for it, but it is not in flight. For what
    /// brings new work in, such as an accept loop.
    pub fn source(&self) -> TaskTrackerToken {
        self.sources.token()
    }

    /// Starts a task that a drain waits for and that ends when the drain is forced. Must be called inside a runtime;
    /// the task runs on that one.
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut watcher = self.watcher();
        tokio::spawn(self.tasks.track_future(async move {
            tokio::select! {
                biased;
                () = task => {}
                () = watcher.reached(Phase::Forced) => {}
            }
        }));
    }

    /// Waits until nothing brings in more and everything in flight has ended.
    pub async fn finished(&self) {
        self.sources.close();
        self.sources.wait().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Starts a task that serves the process itself (control loops, admin): a drain does not wait for it, and it ends
/// with its runtime.
#[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
pub fn spawn_background<F>(task: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    // The handle is dropped on purpose: background tasks end with the runtime.
    drop(tokio::spawn(task));
}

impl Watcher {
    /// How far the drain has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Waits until the drain has come as far as `phase`. Cancel-safe. If the drain is gone (the process is being torn
    /// down), it counts as forced.
    pub async fn reached(&mut self, phase: Phase) {
        // An error means that the sender is gone, which is the end of the process: nothing to wait for.
        drop(self.phase.wait_for(|current| *current >= phase).await);
    }
}
