use std::{net::Ipv4Addr, sync::Barrier, thread};

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, per: Duration, burst: u32, by: By) -> RateLimit {
    RateLimit { name: "test".into(), requests, per, burst, by, tells_always: true }
}

fn limiter(limit: RateLimit, now: Instant) -> RateLimiter {
    RateLimiter { limit, state: Arc::new(RateLimitState::new(now)) }
}

fn all(requests: u32, burst: u32, now: Instant) -> [RateLimiter; 1] {
    [limiter(limit(requests, SECOND, burst, By::All), now)]
}

fn caller(number: u32) -> Caller {
    Caller::Address(Ipv4Addr::from(number).into())
}

#[test]
fn a_burst_is_let_through_and_then_one_in_each_interval() {
    let now = Instant::now();
    let limiters = all(10, 3, now);
    let take = |after| take(&limiters, None, now + Duration::from_millis(after));
    for _ in 0..3 {
        assert!(take(0).is_ok());
    }
    let quota = take(40).unwrap_err();
    assert_eq!((quota.left, quota.wait), (0, Duration::from_millis(60)));
    assert!(take(99).is_err());
    assert!(take(100).is_ok() && take(100).is_err(), "as it was told");
    assert!(take(5_000).is_ok() && take(5_000).is_ok() && take(5_000).is_ok());
    assert!(take(5_000).is_err(), "rest earns no more than a burst");
    assert_eq!(limiters[0].state.refused.load(Ordering::Relaxed), 4);
}

#[test]
fn what_is_left_is_told() {
    let now = Instant::now();
    let limiters = all(10, 3, now);
    let told = |after| {
        let now = now + Duration::from_millis(after);
        let quotas = take(&limiters, None, now).unwrap().quotas(&limiters, now);
        (quotas[0].left, quotas[0].wait)
    };
    assert_eq!(told(0), (2, Duration::from_millis(100)));
    assert_eq!(told(30), (1, Duration::from_millis(70)));
    assert_eq!(told(1_000), (2, Duration::from_millis(100)));
}

#[test]
fn callers_do_not_touch_each_other() {
    let now = Instant::now();
    let limiters = [limiter(limit(1, SECOND, 2, By::Caller), now)];
    let (one, other) = (caller(1), caller(2));
    while take(&limiters, Some(&one), now).is_ok() {}
    assert!(take(&limiters, Some(&other), now).is_ok() && take(&limiters, Some(&other), now).is_ok());
    assert!(take(&limiters, Some(&other), now).is_err());
    assert!(take(&limiters, None, now).is_ok(), "whoever is nobody is one more");
}

#[test]
fn what_one_limit_refuses_the_others_have_not_spent() {
    let now = Instant::now();
    let limiters = [
        limiter(limit(1, SECOND, 5, By::All), now),
        limiter(limit(1, 4 * SECOND, 1, By::Caller), now),
        limiter(limit(1, 2 * SECOND, 1, By::All), now),
    ];
    assert!(take(&limiters, Some(&caller(1)), now).is_ok());
    for _ in 0..10 {
        let quota = take(&limiters, Some(&caller(1)), now).unwrap_err();
        assert_eq!(quota.wait, 4 * SECOND, "the longest of all waits");
    }
    assert_eq!(limiters[0].state.shared.full_at.load(Ordering::Relaxed), 1_000_000_000, "one second's worth");
}

#[test]
fn as_many_callers_as_there_is_room_for_and_the_rest_share() {
    let now = Instant::now();
    let limiters = [limiter(limit(1, 10 * SECOND, 2, By::Caller), now)];
    let state = &limiters[0].state;
    let let_through = |now| (0..20_000).filter(|it| take(&limiters, Some(&caller(*it)), now).is_ok()).count();
    assert_eq!(let_through(now), MAX_CALLERS + 2);
    assert_eq!(state.callers.load().len(), MAX_CALLERS);
    assert_eq!(state.beyond.load(Ordering::Relaxed), 20_000 - MAX_CALLERS as u64);
    // Those whose buckets are full again are remembered for nothing.
    let later = now + 10 * SECOND;
    assert!(take(&limiters, Some(&caller(30_000)), later).is_ok());
    assert_eq!(state.callers.load().len(), 1);
    assert_eq!(state.beyond.load(Ordering::Relaxed), 20_000 - MAX_CALLERS as u64);
}

#[test]
fn who_still_owes_keeps_a_bucket_while_others_make_room() {
    let now = Instant::now();
    let limiters = [limiter(limit(1, SECOND, 5, By::Caller), now)];
    while take(&limiters, Some(&caller(0)), now).is_ok() {}
    for it in 1..MAX_CALLERS as u32 {
        take(&limiters, Some(&caller(it)), now).map(drop).unwrap();
    }
    let later = now + 2 * SECOND;
    assert!(take(&limiters, Some(&caller(5_000)), later).is_ok());
    assert_eq!(limiters[0].state.callers.load().len(), 2);
    assert!(
        take(&limiters, Some(&caller(0)), later).is_ok() && take(&limiters, Some(&caller(0)), later).is_ok()
    );
    assert!(take(&limiters, Some(&caller(0)), later).is_err(), "two seconds' worth");
}

