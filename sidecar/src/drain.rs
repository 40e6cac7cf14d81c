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
//! `advance` may skip phases and never goes back. A [`child`](Drain::child) is drained with its parent, and can be
//! drained alone: one listener among others.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use futures_util::FutureExt as _;
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
    own: Arc<Own>,
    /// What brings new work in; it must have ended before "no work is left" means anything. A child's are its parent's.
    sources: TaskTracker,
    /// A child's are its parent's.
    tasks: TaskTracker,
}

/// What a drain has for itself.
#[derive(Debug)]
struct Own {
    phase: watch::Sender<Phase>,
    /// Those that are still in use.
    children: Mutex<Vec<Weak<Own>>>,
}

impl Own {
    fn new(phase: Phase) -> Arc<Self> {
        Arc::new(Self { phase: watch::Sender::new(phase), children: Mutex::default() })
    }

    fn advance(&self, phase: Phase) {
        // Held until all are told, so that a child made meanwhile does not miss it.
        let children = self.children();
        self.phase.send_if_modified(|current| {
            let moves = phase > *current;
            if moves {
                *current = phase;
            }
            moves
        });
        children.iter().filter_map(Weak::upgrade).for_each(|child| child.advance(phase));
    }

    fn children(&self) -> MutexGuard<'_, Vec<Weak<Self>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    /// Whoever is watched stays, also when only its tasks are left.
    _own: Arc<Own>,
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
        Self { own: Own::new(Phase::Running), sources: TaskTracker::new(), tasks: TaskTracker::new() }
    }

    /// A drain that is as far as this one, goes on with it, and can be advanced alone. This one waits for what is
    /// started with the child.
    #[must_use]
    pub fn child(&self) -> Self {
        let mut children = self.own.children();
        children.retain(|child| child.strong_count() > 0);
        let own = Own::new(self.phase());
        children.push(Arc::downgrade(&own));
        Self { own, sources: self.sources.clone(), tasks: self.tasks.clone() }
    }

    /// Moves on to `phase`; going back is ignored.
    pub fn advance(&self, phase: Phase) {
        self.own.advance(phase);
    }

    /// How far it has come.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.own.phase.borrow()
    }

    /// A watcher for a task.
    #[must_use]
    pub fn watcher(&self) -> Watcher {
        Watcher { phase: self.own.phase.subscribe(), _own: Arc::clone(&self.own) }
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
            let mut task = pin!(task);
            tokio::select! {
                biased;
                () = &mut task => {}
                // It may have been asked a moment before. If it watches for the same, it can say why it ends.
                () = watcher.reached(Phase::Forced) => drop(task.now_or_never()),
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

    /// Waits until the drain has come as far as `phase`. Cancel-safe.
    pub async fn reached(&mut self, phase: Phase) {
        // The watched drain lives as long as its watchers, so this ends only when the phase is reached.
        drop(self.phase.wait_for(|current| *current >= phase).await);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, task::Poll};

    use super::*;

    #[tokio::test]
    async fn a_child_goes_with_its_parent_and_can_go_alone() {
        let parent = Drain::new();
        let (early, other) = (parent.child(), parent.child());
        early.advance(Phase::Draining);
        assert_eq!((early.phase(), other.phase()), (Phase::Draining, Phase::Running));
        assert_eq!(parent.phase(), Phase::Running);
        parent.advance(Phase::Closing);
        assert_eq!((early.phase(), other.phase()), (Phase::Closing, Phase::Closing));
        assert_eq!(parent.child().phase(), Phase::Closing, "a late one is as far");
    }

    #[tokio::test]
    async fn a_task_that_watches_for_the_same_ends_in_its_own_way() {
        let drain = Drain::new();
        let (forcing, (end, ended)) = (drain.clone(), tokio::sync::oneshot::channel());
        let mut end = Some(end);
        // The drain is forced just after it has looked.
        drain.spawn(poll_fn(move |_| match forcing.phase() {
            Phase::Forced => {
                if let Some(end) = end.take() {
                    end.send(()).unwrap();
                }
                Poll::Ready(())
            }
            Phase::Running | Phase::Draining | Phase::Closing => {
                forcing.advance(Phase::Forced);
                Poll::Pending
            }
        }));
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_parent_waits_for_its_childrens_tasks_also_when_nobody_holds_the_child() {
        let parent = Drain::new();
        let child = parent.child();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        child.spawn(async move { drop(ended.await) });
        drop(child);
        tokio::task::yield_now().await;
        assert_eq!(parent.in_flight(), 1);
        assert!(parent.finished().now_or_never().is_none());
        parent.advance(Phase::Draining);
        assert_eq!(parent.in_flight(), 1, "what is in flight goes on");
        drop(end);
        parent.finished().await;
    }

    #[tokio::test]
    async fn a_childs_task_ends_when_the_parent_is_forced() {
        let parent = Drain::new();
        parent.child().spawn(std::future::pending());
        parent.advance(Phase::Forced);
        parent.finished().await;
    }
}
