//! Readiness: ready when the last named guard is gone, and it says which ones remain.

use std::sync::{Arc, Mutex, PoisonError};

use indexmap::IndexSet;

/// What the process still waits for before it is ready. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waiting: Arc<Mutex<IndexSet<&'static str>>>,
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
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
        BlockReady { readiness: self.clone(), name }
    }

    /// What is still waited for, oldest first; empty means ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<&'static str> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }
}

impl Drop for BlockReady {
    fn drop(&mut self) {
        let mut waiting = self.readiness.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.shift_remove(self.name);
        if waiting.is_empty() {
            tracing::info!(last = self.name, "ready");
        }
    }
}
