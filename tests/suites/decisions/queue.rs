//! What is going to happen, in order of time.

use std::{collections::BTreeMap, time::Duration};

/// Something that happens at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A caller's app makes a request.
    Arrives { caller: usize },
    /// Something of the plan begins or ends: an index.
    Changes(usize),
    /// An attempt comes further.
    Goes { attempt: u64 },
    /// An attempt has had its time.
    Times { attempt: u64 },
    /// It is time for a second attempt beside the one under way.
    Hedges { request: u32 },
    /// A request's backoff is over.
    Retries { request: u32 },
    /// A request's time is up.
    Expires { request: u32 },
    /// Whoever made the request goes away.
    Leaves { request: u32 },
    /// Everything has been well for a while.
    Calm,
    /// The last request has come.
    Closes,
    /// A worker of a caller's sidecar looks after its clusters.
    Sweeps { caller: usize, worker: usize },
}

/// When something happens; of what happens at once, what was planned first comes first.
pub(super) type Key = (Duration, u64);

/// What is going to happen.
#[derive(Debug, Default)]
pub(super) struct Queue {
    events: BTreeMap<Key, Event>,
    planned: u64,
}

impl Queue {
    /// Plans an event; the key takes it back.
    pub(super) fn plan(&mut self, at: Duration, event: Event) -> Key {
        self.planned += 1;
        let key = (at, self.planned);
        self.events.insert(key, event);
        key
    }

    /// It will not happen.
    pub(super) fn cancel(&mut self, key: Option<Key>) {
        if let Some(key) = key {
            self.events.remove(&key);
        }
    }

    /// What happens next, and when.
    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        self.events.pop_first().map(|((at, _), event)| (at, event))
    }
}
