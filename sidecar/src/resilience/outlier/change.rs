//! Who is ejected changes here, and nowhere else: under the cluster's lock.

use std::{
    sync::{Arc, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Event, micros, moment_us};
use crate::model::{
    Cluster, Endpoint,
    health::Standing,
    outlier::{OutlierSettings, Reason, Results},
};

/// The rest is longer by up to so much of itself, by chance: endpoints that failed together do not come back together.
const JITTER: f64 = 0.5;

/// Ejects an endpoint, or prolongs the rest of one whose probe failed ([`Reason::Probe`]). `cluster` is that of the newest
/// snapshot. `None` if it is not to be: somebody was faster, too few would be left, or no other does any better.
pub fn eject(
    cluster: &Cluster,
    endpoint: &Endpoint,
    reason: Reason,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Event> {
    let settings = cluster.settings.outlier.as_ref()?;
    let _changing = lock(cluster);
    let standing = standing(endpoint, now);
    let is_due = matches!(standing, Standing::Due);
    // A probe's own failure, or its silence.
    if !(is_due && matches!(reason, Reason::Probe | Reason::Silent)) {
        if standing != Standing::Usable {
            return None;
        }
        if !may_lose_one(cluster, settings, now) || others_fail(cluster, endpoint, now) {
            cluster.runtime.outlier.held_back.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    }
    let health = &endpoint.runtime.health;
    // Where nobody else does any better, an endpoint is not to blame for failing again.
    let grows = !is_due || !others_fail(cluster, endpoint, now);
    let in_a_row = if grows {
        health.ejections.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    } else {
        health.ejections.load(Ordering::Relaxed).max(1)
    };
    let rest = rest(settings, in_a_row, rng);
    let seen = &endpoint.runtime.seen;
    seen.forget();
    // A failed probe leaves the reason as it was: the next one is judged by it, too.
    if !is_due {
        seen.reason.store(reason as u8, Ordering::Relaxed);
    }
    seen.ejected.fetch_add(1, Ordering::Relaxed);
    health.ejected_until_us.store(moment_us(endpoint, now).saturating_add(micros(rest)), Ordering::Release);
    if let Some(count) = cluster.runtime.outlier.ejections.get(reason as usize) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
    Some(Event::Ejected { endpoint: endpoint.address(), reason, rest, in_a_row })
}

/// Lets an endpoint in whose probe went well, and took so long. `None` if it is in already, or was ejected again
/// meanwhile.
pub fn release(
    cluster: &Cluster,
    endpoint: &Endpoint,
    latency: Option<Duration>,
    now: Instant,
) -> Option<Event> {
    let _changing = lock(cluster);
    let is_due = matches!(standing(endpoint, now), Standing::Due);
    is_due.then(|| let_in(cluster, (endpoint, latency), now, false))
}

/// Lets in who is ejected beyond the bound, because others have left or are held back by health checks: those that are
/// due soonest.
pub(super) fn settle_excess(cluster: &Cluster, settings: &OutlierSettings, now: Instant) -> Vec<Event> {
    let ejected =
        |endpoint: &&Arc<Endpoint>| endpoint.runtime.health.ejected_until_us.load(Ordering::Relaxed) > 0;
    // Mostly nobody is.
    if !cluster.endpoints.iter().any(|endpoint| ejected(&endpoint)) {
        return Vec::new();
    }
    let _changing = lock(cluster);
    let excess = unusable(cluster, now).saturating_sub(allowed(cluster, settings));
    let mut resting: Vec<_> = cluster.endpoints.iter().filter(ejected).collect();
    // Those whom health checks hold back would not be of use.
    resting.retain(|endpoint| standing(endpoint, now) != Standing::Unhealthy);
    resting.sort_by_key(|endpoint| until(endpoint));
    resting.truncate(excess);
    resting.into_iter().map(|endpoint| let_in(cluster, (endpoint, None), now, true)).collect()
}

/// When an endpoint's rest ends.
fn until(endpoint: &Endpoint) -> Instant {
    let until_us = endpoint.runtime.health.ejected_until_us.load(Ordering::Relaxed);
    endpoint.runtime.epoch + Duration::from_micros(until_us)
}

fn let_in(
    cluster: &Cluster,
    (endpoint, latency): (&Endpoint, Option<Duration>),
    now: Instant,
    is_needed: bool,
) -> Event {
    let health = &endpoint.runtime.health;
    // What balancing remembers of its failures would keep requests away for as long again. It is as fast as its probe, or
    // as nobody knows.
    let latency_us = latency.map_or(0, |latency| micros(latency).max(1));
    endpoint.runtime.latency_us.store(latency_us, Ordering::Relaxed);
    endpoint.runtime.latency_at_us.store(moment_us(endpoint, now), Ordering::Relaxed);
    endpoint.runtime.is_penalised.store(false, Ordering::Relaxed);
    endpoint.runtime.seen.forget();
    health.back_at_us.store(moment_us(endpoint, now), Ordering::Relaxed);
    health.ejected_until_us.store(0, Ordering::Release);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
    Event::Back { endpoint: endpoint.address(), is_needed }
}

/// How long the rest is that follows so many ejections in a row.
fn rest(settings: &OutlierSettings, in_a_row: u32, rng: &mut fastrand::Rng) -> Duration {
    let factor = 1_u32.checked_shl(in_a_row.saturating_sub(1)).unwrap_or(u32::MAX);
    let grown = settings.ejection_time.saturating_mul(factor).min(settings.max_ejection_time);
    grown.mul_f64(1.0 + JITTER * rng.f64())
}

/// Whether one more endpoint may be out of use.
fn may_lose_one(cluster: &Cluster, settings: &OutlierSettings, now: Instant) -> bool {
    unusable(cluster, now) < allowed(cluster, settings)
}

/// How many endpoints may be out of use: never more than half, so never the last.
fn allowed(cluster: &Cluster, settings: &OutlierSettings) -> usize {
    // At most 50, as `config` has checked.
    cluster.endpoints.len() * settings.max_ejected_percent.min(50) as usize / 100
}

/// How many endpoints are out of use, for whatever reason.
fn unusable(cluster: &Cluster, now: Instant) -> usize {
    cluster.endpoints.iter().filter(|endpoint| standing(endpoint, now) != Standing::Usable).count()
}

/// Whether it is known of every other usable endpoint that it fails more often than not. Of nobody, it is not known.
fn others_fail(cluster: &Cluster, endpoint: &Endpoint, now: Instant) -> bool {
    let mut others = others(cluster, endpoint, now).peekable();
    others.peek().is_some()
        && others.all(|other| {
            let Results { successes, failures } = other.runtime.seen.lately();
            failures > successes
        })
}

/// The endpoints of a cluster that are usable, but for that one.
pub(super) fn others<'a>(
    cluster: &'a Cluster,
    endpoint: &'a Endpoint,
    now: Instant,
) -> impl Iterator<Item = &'a Arc<Endpoint>> {
    let is_other = move |other: &&Arc<Endpoint>| !Arc::ptr_eq(&other.runtime, &endpoint.runtime);
    cluster.endpoints.iter().filter(is_other).filter(move |other| standing(other, now) == Standing::Usable)
}

pub(super) fn standing(endpoint: &Endpoint, now: Instant) -> Standing {
    endpoint.runtime.standing(endpoint.settings.is_ready, now)
}

fn lock(cluster: &Cluster) -> MutexGuard<'_, ()> {
    cluster.runtime.outlier.changing.lock().unwrap_or_else(PoisonError::into_inner)
}
