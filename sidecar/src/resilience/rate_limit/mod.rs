//! Rate limits: may one more request begin now?
//!
//! The generic cell rate algorithm (ITU-T I.371, "virtual scheduling"), which is a token bucket in one number. A request
//! costs the interval `per / requests`; the number is the time at which everything used will be paid for. A request is
//! let through if, with it, that time is at most `burst` intervals away:
//!
//! ```text
//! full at ──▶ max(full at, now) + interval   if that is ≤ now + burst × interval; else nothing changes
//! ```
//! So between any two moments no more than `burst + requests / per × time` are let through, whatever came before. Nothing
//! runs in the background, and a refused request changes nothing: a flood does not keep itself out for longer.
//!
//! # Invariants
//! - No lock and no allocation for a caller who is known; one compare-and-swap for each limit.
//! - A bucket is dropped only when it is full, and never while somebody takes from it: see [`DROPPED`].

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use crate::model::rate_limit::{
    Bucket, By, Caller, MAX_CALLERS, MAX_RATE_LIMITS, Quota, RateLimit, RateLimitState, RateLimiter,
};

/// What a bucket holds that has made room for another caller's: nothing is taken from it any more.
const DROPPED: u64 = u64::MAX;
/// Where there are too many callers, room is looked for no more often than this: a second, in nanoseconds.
const LOOK_FOR_ROOM: u64 = 1_000_000_000;

/// What a request has used of each limit, in case it turns out to be none.
#[derive(Clone, Copy, Debug)]
#[must_use = "what was taken can be given back"]
pub struct Taken {
    at: Instant,
    parts: [Part; MAX_RATE_LIMITS],
}

/// A bucket as it was when something was taken from it.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    /// With what was taken.
    full_at: u64,
    /// At most.
    given_back: u64,
}

/// Lets one more request through all of these limits ([`MAX_RATE_LIMITS`] at most), or through none.
///
/// # Errors
/// The limit with the longest wait among those that have nothing left.
pub fn take(limiters: &[RateLimiter], caller: Option<&Caller>, now: Instant) -> Result<Taken, Box<Quota>> {
    let mut taken = Taken { at: now, parts: Default::default() };
    let mut longest: Option<Box<Quota>> = None;
    let mut taken_of = limiters.len();
    for (index, (limiter, part)) in limiters.iter().zip(&mut taken.parts).enumerate() {
        let RateLimiter { limit, state } = limiter;
        let at = since(state, now);
        let is_wanted = longest.is_none();
        match on_bucket(limiter, caller, at, |bucket| step(bucket, limit, at, is_wanted)) {
            Ok(new) if is_wanted => *part = new,
            Ok(_) => {}
            Err(full_at) => {
                state.refused.fetch_add(1, Ordering::Relaxed);
                let quota = quota(limit, full_at, at);
                if longest.as_ref().is_none_or(|longest| longest.wait < quota.wait) {
                    longest = Some(Box::new(quota));
                }
                taken_of = taken_of.min(index);
            }
        }
    }
    match longest {
        None => Ok(taken),
        Some(quota) => {
            taken.give_back(limiters.get(..taken_of).unwrap_or_default(), caller, now);
            Err(quota)
        }
    }
}

impl Taken {
    /// There was no request after all: what it used of these limits is there again, as far as it would be if it had never
    /// been taken.
    ///
    /// A bucket that has been full since does not remember it. One that cannot have been differs by what time has not paid
    /// for yet: it was full at `full_at` at the earliest, less what others gave back meanwhile.
    pub fn give_back(self, limiters: &[RateLimiter], caller: Option<&Caller>, now: Instant) {
        for (RateLimiter { limit, state }, part) in limiters.iter().zip(self.parts) {
            let give = |bucket: &Bucket| {
                if bucket.made_at > since(state, self.at) {
                    return;
                }
                let by_others = bucket.given_back.load(Ordering::Relaxed).saturating_sub(part.given_back);
                let unpaid = part.full_at.saturating_sub(by_others).saturating_sub(since(state, now));
                let refund = unpaid.min(interval(limit));
                // First, so that nobody else counts on what is being given back.
                bucket.given_back.fetch_add(refund, Ordering::Relaxed);
                let change = |full_at: u64| (full_at != DROPPED).then(|| full_at.saturating_sub(refund));
                // One that was dropped was full.
                bucket.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change).ok();
            };
            // Where it was taken of the shared one for want of room and there is room since, nothing is given back.
            match caller.filter(|_| limit.by == By::Caller) {
                None => give(&state.shared),
                Some(caller) => {
                    if let Some(bucket) = state.callers.load().get(caller) {
                        give(bucket);
                    }
                }
            }
        }
    }

    /// What is left of the limits that always tell.
    #[must_use]
    pub fn quotas(self, limiters: &[RateLimiter], now: Instant) -> Vec<Quota> {
        let told = limiters.iter().zip(self.parts).filter(|(limiter, _)| limiter.limit.tells_always);
        told.map(|(RateLimiter { limit, state }, part)| quota(limit, part.full_at, since(state, now)))
            .collect()
    }
}

/// Requests that would be let through at once; for a look at it from outside.
#[must_use]
pub fn left(RateLimiter { limit, state }: &RateLimiter, bucket: &Bucket, now: Instant) -> u32 {
    match bucket.full_at.load(Ordering::Relaxed) {
        DROPPED => limit.burst,
        full_at => quota(limit, full_at, since(state, now)).left,
    }
}

