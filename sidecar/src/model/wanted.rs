//! What the own app tries to reach and nobody knows: from the data side to who asks the controller.
//!
//! ```text
//!   a connection to nobody we know ──ask──▶ Wanted ──take──▶ discovery/controller ──▶ a newer snapshot
//!               ╰───────────────────── waits for that, for a while ──────────────────────╯
//! ```
//! However many wait for one thing, it is there once. What is known never comes here: this costs it nothing.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use indexmap::IndexMap;
use tokio::sync::Notify;

/// The port of a name that has none.
const HTTP_PORT: u16 = 80;
/// Longest name that is asked after: a host name, and a port.
const MAX_NAME_BYTES: usize = 253 + 6;

/// What an app has tried to reach.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// An address that it has dialled.
    Address(SocketAddr),
    /// `host:port` that it has named, in canonical form.
    Name(Box<str>),
}

impl Key {
    /// Of an address that was dialled.
    #[must_use]
    pub fn address(address: SocketAddr) -> Self {
        // Without what IPv6 has beside address and port.
        Self::Address(SocketAddr::new(address.ip(), address.port()))
    }

    /// Of an authority in canonical form; `None` where it is nothing that a resolver in a cluster would be asked for: an
    /// address, or no host name. The controller ends a stream on which it is asked for such a thing.
    #[must_use]
    pub fn name(authority: &str) -> Option<Self> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, HTTP_PORT),
        };
        let is_label = |label: &str| {
            !label.is_empty()
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_host = host.split('.').all(is_label) && host.parse::<Ipv4Addr>().is_err();
        let name = format!("{host}:{port}");
        (is_host && port > 0 && name.len() <= MAX_NAME_BYTES).then(|| Self::Name(name.into()))
    }

    /// As [`fmt::Display`] writes it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().map_or_else(|_no_address| Self::name(text), |address| Some(Self::Address(address)))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Addresses and names that lead out of the cluster, as the controller has said; each with whether it was used of late.
#[derive(Clone, Debug, Default)]
pub struct Outside(HashMap<Key, Arc<Use>>);

/// Whether something was used since the last look.
#[derive(Debug, Default)]
pub struct Use(AtomicBool);

