//! Which holders have the current bundle.
//!
//! A workload that asks for a certificate or the bundle tells the sequence of
//! the bundle it holds: that is its acknowledgement. Kept per leaf until the
//! leaf runs out, so that a change of roots can wait for everybody who still
//! has a valid one. In memory only: after a restart holders are known again
//! once they have asked.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;

use crate::certificate::sha256;

/// Most leaves that are remembered.
const MAX_HOLDERS: usize = 100_000;

/// The holder of one leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Holder([u8; 32]);

impl Holder {
    pub(super) fn of(leaf: &CertificateDer<'_>) -> Self {
        Self(sha256(leaf))
    }
}

/// How many holders have the current bundle, and how many an older one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) current: usize,
    pub(super) behind: usize,
}

#[derive(Debug, Default)]
pub(super) struct Acknowledgements(Mutex<HashMap<Holder, Known>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    sequence: u64,
    not_after: SystemTime,
}

impl Acknowledgements {
    /// Notes that a holder has the bundle of `sequence`. Beyond the bound
    /// further holders are not remembered.
    pub(super) fn note(&self, holder: Holder, sequence: u64, not_after: SystemTime, now: SystemTime) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_HOLDERS {
            known.retain(|_, holder| holder.not_after >= now);
        }
        if known.len() < MAX_HOLDERS || known.contains_key(&holder) {
            known.insert(holder, Known { sequence, not_after });
        }
    }

    /// Forgets a leaf that its holder has replaced.
    pub(super) fn forget(&self, holder: &Holder) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(holder);
    }

    /// Counts the holders of valid leaves.
    pub(super) fn count(&self, sequence: u64, now: SystemTime) -> Count {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut count = Count::default();
        for holder in known.values().filter(|holder| holder.not_after >= now) {
            if holder.sequence >= sequence {
                count.current += 1;
            } else {
                count.behind += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn holders_are_counted_until_their_leaf_runs_out() {
        let all = Acknowledgements::default();
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        let [a, b] = [[1], [2]].map(|der| Holder::of(&CertificateDer::from(der.to_vec())));
        all.note(a, 1, start + Duration::from_secs(10), start);
        all.note(b, 2, start + Duration::from_secs(20), start);
        assert_eq!(all.count(2, start), Count { current: 1, behind: 1 });
        assert_eq!(all.count(2, start + Duration::from_secs(15)), Count { current: 1, behind: 0 });
        all.note(a, 2, start + Duration::from_secs(10), start);
        assert_eq!(all.count(2, start), Count { current: 2, behind: 0 });
        all.forget(&b);
        assert_eq!(all.count(2, start), Count { current: 1, behind: 0 });
    }
}
