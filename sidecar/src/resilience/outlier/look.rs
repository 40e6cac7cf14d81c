//! What is found by looking, about once a second, and not by a result: silence, the end of a window, too many ejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{Event, change, micros, moment_us, window};
use crate::model::{
    Cluster, Endpoint,
    health::Standing,
    outlier::{OutlierSettings, Reason},
};

/// Workers look once a second each; whoever comes sooner after another leaves it.
const LOOK_GAP: Duration = Duration::from_millis(750);
/// No shorter silence counts.
const LEAST_SILENCE: Duration = Duration::from_secs(1);
/// Requests that must have waited for nothing, beyond twice what usually waits at the others.
const SILENT_REQUESTS: u32 = 3;
/// Silence towards fewer than that counts after this. Balancing by latency leaves an endpoint with one or two that hang,
/// and asks it nothing more, whether they hang because it does or because they are long polls: a probe tells.
const LONG_SILENCE: Duration = Duration::from_secs(5);
/// A stream that goes on for so long after its head is an answer, however it will end.
const STREAM_IS_ANSWER: Duration = Duration::from_secs(1);

/// Looks at a cluster of the newest snapshot. Any worker may call it, about once a second: one of them does it.
pub fn look(cluster: &Cluster, now: Instant, rng: &mut fastrand::Rng) -> Vec<Event> {
    let Some(settings) = &cluster.settings.outlier else { return Vec::new() };
    let state = &cluster.runtime.outlier;
    let Some(last) = claim(&state.looked_at_us, state.epoch, now, LOOK_GAP) else { return Vec::new() };
    let mut events = change::settle_excess(cluster, settings, now);
    let last = state.epoch + Duration::from_micros(last);
    let talking = notice(cluster, last, now);
    for endpoint in &cluster.endpoints {
        let waits_since = match change::standing(endpoint, now) {
            // One that was heard since the last look is compared with the others at the next one.
            Standing::Usable if heard_at(endpoint) < last => {
                let event = doubt(cluster, settings, (endpoint, &talking), now, rng);
                if event.is_some() {
                    events.extend(event);
                    continue;
                }
                silent_since(endpoint, &talking, now)
            }
            Standing::Due if streams_on(endpoint, now) => {
                events.extend(change::release(cluster, endpoint, None, now));
                None
            }
            Standing::Due => probed_since(endpoint, now),
            Standing::Usable | Standing::Resting(_) | Standing::Unhealthy => None,
        };
        if let Some(since) = waits_since {
            events.extend(silence(cluster, settings, (endpoint, since), now, rng));
        }
    }
    if claim(&state.judged_at_us, state.epoch, now, settings.window).is_some() {
        events.extend(window::judge(cluster, settings, now, rng));
    }
    events
}

/// Takes a turn that is due when `gap` has passed since the last one; when that was, in microseconds after `epoch`.
fn claim(at_us: &AtomicU64, epoch: Instant, now: Instant, gap: Duration) -> Option<u64> {
    let now_us = micros(now.saturating_duration_since(epoch));
    let last = at_us.load(Ordering::Relaxed);
    let is_due = now_us.saturating_sub(last) >= micros(gap);
    let is_taken =
        is_due && at_us.compare_exchange(last, now_us, Ordering::Relaxed, Ordering::Relaxed).is_ok();
    is_taken.then_some(last)
}

/// Notes what has changed since the last look. Gives those that have answered something since.
fn notice(cluster: &Cluster, last: Instant, now: Instant) -> Vec<&Arc<Endpoint>> {
    let mut talking = Vec::new();
    for endpoint in &cluster.endpoints {
        let seen = &endpoint.runtime.seen;
        let successes = seen.successes.load(Ordering::Relaxed);
        let has_answered = seen.successes_at_look.swap(successes, Ordering::Relaxed) != successes;
        if has_answered && change::standing(endpoint, now) == Standing::Usable {
            talking.push(endpoint);
            let before = seen.usually_waiting.load(Ordering::Relaxed);
            let waiting = seen.pending.waited().max(before - before.div_ceil(8));
            seen.usually_waiting.store(waiting, Ordering::Relaxed);
        }
        if heard_at(endpoint) >= last {
            seen.pending.turn();
            seen.waiting_elsewhere.store(0, Ordering::Relaxed);
        }
    }
    talking
}

fn heard_at(endpoint: &Endpoint) -> Instant {
    endpoint.runtime.epoch + Duration::from_micros(endpoint.runtime.heard_at_us.load(Ordering::Relaxed))
}

