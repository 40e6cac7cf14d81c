//! An endpoint that says it has too much to do is given less for a while.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{micros, moment_us};
use crate::model::{Cluster, Endpoint};

/// How long an endpoint is given less that does not say for how long (Linkerd's Load Biaser).
pub const OVERLOAD: Duration = Duration::from_secs(5);
/// The most that it may ask for (as Linkerd and Envoy).
pub const MAX_OVERLOAD: Duration = Duration::from_secs(300);

/// Notes that an endpoint is overloaded for `asked`, or for [`OVERLOAD`]; at most for [`MAX_OVERLOAD`]. A shorter time
/// than is noted already changes nothing. No lock.
pub fn overload(cluster: &Cluster, endpoint: &Endpoint, asked: Option<Duration>, now: Instant) {
    if cluster.settings.outlier.is_none() {
        return;
    }
    let now_us = moment_us(endpoint, now);
    let until_us = now_us.saturating_add(micros(asked.unwrap_or(OVERLOAD).min(MAX_OVERLOAD)));
    let before = endpoint.runtime.health.overloaded_until_us.fetch_max(until_us, Ordering::Relaxed);
    // One that was so already has its weight already; who works that out looks again when the time is over.
    if before <= now_us && until_us > now_us {
        cluster.runtime.standings.fetch_add(1, Ordering::Release);
    }
}
