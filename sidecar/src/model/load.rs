//! What the process as a whole carries, against what it may: open connections and memory.
//!
//! Written by the accept loops and by the control side's look at memory; read by the data side with one relaxed load.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

/// Work of each kind (connections of a listener, requests of a cluster) that goes on whatever the memory says. What the
/// allocator keeps may stay above the mark with nothing to do: a process that then took nothing at all would never
/// find out that it could.
pub const ALWAYS_ADMITTED: u32 = 16;

/// The whole process's load and its bounds. One per process; workers share it.
#[derive(Debug)]
pub struct Load {
    /// Accepted connections that are open, over all listeners.
    pub open: AtomicUsize,
    /// Most of them at a time; over it connections are closed at once.
    pub max_open: usize,
    /// Memory that only the process's end would free, in bytes, as last looked at; 0 before the first look.
    pub resident_bytes: AtomicU64,
    /// The bound for it; `None`: nobody looks.
    pub budget_bytes: Option<u64>,
    /// Times the bound was reached.
    pub exceeded: AtomicU64,
    is_over: AtomicBool,
}

impl Load {
    /// Nothing open, nothing looked at.
    #[must_use]
    pub fn new(max_open: usize, budget_bytes: Option<u64>) -> Self {
        Self {
            open: AtomicUsize::new(0),
            max_open,
            resident_bytes: AtomicU64::new(0),
            budget_bytes,
            exceeded: AtomicU64::new(0),
            is_over: AtomicBool::new(false),
        }
    }

    /// Whether new work is to be shed for want of memory: since the budget was reached, until a tenth of it is free.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Takes note of the memory in use. Returns whether that changed what [`Load::is_over`] says.
    pub fn looked(&self, resident_bytes: u64) -> bool {
        self.resident_bytes.store(resident_bytes, Ordering::Relaxed);
        let Some(budget) = self.budget_bytes else { return false };
        let was_over = self.is_over();
        let is_over = resident_bytes >= if was_over { budget - budget / 10 } else { budget };
        self.is_over.store(is_over, Ordering::Relaxed);
        if is_over && !was_over {
            self.exceeded.fetch_add(1, Ordering::Relaxed);
        }
        is_over != was_over
    }

    /// Counts one more accepted connection until the returned value is dropped; `None` if `max_open` are open.
    #[must_use]
    pub fn open_one(self: &Arc<Self>) -> Option<Opened> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= self.max_open {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(Opened(Arc::clone(self)))
    }
}

/// An accepted connection that counts until this is dropped.
#[derive(Debug)]
pub struct Opened(Arc<Load>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_over_its_budget_until_a_tenth_is_free() {
        let load = Load::new(1, Some(1000));
        for (resident, is_over, changes) in [
            (999, false, false),
            (1000, true, true),
            (901, true, false),
            (899, false, true),
            (950, false, false),
        ] {
            assert_eq!((load.looked(resident), load.is_over()), (changes, is_over), "{resident}");
        }
        assert_eq!(load.exceeded.load(Ordering::Relaxed), 1);
        let unbounded = Load::new(1, None);
        assert!(!unbounded.looked(u64::MAX) && !unbounded.is_over());
    }

    #[test]
    fn open_connections_have_a_bound_and_give_their_place_back() {
        let load = Arc::new(Load::new(2, None));
        let (first, _second) = (load.open_one().unwrap(), load.open_one().unwrap());
        assert!(load.open_one().is_none());
        drop(first);
        assert!(load.open_one().is_some());
        assert_eq!(load.open.load(Ordering::Relaxed), 1);
    }
}