/// Ejects an endpoint that has said nothing for too long, and tells those that wait for it.
fn silence(
    cluster: &Cluster,
    settings: &OutlierSettings,
    (endpoint, since): (&Arc<Endpoint>, Instant),
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Event> {
    if now.saturating_duration_since(since) < limit(cluster, settings, endpoint, now)? {
        return None;
    }
    let event = change::eject(cluster, endpoint, Reason::Silent, now, rng)?;
    endpoint.runtime.seen.silenced.notify_waiters();
    Some(event)
}

/// Ejects an endpoint that says nothing to the few that wait for it, for as long as it takes to ask it something else. They
/// may well be long polls: nobody tells them, and it does not count against the endpoint the next time.
fn doubt(
    cluster: &Cluster,
    settings: &OutlierSettings,
    (endpoint, talking): (&Arc<Endpoint>, &[&Arc<Endpoint>]),
    now: Instant,
    rng: &mut fastrand::Rng,
) -> Option<Event> {
    let is_few = (1..SILENT_REQUESTS).contains(&young(endpoint));
    let do_others_talk = talking.iter().any(|other| !Arc::ptr_eq(&other.runtime, &endpoint.runtime));
    let silence = now.saturating_duration_since(heard_at(endpoint));
    if !is_few || !do_others_talk || silence < LONG_SILENCE.max(limit(cluster, settings, endpoint, now)?) {
        return None;
    }
    let event = change::eject(cluster, endpoint, Reason::Silent, now, rng)?;
    // A worker that judges a window at this moment may have forgiven it already.
    let less = |count: u32| count.checked_sub(1);
    endpoint.runtime.health.ejections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).ok();
    Some(event)
}

/// Requests that have waited for nothing and are no long polls, as far as is known; those given up included.
fn young(endpoint: &Endpoint) -> u32 {
    let runtime = &endpoint.runtime;
    let waiting = runtime.seen.pending.young().min(runtime.unanswered.load(Ordering::Relaxed));
    waiting.saturating_add(runtime.seen.abandoned.load(Ordering::Relaxed))
}

/// Whether a request begun after its rest has become a stream that goes on.
fn streams_on(endpoint: &Endpoint, now: Instant) -> bool {
    let headed_at_us = endpoint.runtime.seen.headed_at_us.load(Ordering::Relaxed);
    let age = Duration::from_micros(moment_us(endpoint, now).saturating_sub(headed_at_us));
    headed_at_us > 0 && age >= STREAM_IS_ANSWER
}

/// Since when nothing was heard of a usable endpoint that owes more answers than is usual.
fn silent_since(endpoint: &Arc<Endpoint>, talking: &[&Arc<Endpoint>], now: Instant) -> Option<Instant> {
    let runtime = &endpoint.runtime;
    let young = young(endpoint);
    if young < SILENT_REQUESTS {
        return None;
    }
    let elsewhere = window::lower_median(
        talking
            .iter()
            .filter(|other| !Arc::ptr_eq(&other.runtime, runtime))
            .map(|other| other.runtime.seen.usually_waiting.load(Ordering::Relaxed)),
    )?;
    // What waits there will not be new for long, and is of the same kind nevertheless.
    let before = runtime.seen.waiting_elsewhere.fetch_max(elsewhere, Ordering::Relaxed);
    let usual = before.max(elsewhere).saturating_mul(2).saturating_add(SILENT_REQUESTS);
    let since = heard_at(endpoint);
    (young >= usual && now.saturating_duration_since(since) >= LEAST_SILENCE).then_some(since)
}

/// Since when, to within a look, the probe of an endpoint that is due has been under way.
fn probed_since(endpoint: &Endpoint, now: Instant) -> Option<Instant> {
    let seen = &endpoint.runtime.seen;
    if !endpoint.runtime.is_probed() {
        seen.probed_at_us.store(0, Ordering::Relaxed);
        return None;
    }
    match seen.probed_at_us.load(Ordering::Relaxed) {
        0 => {
            seen.probed_at_us.store(moment_us(endpoint, now), Ordering::Relaxed);
            None
        }
        at_us => Some(endpoint.runtime.epoch + Duration::from_micros(at_us)),
    }
}

/// From where on silence is none of those that occur: beyond what the others take for nearly every request. `None` where
/// too little is known of them.
fn limit(
    cluster: &Cluster,
    settings: &OutlierSettings,
    endpoint: &Endpoint,
    now: Instant,
) -> Option<Duration> {
    let factor = settings.slow_factor?;
    let others = || change::others(cluster, endpoint, now).map(|other| &other.runtime.seen.latencies);
    let answers: u64 = others().map(|latencies| latencies.count()).sum();
    if answers < u64::from(settings.min_requests) {
        return None;
    }
    let median = window::lower_median(others().filter_map(|latencies| latencies.quantile(0.5)))?;
    let nearly_all = window::lower_median(others().filter_map(|latencies| latencies.quantile(0.99)))?;
    Some(LEAST_SILENCE.max(median.mul_f64(factor)).max(nearly_all))
}
