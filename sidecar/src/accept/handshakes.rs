//! Handshakes under way on one worker: bounded, and not for one address to fill.
//!
//! A half-open handshake costs its peer nothing and us memory for as long as `handshake_timeout`. When all places are
//! taken, one that has taken longer than any honest handshake does is given up for the newcomer; if there is none,
//! many honest peers come at once, and then those who are half through it are worth more than the newcomer.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// Honest handshakes are over within this, on a machine that is not overloaded: two round trips and about a
/// millisecond of arithmetic.
const PATIENCE: Duration = Duration::from_secs(1);
/// One address may have a share of the places: one in so many.
const SHARE: usize = 4;

/// The handshakes under way on one worker.
#[derive(Debug)]
pub struct Handshakes {
    max: AtomicUsize,
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    /// In order of their beginning.
    under_way: BTreeMap<u64, UnderWay>,
    per_address: HashMap<IpAddr, usize>,
}

#[derive(Debug)]
struct UnderWay {
    address: IpAddr,
    since: Instant,
    given_up: CancellationToken,
}

/// A handshake's place, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Mutex<Inner>>,
    number: u64,
    given_up: CancellationToken,
}

impl Handshakes {
    /// At most `max` at a time, and a quarter of that from one address.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max: AtomicUsize::new(max), inner: Arc::default() }
    }

    /// At most `max` from now on; those that are under way may end.
    pub fn set_max(&self, max: usize) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// A place for a handshake that begins now, perhaps instead of one that takes too long; `None` if there is none:
    /// the connection is to be closed.
    #[must_use]
    pub fn begin(&self, address: IpAddr, now: Instant) -> Option<Place> {
        let mut inner = lock(&self.inner);
        let max = self.max.load(Ordering::Relaxed);
        let share = max.div_ceil(SHARE);
        if inner.per_address.get(&address).is_some_and(|count| *count >= share) {
            inner.give_up_one(now, |under_way| under_way.address == address)?;
        } else if inner.under_way.len() >= max {
            inner.give_up_one(now, |_any| true)?;
        }
        let number = inner.next;
        inner.next += 1;
        let given_up = CancellationToken::new();
        *inner.per_address.entry(address).or_default() += 1;
        inner.under_way.insert(number, UnderWay { address, since: now, given_up: given_up.clone() });
        Some(Place { inner: Arc::clone(&self.inner), number, given_up })
    }
}

impl Place {
    /// Completes when the handshake is given up for another one. Cancel-safe.
    pub async fn given_up(&self) {
        self.given_up.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.inner).remove(self.number);
    }
}

impl Inner {
    /// Gives up the oldest that fits, if it is too old; `None` if it is not.
    fn give_up_one(&mut self, now: Instant, fits: impl Fn(&UnderWay) -> bool) -> Option<()> {
        let (number, oldest) = self.under_way.iter().find(|(_, under_way)| fits(under_way))?;
        if now.saturating_duration_since(oldest.since) < PATIENCE {
            return None;
        }
        oldest.given_up.cancel();
        let number = *number;
        self.remove(number);
        Some(())
    }

    fn remove(&mut self, number: u64) {
        let Some(UnderWay { address, .. }) = self.under_way.remove(&number) else { return };
        if let Some(count) = self.per_address.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.per_address.remove(&address);
            }
        }
    }
}

fn lock(inner: &Mutex<Inner>) -> MutexGuard<'_, Inner> {
    inner.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn one_address_cannot_take_the_places_of_others() {
        let (handshakes, now) = (Handshakes::new(8), Instant::now());
        let held = [handshakes.begin(ip(1), now).unwrap(), handshakes.begin(ip(1), now).unwrap()];
        assert!(handshakes.begin(ip(1), now).is_none());
        assert!(handshakes.begin(ip(2), now).is_some());
        drop(held);
        assert!(handshakes.begin(ip(1), now).is_some());
        let inner = lock(&handshakes.inner);
        assert!(inner.under_way.is_empty() && inner.per_address.is_empty(), "{inner:?}");
    }

    #[test]
    fn what_takes_too_long_makes_room_and_what_does_not_stays() {
        let (handshakes, now) = (Handshakes::new(4), Instant::now());
        let later = now + PATIENCE;
        let old = handshakes.begin(ip(0), now).unwrap();
        let held: Vec<_> = (1..4).map(|last| handshakes.begin(ip(last), later).unwrap()).collect();
        let newcomer = handshakes.begin(ip(9), later).unwrap();
        assert!(old.given_up.is_cancelled() && held.iter().all(|place| !place.given_up.is_cancelled()));
        assert!(handshakes.begin(ip(10), later).is_none(), "nobody else is slow");
        drop(old);
        assert!(handshakes.begin(ip(10), later).is_none(), "its place was already another's");
        drop(newcomer);
        assert!(handshakes.begin(ip(10), later).is_some());
    }
}
