//! Unused connections of one worker make room for another worker's, where both share a cluster's cap.
//!
//! ```text
//!   worker A: cap reached, nothing unused here          worker B
//!        ask ──────────────(mailbox)──────────────────▶ closes its oldest unused one
//!        ◀───────────── its slot under the cap ────────  or drops the ask
//! ```
//! When every other worker has dropped the ask, there is none: the answer needs no waiting for a timeout.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};

use crate::{model::runtime::ClusterRuntime, resilience::circuit_breaker::ConnectionSlot};

/// Asks that may wait for one worker; over it, it is not asked.
const MAX_ASKS: usize = 1024;

/// All workers of a process. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Hub(Arc<Mutex<Vec<mpsc::Sender<Arc<Ask>>>>>);

/// One worker's door to the others.
#[derive(Debug)]
pub(super) struct Member {
    hub: Hub,
    own: mpsc::Sender<Arc<Ask>>,
}

/// Asks of other workers.
#[derive(Debug)]
pub struct Mailbox(mpsc::Receiver<Arc<Ask>>);

/// A request for a slot under a cluster's cap.
#[derive(Debug)]
pub(super) struct Ask {
    cluster: Arc<ClusterRuntime>,
    /// `None` once answered.
    answer: Mutex<Option<oneshot::Sender<ConnectionSlot>>>,
}

impl Hub {
    /// One more worker.
    pub(super) fn join(&self) -> (Member, Mailbox) {
        let (own, mailbox) = mpsc::channel(MAX_ASKS);
        let mut workers = self.lock();
        workers.retain(|worker| !worker.is_closed());
        workers.push(own.clone());
        (Member { hub: self.clone(), own }, Mailbox(mailbox))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Arc<Ask>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// A slot that another worker gives up; `None` as soon as it is known that none does. The caller bounds the time.
    pub(super) async fn ask(&self, cluster: &Arc<ClusterRuntime>) -> Option<ConnectionSlot> {
        let (answer, answered) = oneshot::channel();
        let ask = Arc::new(Ask { cluster: Arc::clone(cluster), answer: Mutex::new(Some(answer)) });
        for worker in self.hub.lock().iter().filter(|worker| !worker.same_channel(&self.own)) {
            // One whose mailbox is full has enough to give away to others.
            let _not_asked = worker.try_send(Arc::clone(&ask));
        }
        drop(ask);
        answered.await.ok()
    }
}

impl Mailbox {
    /// Answers other workers for as long as there are any: `reclaim` closes an unused connection of a cluster and gives
    /// its slot.
    pub async fn answer(mut self, reclaim: impl Fn(&Arc<ClusterRuntime>) -> Option<ConnectionSlot>) {
        while let Some(ask) = self.0.recv().await {
            ask.answer(&reclaim);
        }
    }
}

impl Ask {
    fn answer(&self, reclaim: impl Fn(&Arc<ClusterRuntime>) -> Option<ConnectionSlot>) {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody gives up a connection for one who has gone, or has got one already.
        if answer.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return;
        }
        if let Some(slot) = reclaim(&self.cluster)
            && let Some(answer) = answer.take()
        {
            // If the asker has just gone, the slot is free again.
            drop(answer.send(slot));
        }
    }
}
