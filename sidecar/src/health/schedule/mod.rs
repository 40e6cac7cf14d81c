//! When which endpoint is checked next. Pure: time and chance are arguments.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use indexmap::IndexMap;
use tokio_util::sync::CancellationToken;

use super::PACE;
use crate::model::{Cluster, Endpoint, Snapshot, health_check::HealthCheck};

/// A check's jitter: its time is this share of the interval, in thousandths.
const JITTER_PERMILLE: std::ops::RangeInclusive<u32> = 900..=1100;

/// Whom to ask what.
#[derive(Debug)]
pub(super) struct Due {
    /// Of the newest snapshot.
    pub(super) cluster: Arc<Cluster>,
    /// Of the newest snapshot.
    pub(super) endpoint: Arc<Endpoint>,
    /// The cluster's.
    pub(super) settings: HealthCheck,
}

/// One check under way.
#[derive(Debug)]
pub(super) struct Ticket {
    key: Key,
    /// Its answer is not wanted any more.
    pub(super) cancelled: CancellationToken,
}

/// The address of an endpoint's runtime, which the entry keeps alive: endpoints of two clusters never share one.
type Key = usize;

/// The endpoints that are checked.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    // In order of first sight, not of a hash: two runs of one simulation begin alike.
    entries: IndexMap<Key, Entry>,
    /// Those that wait, by their time, and in the order in which that was set.
    waiting: BTreeMap<Turn, Key>,
    /// Raised with every turn.
    turns: u64,
    /// No check begins before.
    paced_until: Option<Instant>,
}

type Turn = (Instant, u64);

#[derive(Debug)]
struct Entry {
    due: Due,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Turn),
    UnderWay { since: Instant, cancel: CancellationToken },
}

impl Schedule {
    /// Takes in a snapshot: what is new is due at once, and so is what is asked in another way than before; what is no
    /// longer there is forgotten, with the check that is under way for it.
    pub(super) fn reconcile(&mut self, snapshot: &Snapshot, now: Instant) {
        let mut before = std::mem::take(&mut self.entries);
        for cluster in snapshot.clusters.values() {
            let Some(settings) = &cluster.settings.health_check else { continue };
            for endpoint in &cluster.endpoints {
                let key = Arc::as_ptr(&endpoint.runtime) as Key;
                let due = Due {
                    cluster: Arc::clone(cluster),
                    endpoint: Arc::clone(endpoint),
                    settings: settings.clone(),
                };
                let state = match before.swap_remove(&key) {
                    Some(entry) if entry.due.settings == due.settings => entry.state,
                    Some(entry) => {
                        self.forget(entry);
                        State::Waiting(self.turn(key, now))
                    }
                    None => State::Waiting(self.turn(key, now)),
                };
                self.entries.insert(key, Entry { due, state });
            }
        }
        for entry in before.into_values() {
            self.forget(entry);
        }
    }

    fn forget(&mut self, entry: Entry) {
        match entry.state {
            State::Waiting(turn) => drop(self.waiting.remove(&turn)),
            State::UnderWay { cancel, .. } => cancel.cancel(),
        }
    }

    fn turn(&mut self, key: Key, at: Instant) -> Turn {
        self.turns += 1;
        let turn = (at, self.turns);
        self.waiting.insert(turn, key);
        turn
    }

    /// When the next check may begin; `None`: none waits.
    pub(super) fn next_at(&self) -> Option<Instant> {
        let ((at, _), _) = self.waiting.first_key_value()?;
        Some(self.paced_until.map_or(*at, |paced| paced.max(*at)))
    }

    /// Begins the check that is due first, if it is time.
    pub(super) fn begin(&mut self, now: Instant) -> Option<(Ticket, &Due)> {
        if self.next_at()? > now {
            return None;
        }
        let (_turn, key) = self.waiting.pop_first()?;
        self.paced_until = Some(now + PACE);
        let entry = self.entries.get_mut(&key)?;
        let cancel = CancellationToken::new();
        entry.state = State::UnderWay { since: now, cancel: cancel.clone() };
        Some((Ticket { key, cancelled: cancel }, &entry.due))
    }

    /// A check has ended. If it is wanted still, the endpoint's next one is an interval after its beginning.
    pub(super) fn ended(&mut self, ticket: Ticket, now: Instant, rng: &mut fastrand::Rng) -> Option<&Due> {
        // Before anything else: the address may be another endpoint's by now.
        if ticket.cancelled.is_cancelled() {
            return None;
        }
        let entry = self.entries.get(&ticket.key)?;
        let State::UnderWay { since, .. } = entry.state else { return None };
        let at = since + jittered(entry.due.settings.interval, rng);
        let turn = self.turn(ticket.key, at.max(now));
        let entry = self.entries.get_mut(&ticket.key)?;
        entry.state = State::Waiting(turn);
        Some(&entry.due)
    }
}

fn jittered(interval: Duration, rng: &mut fastrand::Rng) -> Duration {
    (interval / 1000).saturating_mul(rng.u32(JITTER_PERMILLE))
}

#[cfg(test)]
mod tests;
