//! How long a peer's HTTP connection may last before it is ended in favour of a new one.
//!
//! Callers that balance by connection find new endpoints only by connecting again. Nothing is lost by it: HTTP/1 ends with
//! an answer, which says so; HTTP/2 by GOAWAY, after what is under way.

use std::time::{Duration, Instant};

use super::{
    door::{Door, From},
    worker::Worker,
};
use crate::net::Net;

/// A connection's jitter: its greatest age is this share of the configured one, in thousandths, as that of upstream ones.
const PERMILLE: std::ops::RangeInclusive<u32> = 900..=1100;

/// When a connection is ended; `None`: never, or that has begun.
#[derive(Debug)]
pub(super) struct Age(Option<Instant>);

impl Age {
    /// Of a connection that begins now. The own app's has none: a new one would lead here, too.
    pub(super) fn new<N: Net>(worker: &Worker<N>, door: &Door) -> Self {
        if matches!(door.from, From::App { .. }) {
            return Self(None);
        }
        let age = door.load(&worker.snapshots).config.settings.limits.connection_age;
        let permille = worker.with_rng(|rng| rng.u32(PERMILLE));
        Self(age.map(|age| worker.now() + (age / 1000).saturating_mul(permille)))
    }

    /// Whether it has an end that has not begun.
    pub(super) fn is_limited(&self) -> bool {
        self.0.is_some()
    }

    /// How long it may go on; nothing where it may for ever.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.0.map(|at| at.saturating_duration_since(now)).unwrap_or_default()
    }

    /// Says so if the end has come: from then on, the next answer is the last. Only such an answer ends HTTP/1: a close while
    /// it is idle could cross a request.
    pub(super) fn check(&mut self, door: &Door, now: Instant) {
        if self.0.take_if(|at| *at <= now).is_some() {
            door.grow_old();
        }
    }
}