/// What came of a look at a bucket, and when it is full again.
enum Step {
    Taken(Part),
    Refused(u64),
    /// It has made room for another's.
    Dropped,
}

/// The rule of the module; where nothing `is_wanted`, what it would come to.
fn step(bucket: &Bucket, limit: &RateLimit, now: u64, is_wanted: bool) -> Step {
    let interval = interval(limit);
    let latest = now.saturating_add(interval.saturating_mul(limit.burst.into()));
    let next = |full_at: u64| {
        full_at.max(now).checked_add(interval).filter(|next| *next <= latest && *next != DROPPED)
    };
    let change = |full_at: u64| if full_at == DROPPED { None } else { next(full_at) };
    // Before it is taken: what is given back in between then counts as given back by others.
    let given_back = bucket.given_back.load(Ordering::Relaxed);
    let changed = if is_wanted {
        bucket.full_at.fetch_update(Ordering::Relaxed, Ordering::Relaxed, change)
    } else {
        let full_at = bucket.full_at.load(Ordering::Relaxed);
        change(full_at).map(|_next| full_at).ok_or(full_at)
    };
    match changed {
        Ok(before) => Step::Taken(Part { full_at: before.max(now).saturating_add(interval), given_back }),
        Err(DROPPED) => Step::Dropped,
        Err(before) => Step::Refused(before),
    }
}

/// Does that with the bucket of a caller, or with the shared one. `Ok` and `Err` as [`Step`].
fn on_bucket(
    RateLimiter { limit, state }: &RateLimiter,
    caller: Option<&Caller>,
    now: u64,
    step: impl Fn(&Bucket) -> Step,
) -> Result<Part, u64> {
    if let Some(caller) = caller.filter(|_| limit.by == By::Caller) {
        let known = state.callers.load();
        let step_of = |bucket: &Arc<Bucket>| match step(bucket) {
            Step::Taken(part) => Some(Ok(part)),
            Step::Refused(full_at) => Some(Err(full_at)),
            Step::Dropped => None,
        };
        if let Some(result) = known.get(caller).and_then(step_of) {
            return result;
        }
        // A new one is not dropped at once: room is not looked for again within a second.
        if let Some(result) = add(state, caller, now).as_ref().and_then(step_of) {
            return result;
        }
        state.beyond.fetch_add(1, Ordering::Relaxed);
    }
    match step(&state.shared) {
        Step::Taken(part) => Ok(part),
        Step::Refused(full_at) => Err(full_at),
        // Nobody drops the shared one.
        Step::Dropped => Err(now),
    }
}

/// The bucket of a caller who has none yet; `None` if there is no room for another.
fn add(state: &RateLimitState, caller: &Caller, now: u64) -> Option<Arc<Bucket>> {
    let mut looked = state.making_room.lock().unwrap_or_else(PoisonError::into_inner);
    let known = state.callers.load();
    // One that was dropped is not in there any more: it was taken out under this lock.
    if let Some(bucket) = known.get(caller) {
        return Some(Arc::clone(bucket));
    }
    let mut callers: HashMap<Caller, Arc<Bucket>>;
    if known.len() < MAX_CALLERS {
        callers = HashMap::clone(&known);
    } else {
        if looked.is_some_and(|looked| now < looked.saturating_add(LOOK_FOR_ROOM)) {
            return None;
        }
        *looked = Some(now);
        callers = known.iter().filter(|(_, bucket)| !is_dropped(bucket, now)).map(clone).collect();
    }
    let bucket = Arc::new(Bucket { made_at: now, ..Bucket::default() });
    let has_room = callers.len() < MAX_CALLERS;
    if has_room {
        callers.insert(caller.clone(), Arc::clone(&bucket));
    }
    if has_room || callers.len() < known.len() {
        state.callers.store(Arc::new(callers));
    }
    has_room.then_some(bucket)
}

fn clone((caller, bucket): (&Caller, &Arc<Bucket>)) -> (Caller, Arc<Bucket>) {
    (caller.clone(), Arc::clone(bucket))
}

/// Takes a bucket out of use, unless there is anything to remember of it.
fn is_dropped(bucket: &Bucket, now: u64) -> bool {
    let full_at = bucket.full_at.load(Ordering::Relaxed);
    full_at <= now
        && bucket.full_at.compare_exchange(full_at, DROPPED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
}

/// What one request costs, in nanoseconds; rounded up, so that the rate is never exceeded.
fn interval(limit: &RateLimit) -> u64 {
    let per = u64::try_from(limit.per.as_nanos()).unwrap_or(u64::MAX);
    per.div_ceil(limit.requests.max(1).into())
}

fn since(state: &RateLimitState, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(state.epoch).as_nanos()).unwrap_or(u64::MAX)
}

/// What is left of a bucket that is full again at `full_at`.
fn quota(limit: &RateLimit, full_at: u64, now: u64) -> Quota {
    let interval = interval(limit);
    let latest = now.saturating_add(interval.saturating_mul(limit.burst.into()));
    let free = latest.saturating_sub(full_at.max(now));
    let left = u32::try_from(free / interval).unwrap_or(u32::MAX).min(limit.burst);
    // With an interval more than that free, there is one more.
    let wait = if left == limit.burst { 0 } else { interval - free % interval };
    Quota { limit: limit.clone(), left, wait: Duration::from_nanos(wait) }
}

#[cfg(test)]
mod tests;
