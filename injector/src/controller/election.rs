//! Who of the replicas writes: decided purely, with `now` as an argument. As client-go's leader election does it, whose
//! Leases it can be read as.
//!
//! # Invariants
//! - Another's Lease is taken only after it was seen unchanged for its whole duration, by our own clock: clocks of
//!   different machines are never compared.
//! - Who holds it believes so for less time than others wait: between two holders there is a gap, never an overlap.

use std::time::{Duration, Instant};

/// How long a Lease holds after its holder renewed it.
pub const LEASE: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long is none any more.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Time between two looks, and between two renewals.
pub const RETRY: Duration = Duration::from_secs(2);

/// A Lease, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// `None`, or empty: nobody's.
    pub holder: Option<String>,
    /// How long it holds.
    pub duration: Duration,
    /// Any text that is another after each renewal.
    pub version: String,
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Create it: there is none.
    Create,
    /// Write our name into it, if it is still as it was read.
    Take,
    /// Say that we still live.
    Renew,
    /// Another has it.
    Wait,
}

/// One candidate's view.
#[derive(Debug)]
pub struct Election {
    name: String,
    /// The Lease as it was last read, and since when it is so.
    seen: Option<(Record, Instant)>,
    /// When we last wrote it.
    held: Option<Instant>,
}

impl Election {
    /// A candidate of this name, which no other has.
    #[must_use]
    pub fn new(name: String) -> Self {
        Self { name, seen: None, held: None }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What to do, the Lease being as it was just read; `None`: there is none.
    pub fn look(&mut self, lease: Option<Record>, now: Instant) -> Act {
        let Some(lease) = lease else {
            self.seen = None;
            return Act::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == lease => *since,
            Some(_) | None => now,
        };
        self.seen = Some((lease.clone(), since));
        let holder = lease.holder.as_deref().unwrap_or_default();
        if holder == self.name {
            return Act::Renew;
        }
        // It was ours, and is another's: whatever we believed.
        self.held = None;
        if holder.is_empty() || now.saturating_duration_since(since) >= lease.duration {
            Act::Take
        } else {
            Act::Wait
        }
    }

    /// We wrote the Lease. `asked`: when writing began, which is before anybody else could see it.
    pub fn wrote(&mut self, asked: Instant) {
        self.held = Some(asked);
    }

    /// We gave the Lease back.
    pub fn released(&mut self) {
        self.held = None;
    }

    /// Whether we are the one who writes.
    #[must_use]
    pub fn is_leader(&self, now: Instant) -> bool {
        self.held.is_some_and(|held| now.saturating_duration_since(held) < RENEW_DEADLINE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, version: u32) -> Option<Record> {
        Some(Record { holder: Some(holder.to_owned()), duration: LEASE, version: version.to_string() })
    }

    #[test]
    fn a_lease_of_nobody_is_taken_and_renewed() {
        let (mut one, now) = (Election::new("one".to_owned()), Instant::now());
        assert_eq!(one.look(None, now), Act::Create);
        assert!(!one.is_leader(now), "not before it is written");
        one.wrote(now);
        assert!(one.is_leader(now));
        assert_eq!(one.look(lease("one", 1), now + RETRY), Act::Renew);
        assert!(one.is_leader(now + RENEW_DEADLINE - Duration::from_millis(1)));
        assert!(!one.is_leader(now + RENEW_DEADLINE), "not renewed in time");
        assert_eq!(Election::new("two".to_owned()).look(lease("", 2), now), Act::Take);
    }

    #[test]
    fn anothers_lease_is_left_alone_while_it_is_renewed() {
        let (mut two, start) = (Election::new("two".to_owned()), Instant::now());
        for round in 0..20 {
            assert_eq!(two.look(lease("one", round), start + RETRY * round), Act::Wait);
        }
        let last = start + RETRY * 19;
        assert_eq!(two.look(lease("one", 19), last + LEASE - Duration::from_millis(1)), Act::Wait);
        assert_eq!(two.look(lease("one", 19), last + LEASE), Act::Take);
    }

    #[test]
    fn who_lost_it_knows_when_it_looks() {
        let (mut one, now) = (Election::new("one".to_owned()), Instant::now());
        one.wrote(now);
        assert_eq!(one.look(lease("two", 2), now), Act::Wait);
        assert!(!one.is_leader(now));
    }

    #[test]
    fn two_never_hold_it_at_once() {
        // The first goes silent right after it wrote; the second sees that write at the earliest when it was made.
        let (mut one, mut two, start) =
            (Election::new("one".to_owned()), Election::new("two".to_owned()), Instant::now());
        one.wrote(start);
        let mut at = start;
        while two.look(lease("one", 1), at) == Act::Wait {
            at += Duration::from_millis(100);
        }
        two.wrote(at);
        assert!(!one.is_leader(at) && two.is_leader(at));
    }
}
