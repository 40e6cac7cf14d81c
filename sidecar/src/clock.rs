//! The only reader of clocks and the only seeder of randomness.
//!
//! Effects read the clock here and pass `now` and `rng` down; decisions take them as arguments. In a simulation
//! the interval clock is tokio's paused one, the wall clock follows it from a chosen date, and the seed is
//! the test's: two runs with one seed decide alike.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Instant, SystemTime},
};

use outrider_certs::clock::WallClock;
use rustls::{pki_types::UnixTime, time_provider::TimeProvider};

/// Time and chance for one process, or for one simulated host. Clones share the randomness.
#[derive(Clone, Debug)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    wall: Wall,
    seeds: Mutex<fastrand::Rng>,
}

#[derive(Debug)]
enum Wall {
    System,
    Simulated { epoch: SystemTime, start: Instant },
}

impl Clock {
    /// The operating system's clocks and randomness.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Wall::System, fastrand::Rng::new())
    }

    /// A clock whose wall time is `epoch` at the moment of this call and then follows tokio's (paused) clock,
    /// and whose randomness follows from `seed`. Call it inside the simulated host's runtime.
    #[must_use]
    pub fn simulated(epoch: SystemTime, seed: u64) -> Self {
        Self::new(Wall::Simulated { epoch, start: monotonic() }, fastrand::Rng::with_seed(seed))
    }

    fn new(wall: Wall, seeds: fastrand::Rng) -> Self {
        Self { inner: Arc::new(Inner { wall, seeds: Mutex::new(seeds) }) }
    }

    /// The moment on the interval clock: for timeouts, ages and rates.
    #[must_use]
    pub fn now(&self) -> Instant {
        monotonic()
    }

    /// The wall time: for certificates and logs only, it may jump.
    #[must_use]
    pub fn wall(&self) -> SystemTime {
        match self.inner.wall {
            Wall::System => system_time(),
            Wall::Simulated { epoch, start } => epoch + monotonic().saturating_duration_since(start),
        }
    }

    /// A generator of its own for one worker or task, forked from this clock's seed.
    #[must_use]
    pub fn fork_rng(&self) -> fastrand::Rng {
        self.inner.seeds.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }
}

impl WallClock for Clock {
    fn now(&self) -> SystemTime {
        self.wall()
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.wall().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the interval clock")]
fn monotonic() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn system_time() -> SystemTime {
    SystemTime::now()
}
