//! Readiness: ready when the last named guard is gone, and it says which ones remain.

use std::sync::Arc;

use indexmap::IndexSet;
use tokio::sync::watch;

/// What the process still waits for before it is ready. Clones share it.
#[derive(Clone, Debug)]
pub struct Readiness {
    waiting: Arc<watch::Sender<IndexSet<&'static str>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { waiting: Arc::new(watch::Sender::new(IndexSet::new())) }
    }
}

/// Holds readiness back until it is dropped.
#[derive(Debug)]
pub struct BlockReady {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Holds readiness back until the guard is dropped. `name` says for what, and is unique.
    #[must_use]
    pub fn block(&self, name: &'static str) -> BlockReady {
        self.waiting.send_modify(|waiting| {
            waiting.insert(name);
        });
        BlockReady { readiness: self.clone(), name }
    }

    /// What is still waited for, oldest first; empty means ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.waiting.borrow().iter().copied().collect()
    }

    /// Waits until nothing is waited for but `last`.
    pub async fn until_only(&self, last: &'static str) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`, so this ends only when the condition holds.
        drop(waiting.wait_for(|waiting| waiting.iter().all(|name| *name == last)).await);
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        self.readiness.waiting.send_modify(|waiting| {
            waiting.shift_remove(self.name);
            if waiting.is_empty() {
                tracing::info!(last = self.name, "ready");
            }
        });
    }
}
