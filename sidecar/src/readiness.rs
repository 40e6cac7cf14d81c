//! Readiness: ready when the last named guard is released, and it says which ones remain.

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

/// Holds readiness back until it is released. One that is dropped instead holds it back for good: what it stood for
/// never came, which is how a process that is torn down while starting ends.
#[derive(Debug)]
#[must_use = "readiness is held back until it is released"]
pub struct BlockReady {
    readiness: Readiness,
    name: &'static str,
}

impl Readiness {
    /// Holds readiness back until the guard is released. `name` says for what, and is unique.
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

    /// Waits until nothing is waited for but these.
    pub async fn until_only(&self, last: &[&'static str]) {
        let mut waiting = self.waiting.subscribe();
        // The sender lives as long as `self`, so this ends only when the condition holds.
        drop(waiting.wait_for(|waiting| waiting.iter().all(|name| last.contains(name))).await);
    }
}

impl BlockReady {
    /// What it stands for is there.
    pub fn release(self) {
        self.readiness.waiting.send_modify(|waiting| {
            waiting.shift_remove(self.name);
            if waiting.is_empty() {
                tracing::info!(last = self.name, "ready");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_everything_waited_for_is_there() {
        let readiness = Readiness::default();
        let (first, second) = (readiness.block("first"), readiness.block("second"));
        first.release();
        assert_eq!(readiness.waiting_for(), ["second"]);
        second.release();
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn what_ends_before_it_is_there_does_not_make_ready() {
        let readiness = Readiness::default();
        drop(readiness.block("identity"));
        assert_eq!(readiness.waiting_for(), ["identity"]);
    }
}
