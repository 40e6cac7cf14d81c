//! The lineup of a cluster: which of its endpoints share its requests for now, and how.
//!
//! It is worked out when something has changed, not for each request; `balance::lineup` says how. Here is what it is,
//! and where it is kept.

use std::{
    sync::{Arc, Mutex},
    time::Instant,
};

use arc_swap::{ArcSwapOption, Guard};

/// Who shares a cluster's requests. Endpoints are told by their place in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Lineup {
    /// The cluster's `standings` that it was worked out of.
    pub version: u64,
    /// It is stale from then on; `None`: until a standing changes.
    pub valid_until: Option<Instant>,
    /// Those that share the requests, in the cluster's order.
    pub seats: Box<[Seat]>,
    /// How one of them is drawn.
    pub draw: Draw,
    /// Those that get requests only where all the others were tried: in other zones.
    pub spare: Box<[u32]>,
    /// Those that were ejected and may prove themselves.
    pub due: Box<[Due]>,
    /// How many are usable, in panic or not.
    pub usable: u32,
    /// So few are usable that all are used.
    pub is_panic: bool,
    /// What of the requests goes to the own zone, 0.0..=1.0; `None`: zones play no part.
    pub own_zone_ratio: Option<f64>,
    /// What is assumed of those nobody has heard from, in microseconds to an answer.
    pub assumed_us: f64,
}

/// An endpoint that shares the requests.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seat {
    /// Its place in the cluster.
    pub endpoint: u32,
    /// What it gets of what the average seat gets, above 0.
    pub share: f64,
    /// What slow start and overload leave of its weight, above 0.0 and up to 1.0.
    pub factor: f64,
    /// What overload alone leaves of it.
    pub capacity: f64,
}

/// An endpoint that was ejected and has rested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Due {
    /// Its place in the cluster.
    pub endpoint: u32,
    /// From then on any request may be its probe, not only one that can be repeated.
    pub by_any: Instant,
}

/// How a seat is drawn.
#[derive(Clone, Debug, PartialEq)]
pub enum Draw {
    /// All have the same share.
    Even,
    /// By share, at random: an alias table (Vose 1991), a slot for each seat.
    Alias(Box<[AliasSlot]>),
    /// By share, in turn: where in 0..=`u64::MAX` each seat's part ends, rising.
    Turns(Box<[u64]>),
}

/// A slot of an alias table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AliasSlot {
    /// Draws below this are the seat's own, of 2³².
    pub own: u64,
    /// Whose the others are.
    pub other: u32,
}

impl Lineup {
    /// Whether it still says how things are.
    #[must_use]
    pub fn is_fresh(&self, version: u64, now: Instant) -> bool {
        self.version == version && self.valid_until.is_none_or(|until| now < until)
    }
}

/// Where a cluster keeps its lineup. It is replaced whole; readers never wait.
#[derive(Debug, Default)]
pub struct LineupCell {
    current: ArcSwapOption<Lineup>,
    building: Mutex<()>,
}

impl LineupCell {
    /// The newest one; none before the first was asked for. Wait-free.
    #[must_use]
    pub fn load(&self) -> Guard<Option<Arc<Lineup>>> {
        self.current.load()
    }

    /// One that is fresh, made by `build` if need be. While somebody else is making one, the stale one has to do: that
    /// takes microseconds.
    pub fn fresh(
        &self,
        version: u64,
        now: Instant,
        build: impl FnOnce() -> Lineup,
    ) -> Guard<Option<Arc<Lineup>>> {
        let current = self.current.load();
        if current.as_ref().is_some_and(|lineup| lineup.is_fresh(version, now)) {
            return current;
        }
        self.renew(current, build)
    }

    #[cold]
    fn renew(
        &self,
        stale: Guard<Option<Arc<Lineup>>>,
        build: impl FnOnce() -> Lineup,
    ) -> Guard<Option<Arc<Lineup>>> {
        // Who holds it cannot have panicked halfway: the store is the last thing done.
        let lock = self.building.try_lock();
        if lock.is_err() && stale.is_some() {
            return stale;
        }
        let lineup = Some(Arc::new(build()));
        if lock.is_ok() {
            self.current.store(lineup.clone());
        }
        Guard::from_inner(lineup)
    }
}
