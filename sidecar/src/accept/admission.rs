//! May this connection come in? Bounds of the listener and of the process; nothing about who it is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::model::{
    closed::Shed,
    load::{ALWAYS_ADMITTED, Load, Opened},
    runtime::ListenerRuntime,
};

/// Descriptors that accepted connections leave alone: listening sockets, admin connections (80), the way to the CA,
/// files, the runtimes' own.
const RESERVED_DESCRIPTORS: usize = 128;
/// Connections that a process of whatever limit accepts.
const MIN_OPEN: usize = 8;

/// How many accepted connections may be open in a process of so many descriptors: each may need another one for its
/// way on.
#[must_use]
pub fn max_open(descriptors: usize) -> usize {
    (descriptors.saturating_sub(RESERVED_DESCRIPTORS) / 2).max(MIN_OPEN)
}

/// What decides on one listener's connections, over all workers.
#[derive(Clone, Debug)]
pub struct Admission {
    /// Connections of the listener at a time; may change while it accepts.
    pub max_connections: Arc<AtomicUsize>,
    /// Its counters.
    pub counts: Arc<ListenerRuntime>,
    /// The process's.
    pub load: Arc<Load>,
    /// Whether connections are closed while the process is over its memory budget. Those of peers are: they have other
    /// replicas to turn to. The own app has only us, and its requests are answered instead.
    pub sheds_on_memory: bool,
}

/// An admitted connection; it counts until this is dropped.
#[derive(Debug)]
pub struct Admitted {
    counts: Arc<ListenerRuntime>,
    _opened: Opened,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counts.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    /// Counts a connection and admits it, or says that it is to be closed at once.
    #[must_use]
    pub fn admit(&self) -> Option<Admitted> {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        self.decide().inspect_err(|reason| self.counts.closed.count_shed(*reason)).ok()
    }

    fn decide(&self) -> Result<Admitted, Shed> {
        let is_one_of_few = || self.counts.active.load(Ordering::Relaxed) < ALWAYS_ADMITTED as usize;
        if self.sheds_on_memory && self.load.is_over() && !is_one_of_few() {
            return Err(Shed::Memory);
        }
        let opened = self.load.open_one().ok_or(Shed::Descriptors)?;
        // Workers share the count: the one that raises it over the bound takes it back.
        if self.counts.active.fetch_add(1, Ordering::Relaxed) >= self.max_connections.load(Ordering::Relaxed)
        {
            self.counts.active.fetch_sub(1, Ordering::Relaxed);
            return Err(Shed::Listener);
        }
        Ok(Admitted { counts: Arc::clone(&self.counts), _opened: opened })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(max_connections: usize, max_open: usize, sheds_on_memory: bool) -> Admission {
        Admission {
            max_connections: Arc::new(AtomicUsize::new(max_connections)),
            counts: Arc::default(),
            load: Arc::new(Load::new(max_open, Some(1000))),
            sheds_on_memory,
        }
    }

    fn shed(admission: &Admission, reason: Shed) -> u64 {
        admission.counts.closed.shed[reason as usize].load(Ordering::Relaxed)
    }

    #[test]
    fn a_full_listener_and_a_full_process_close_at_once_and_say_why() {
        for (max_connections, max_open, reason) in [(2, 9, Shed::Listener), (9, 2, Shed::Descriptors)] {
            let admission = admission(max_connections, max_open, true);
            let held = [admission.admit().unwrap(), admission.admit().unwrap()];
            assert!(admission.admit().is_none());
            assert_eq!(shed(&admission, reason), 1);
            drop(held);
            assert!(admission.admit().is_some());
            assert_eq!(admission.counts.accepted.load(Ordering::Relaxed), 4);
            assert_eq!(admission.load.open.load(Ordering::Relaxed), 0);
        }
    }

    #[test]
    fn short_of_memory_a_few_still_come_in_and_the_own_app_always() {
        let (peers, own) = (admission(99, 99, true), admission(99, 99, false));
        for admission in [&peers, &own] {
            admission.load.looked(1000);
            let held: Vec<_> = (0..ALWAYS_ADMITTED).map(|_| admission.admit().unwrap()).collect();
            assert_eq!(admission.admit().is_some(), !admission.sheds_on_memory);
            drop(held);
            assert!(admission.admit().is_some());
        }
        assert_eq!((shed(&peers, Shed::Memory), shed(&own, Shed::Memory)), (1, 0));
    }
}