impl Use {
    /// It is used.
    pub fn note(&self) {
        // It is read more often than it is written, by several threads.
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was used since the last look, which this is.
    #[must_use]
    pub fn look(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

impl Outside {
    /// All of these.
    pub fn new(all: impl IntoIterator<Item = (Key, Arc<Use>)>) -> Self {
        Self(all.into_iter().collect())
    }

    /// Whether that leads outside; it is taken for used then.
    #[must_use]
    pub fn has(&self, key: &Key) -> bool {
        self.0.get(key).map(|used| used.note()).is_some()
    }

    /// The same for who only asks: it is not taken for used.
    #[must_use]
    pub fn knows(&self, key: &Key) -> bool {
        self.0.contains_key(key)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What is wanted and unknown. Shared by all workers; touched only by what is not known.
#[derive(Debug, Default)]
pub struct Wanted {
    asked: Mutex<Asked>,
    arrived: Notify,
    waiting: AtomicUsize,
    /// Who waited and was told.
    pub found: AtomicU64,
    /// Who waited in vain, or found that somebody else had.
    pub in_vain: AtomicU64,
    /// Who was not let wait, for too many did.
    pub refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Asked {
    /// Since when each is wanted.
    since: HashMap<Key, Instant>,
    /// Those of which the control side has not heard, in their order.
    new: IndexMap<Key, ()>,
}

/// A place among those who wait.
#[derive(Debug)]
pub struct Place<'a>(&'a Wanted);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Wanted {
    /// A place among those who wait, of whom there are `max` at most.
    #[must_use]
    pub fn place(&self, max: usize) -> Option<Place<'_>> {
        let more = |waiting: usize| (waiting < max).then_some(waiting + 1);
        if self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok() {
            return Some(Place(self));
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Asks for it, if nobody has. Since when it is wanted: who comes later does not wait longer for it. `None`: `max`
    /// others are wanted, and unknown.
    #[must_use]
    pub fn ask(&self, key: &Key, max: usize, now: Instant) -> Option<Instant> {
        let mut asked = self.lock();
        let is_full = asked.since.len() >= max;
        match asked.since.entry(key.clone()) {
            Entry::Occupied(known) => return Some(*known.get()),
            Entry::Vacant(_) if is_full => return None,
            Entry::Vacant(free) => {
                free.insert(now);
            }
        }
        asked.new.insert(key.clone(), ());
        drop(asked);
        self.arrived.notify_one();
        Some(now)
    }

    /// What nobody was told of yet, oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<Key> {
        std::mem::take(&mut self.lock().new).into_keys().collect()
    }

    /// Waits until there is something to [`take`](Self::take). Cancel-safe, for one who waits.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// It is known, or forgotten: who wants it from now on asks anew.
    pub fn settle(&self, key: &Key) {
        let mut asked = self.lock();
        asked.since.remove(key);
        asked.new.shift_remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(text: &str) -> Key {
        Key::parse(text).unwrap()
    }

    #[test]
    fn keys_are_written_as_they_are_read() {
        for text in ["10.96.0.10:80", "[fd00::1]:443", "orders:8080", "orders.shop.svc:80"] {
            assert_eq!(key(text).to_string(), text);
        }
        assert_eq!(Key::name("orders").unwrap().to_string(), "orders:80");
        assert!(matches!(key("10.96.0.10:80"), Key::Address(_)) && matches!(key("orders:80"), Key::Name(_)));
        let long = "a".repeat(300);
        for odd in ["", "a..b:80", "orders:0", "10.96.0.1:80", "[fd00::1]:80", "[fd00::1]", "a$b", "é", &long]
        {
            assert_eq!(Key::name(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_many_want_is_there_once_and_none_waits_longer_than_the_first() {
        let (wanted, now) = (Wanted::default(), Instant::now());
        assert_eq!(wanted.ask(&key("a:1"), 2, now), Some(now));
        let later = now + Duration::from_secs(3);
        assert_eq!(wanted.ask(&key("a:1"), 2, later), Some(now));
        assert_eq!(wanted.take(), [key("a:1")]);
        assert_eq!(wanted.ask(&key("a:1"), 2, later), Some(now), "also when the control side knows");
        assert_eq!(wanted.take(), []);
        assert_eq!(wanted.ask(&key("b:1"), 2, later), Some(later));
        assert_eq!(wanted.ask(&key("c:1"), 2, later), None, "two are enough");
        wanted.settle(&key("a:1"));
        assert_eq!(wanted.ask(&key("a:1"), 2, later), Some(later), "it begins anew");
        assert_eq!(wanted.take(), [key("b:1"), key("a:1")]);
    }

    #[test]
    fn places_are_counted_and_given_back() {
        let wanted = Wanted::default();
        let first = wanted.place(2);
        let second = wanted.place(2);
        assert!(first.is_some() && second.is_some() && wanted.place(2).is_none());
        assert_eq!((wanted.waiting(), wanted.refused.load(Ordering::Relaxed)), (2, 1));
        drop(first);
        assert!(wanted.place(2).is_some());
    }

    #[test]
    fn what_leads_outside_is_used_when_it_is_looked_for() {
        let used = Arc::new(Use::default());
        let outside = Outside::new([(key("1.1.1.1:53"), Arc::clone(&used))]);
        assert!(!outside.has(&key("1.1.1.1:54")) && !used.look());
        assert!(outside.knows(&key("1.1.1.1:53")) && !outside.knows(&key("1.1.1.1:54")) && !used.look());
        assert!(outside.has(&key("1.1.1.1:53")) && used.look() && !used.look());
    }
}
