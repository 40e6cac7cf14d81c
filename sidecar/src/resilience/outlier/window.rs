//! What a window shows: who fails nearly always, who succeeds less often than the others, who is far slower.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Event, change, moment_us};
use crate::model::{
    Cluster, Endpoint,
    health::Standing,
    outlier::{OutlierSettings, Reason, Results},
};

/// The least that the others' rates of success are taken to differ: where none of them failed, one failure would be
/// beyond any number of deviations.
const LEAST_STDEV: f64 = 0.05;
/// A rate counts as lower than the others' where chance would make it so, of as many requests, less than once in several
/// hundred windows.
const SURE_STDEVS: f64 = 3.0;

/// Judges the window that ends, and begins the next one.
pub(super) fn judge(
    cluster: &Cluster,
    settings: &OutlierSettings,
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Vec<Event> {
    let suspects = suspects(cluster, settings, now);
    let ejected = suspects
        .into_iter()
        .filter_map(|(endpoint, reason)| change::eject(cluster, endpoint, reason, now, rng));
    let events = ejected.collect();
    for endpoint in &cluster.endpoints {
        endpoint.runtime.seen.rotate();
        forgive(endpoint, settings.window, now);
    }
    events
}

/// A window without an ejection makes the next rest shorter.
fn forgive(endpoint: &Endpoint, window: Duration, now: Instant) {
    let health = &endpoint.runtime.health;
    let is_in = health.ejected_until_us.load(Ordering::Relaxed) == 0;
    let back = Duration::from_micros(health.back_at_us.load(Ordering::Relaxed));
    let was_back = Duration::from_micros(moment_us(endpoint, now)).saturating_sub(back) >= window;
    if is_in && was_back {
        health
            .ejections
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1))
            .ok();
    }
}

/// Who is to be ejected, the worst first: not all of them may be.
fn suspects<'a>(
    cluster: &'a Cluster,
    settings: &OutlierSettings,
    now: Instant,
) -> Vec<(&'a Arc<Endpoint>, Reason)> {
    let asked: Vec<_> = cluster
        .endpoints
        .iter()
        .map(|endpoint| (endpoint, endpoint.runtime.seen.in_window()))
        .filter(|(endpoint, results)| {
            results.total() >= u64::from(settings.min_requests)
                && change::standing(endpoint, now) == Standing::Usable
        })
        .collect();
    let has_enough = asked.len() >= settings.min_endpoints as usize;
    let mut failing = failing(&asked, settings);
    if has_enough {
        failing.extend(poorer(&asked, settings));
    }
    failing.sort_by(|one, other| one.0.total_cmp(&other.0));
    let mut suspects: Vec<_> = failing.into_iter().map(|(_, endpoint, reason)| (endpoint, reason)).collect();
    if has_enough {
        suspects.extend(slower(&asked, settings));
    }
    suspects
}

type Asked<'a> = (&'a Arc<Endpoint>, Results);

/// Who fails nearly always, with its rate of success.
fn failing<'a>(asked: &[Asked<'a>], settings: &OutlierSettings) -> Vec<(f64, &'a Arc<Endpoint>, Reason)> {
    let Some(percent) = settings.failure_percent else { return Vec::new() };
    asked
        .iter()
        .filter(|(_, results)| results.failures * 100 >= results.total() * u64::from(percent))
        .map(|(endpoint, results)| (rate(*results), *endpoint, Reason::FailurePercent))
        .collect()
}

/// Who succeeds less often than the others, with its rate.
#[expect(clippy::cast_precision_loss, reason = "counts of a window")]
fn poorer<'a>(asked: &[Asked<'a>], settings: &OutlierSettings) -> Vec<(f64, &'a Arc<Endpoint>, Reason)> {
    let Some(factor) = settings.success_rate_stdev.filter(|_| asked.len() > 1) else { return Vec::new() };
    let rates: Vec<f64> = asked.iter().map(|(_, results)| rate(*results)).collect();
    let (sum, squares) = rates.iter().fold((0.0, 0.0), |(sum, squares), r| (sum + r, squares + r * r));
    let all = asked.iter().fold(Results::default(), |all, (_, one)| Results {
        successes: all.successes + one.successes,
        failures: all.failures + one.failures,
    });
    let pooled = rate(all);
    let others = (asked.len() - 1) as f64;
    let mut found = Vec::new();
    for ((endpoint, results), own) in asked.iter().zip(rates) {
        let mean = (sum - own) / others;
        let stdev = ((squares - own * own) / others - mean * mean).max(0.0).sqrt();
        let by_chance = (pooled * (1.0 - pooled) / results.total() as f64).max(0.0).sqrt();
        let shortfall = mean - own;
        if shortfall >= factor * stdev.max(LEAST_STDEV) && shortfall >= SURE_STDEVS * by_chance {
            found.push((own, *endpoint, Reason::SuccessRate));
        }
    }
    found
}

/// Who is far slower than the others, the slowest first.
fn slower<'a>(asked: &[Asked<'a>], settings: &OutlierSettings) -> Vec<(&'a Arc<Endpoint>, Reason)> {
    let Some(factor) = settings.slow_factor else { return Vec::new() };
    let mut medians: Vec<_> = asked
        .iter()
        .filter(|(endpoint, _)| {
            endpoint.runtime.seen.latencies.count_in_window() >= u64::from(settings.min_requests)
        })
        .filter_map(|(endpoint, _)| {
            Some((endpoint.runtime.seen.latencies.quantile_in_window(0.5)?, *endpoint))
        })
        .collect();
    if medians.len() < (settings.min_endpoints as usize).max(2) {
        return Vec::new();
    }
    medians.sort_by_key(|(median, _)| *median);
    // The lower of the two in the middle where the others are an even number.
    let middle = (medians.len() - 2) / 2;
    let is_slow = |(place, (median, _)): &(usize, &(Duration, &Arc<Endpoint>))| {
        let others = medians.get(if middle < *place { middle } else { middle + 1 });
        others.is_some_and(|(others, _)| *median > slow_limit(settings, factor, *others))
    };
    let slow: Vec<_> =
        medians.iter().enumerate().filter(is_slow).map(|(_, (_, endpoint))| *endpoint).collect();
    slow.into_iter().rev().map(|endpoint| (endpoint, Reason::Slow)).collect()
}

/// From where on a latency is slow where the others' median is that.
fn slow_limit(settings: &OutlierSettings, factor: f64, others: Duration) -> Duration {
    others.mul_f64(factor).max(settings.slow_floor)
}

/// Whether the answer of a probe shows that an endpoint is as slow as it was.
pub(super) fn is_slow(cluster: &Cluster, endpoint: &Endpoint, latency: Duration, now: Instant) -> bool {
    let Some(settings) = &cluster.settings.outlier else { return false };
    let others = lower_median(
        change::others(cluster, endpoint, now).filter_map(|other| other.runtime.seen.latencies.quantile(0.5)),
    );
    match (others, settings.slow_factor) {
        (Some(others), Some(factor)) => latency > slow_limit(settings, factor, others),
        (None, _) | (_, None) => false,
    }
}

/// The one in the middle; of an even number, the lower of the two.
pub(super) fn lower_median<T: Ord>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut values: Vec<T> = values.collect();
    values.sort_unstable();
    let middle = values.len().checked_sub(1)? / 2;
    values.into_iter().nth(middle)
}

/// The share of successes, 0.0..=1.0.
#[expect(clippy::cast_precision_loss, reason = "counts of a window")]
fn rate(results: Results) -> f64 {
    results.successes as f64 / results.total().max(1) as f64
}