#[test]
fn the_slowest_limit_with_the_largest_burst_ends_too() {
    let now = Instant::now();
    let limiters = [limiter(limit(1, 24 * 3600 * SECOND, 1_000_000, By::All), now)];
    limiters[0].state.shared.full_at.store(DROPPED - 2 * 86_400_000_000_000, Ordering::Relaxed);
    let let_through = (0..10).filter(|_| take(&limiters, None, now).is_ok()).count();
    assert_eq!(let_through, 1, "no turn to the beginning");
}

#[test]
fn threads_that_race_are_let_through_no_more_than_one() {
    let now = Instant::now();
    let limiters = [limiter(limit(1, SECOND, 100, By::Caller), now)];
    for callers in [1_u32, 3, 5_000] {
        let start = Barrier::new(4);
        let later = now + Duration::from_secs(u64::from(callers) * 1_000);
        let through: Vec<u32> = thread::scope(|scope| {
            let threads = [0; 4].map(|_| {
                scope.spawn(|| {
                    start.wait();
                    let asked = (0..40_000)
                        .filter(|turn| take(&limiters, Some(&caller(turn % callers)), later).is_ok());
                    u32::try_from(asked.count()).unwrap()
                })
            });
            threads.map(|thread| thread.join().unwrap()).to_vec()
        });
        let through: u32 = through.iter().sum();
        assert!(through <= 100 * callers.min(MAX_CALLERS as u32 + 1), "{callers} callers: {through}");
        assert!(callers > 3 || through == 100 * callers, "{callers} callers: {through}");
    }
}

/// What happens to a bucket.
#[derive(Clone, Copy, Debug)]
enum Event {
    Wait(u64),
    Take,
    /// The take of that place, if it was let through and still stands, was none.
    GiveBack(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        2 => (0_u64..400).prop_map(Event::Wait),
        6 => Just(Event::Take),
        2 => (0_usize..8).prop_map(Event::GiveBack),
    ]
}

proptest! {
    /// Between any two moments no more stands than `burst + rate × time`, whatever was taken, refused and given back.
    #[test]
    fn never_more_than_a_burst_and_the_rate(
        requests in 1_u32..50,
        burst in 1_u32..20,
        events in proptest::collection::vec(event(), 1..200),
    ) {
        let start = Instant::now();
        let limiters = all(requests, burst, start);
        let (mut at, mut standing) = (Duration::ZERO, Vec::new());
        for event in events {
            match event {
                Event::Wait(millis) => at += Duration::from_millis(millis),
                Event::Take => if let Ok(taken) = take(&limiters, None, start + at) {
                    standing.push((at, taken));
                },
                Event::GiveBack(back) => if standing.len() > back {
                    let (_, taken) = standing.remove(standing.len() - 1 - back);
                    taken.give_back(&limiters, None, start + at);
                },
            }
            for (first, (from, _)) in standing.iter().enumerate() {
                for (last, (to, _)) in standing.iter().enumerate().skip(first) {
                    let count = last - first + 1;
                    let most = f64::from(burst) + f64::from(requests) * (*to - *from).as_secs_f64();
                    prop_assert!(count as f64 <= most + 1e-6, "{count} in {:?}, at most {most}", *to - *from);
                }
            }
        }
    }

    /// As a bucket that is refilled step by step: what may be let through is.
    #[test]
    fn as_generous_as_a_bucket_that_fills(
        requests in 1_u32..50,
        burst in 1_u32..20,
        waits in proptest::collection::vec(0_u64..400, 1..200),
    ) {
        let start = Instant::now();
        let limiters = all(requests, burst, start);
        let interval = 1_000_000_000_u64.div_ceil(requests.into());
        let (mut at, mut tokens) = (0_u64, u64::from(burst) * interval);
        for wait in waits {
            at += wait * 1_000_000;
            tokens = (tokens + wait * 1_000_000).min(u64::from(burst) * interval);
            let is_there = tokens >= interval;
            let taken = take(&limiters, None, start + Duration::from_nanos(at));
            prop_assert_eq!(taken.is_ok(), is_there);
            if let Err(quota) = taken {
                prop_assert_eq!(quota.wait, Duration::from_nanos(interval - tokens));
                let told = start + Duration::from_nanos(at) + quota.wait;
                let is_there = |when| {
                    let at = since(&limiters[0].state, when);
                    matches!(step(&limiters[0].state.shared, &limiters[0].limit, at, false), Step::Taken(_))
                };
                prop_assert!(is_there(told) && !is_there(told - Duration::from_nanos(1)), "as it was told");
            } else {
                tokens -= interval;
            }
        }
    }
}
