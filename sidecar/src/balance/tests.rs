use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::model::{ClusterSettings, fixture, runtime::EndpointRuntime};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn cluster(balance: Balance, endpoints: u8, now: Instant) -> Cluster {
    fixture::cluster(ClusterSettings { balance, ..fixture::settings("orders") }, endpoints, now)
}

fn rng() -> fastrand::Rng {
    fastrand::Rng::with_seed(7)
}

/// How often each of the endpoints is chosen in `times` choices; nothing is sent.
fn choices(cluster: &Cluster, times: usize, now: Instant) -> Vec<usize> {
    let mut rng = rng();
    let mut counts: BTreeMap<SocketAddr, usize> =
        cluster.endpoints.iter().map(|endpoint| (endpoint.address(), 0)).collect();
    for _ in 0..times {
        let endpoint = pick(cluster, &Tried::default(), now, &mut rng).unwrap();
        *counts.get_mut(&endpoint.address()).unwrap() += 1;
    }
    counts.into_values().collect()
}

fn new_runtime() -> (EndpointRuntime, Instant) {
    let now = Instant::now();
    (EndpointRuntime::new(now), now)
}

// --- picking -----------------------------------------------------------------

#[test]
fn no_endpoint_no_choice() {
    let now = Instant::now();
    for balance in [Balance::PeakEwma, Balance::RoundRobin] {
        assert!(pick(&cluster(balance, 0, now), &Tried::default(), now, &mut rng()).is_none());
    }
}

#[test]
fn a_choice_is_counted() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    assert!(pick(&cluster, &Tried::default(), now, &mut rng()).is_some());
    assert_eq!(cluster.endpoints[0].runtime.picks.load(Ordering::Relaxed), 1);
}

#[test]
fn equal_endpoints_are_chosen_equally() {
    let now = Instant::now();
    for balance in [Balance::PeakEwma, Balance::RoundRobin] {
        for count in choices(&cluster(balance, 5, now), 10_000, now) {
            assert!((1_850..2_150).contains(&count), "{balance:?}: {count}");
        }
    }
}

#[test]
fn round_robin_takes_turns_and_passes_over_tried_ones() {
    let now = Instant::now();
    let cluster = cluster(Balance::RoundRobin, 3, now);
    let mut tried = Tried::default();
    let next = |tried: &Tried| pick(&cluster, tried, now, &mut rng()).unwrap().address();
    let address = |index: usize| cluster.endpoints[index].address();
    assert_eq!([next(&tried), next(&tried), next(&tried), next(&tried)], [0, 1, 2, 0].map(address));
    tried.insert(address(1));
    assert_eq!([next(&tried), next(&tried), next(&tried)], [2, 2, 0].map(address));
}

#[test]
fn round_robin_survives_the_end_of_its_cursor() {
    let now = Instant::now();
    let cluster = cluster(Balance::RoundRobin, 3, now);
    cluster.runtime.cursor.store(usize::MAX, Ordering::Relaxed);
    assert_eq!(choices(&cluster, 4, now).iter().sum::<usize>(), 4);
}

#[test]
fn the_dearest_of_all_is_never_chosen_while_it_is() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 4, now);
    ewma::record(&cluster.endpoints[2].runtime, SECOND, now);
    assert_eq!(choices(&cluster, 1_000, now)[2], 0);
}

#[test]
fn when_all_were_tried_the_cheapest_is_chosen() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 4, now);
    let mut tried = Tried::default();
    for (index, endpoint) in cluster.endpoints.iter().enumerate() {
        let latency = if index == 2 { 40 * MS } else { SECOND };
        ewma::record(&endpoint.runtime, latency, now);
        tried.insert(endpoint.address());
    }
    for seed in 0..50 {
        let chosen = pick(&cluster, &tried, now, &mut fastrand::Rng::with_seed(seed)).unwrap();
        assert_eq!(chosen.address(), cluster.endpoints[2].address());
    }
}

#[test]
fn tried_holds_eleven_and_forgets_the_rest() {
    let mut tried = Tried::default();
    let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
    for port in 1..=12 {
        tried.insert(address(port));
        tried.insert(address(port));
    }
    assert!((1..=11).all(|port| tried.contains(address(port))));
    assert!(!tried.contains(address(12)));
}

proptest! {
    #[test]
    fn a_choice_is_untried_if_anything_is(
        count in 1_u8..13,
        tried_ones in proptest::collection::vec(0_usize..13, 0..12),
        is_round_robin: bool,
        seed: u64,
    ) {
        let now = Instant::now();
        let balance = if is_round_robin { Balance::RoundRobin } else { Balance::PeakEwma };
        let cluster = cluster(balance, count, now);
        let mut tried = Tried::default();
        for index in tried_ones {
            if let Some(endpoint) = cluster.endpoints.get(index) {
                tried.insert(endpoint.address());
            }
        }
        let is_any_left = cluster.endpoints.iter().any(|endpoint| !tried.contains(endpoint.address()));
        let chosen = pick(&cluster, &tried, now, &mut fastrand::Rng::with_seed(seed)).unwrap();
        prop_assert!(!is_any_left || !tried.contains(chosen.address()));
    }
}

// --- cost --------------------------------------------------------------------

/// Cost in milliseconds, rounded.
fn cost_ms(runtime: &EndpointRuntime, now: Instant) -> u64 {
    (ewma::cost(runtime, now) / 1_000.0).round() as u64
}

#[test]
fn an_unknown_endpoint_costs_the_default_round_trip_time() {
    let (runtime, now) = new_runtime();
    assert_eq!(cost_ms(&runtime, now), 30);
}

#[test]
fn a_peak_counts_at_once_and_an_ease_by_and_by() {
    let (runtime, now) = new_runtime();
    ewma::record(&runtime, 100 * MS, now);
    assert_eq!(cost_ms(&runtime, now), 100);
    ewma::record(&runtime, 10 * MS, now);
    assert_eq!(cost_ms(&runtime, now), 100, "no time has passed");
    let later = now + ewma::DECAY;
    ewma::record(&runtime, 10 * MS, later);
    // 100/e + 10·(1 − 1/e)
    assert_eq!(cost_ms(&runtime, later), 43);
}

#[test]
fn a_memory_fades_so_that_a_slow_endpoint_is_asked_again() {
    let (runtime, now) = new_runtime();
    ewma::record(&runtime, SECOND, now);
    assert_eq!(cost_ms(&runtime, now + ewma::DECAY), 368);
    assert_eq!(cost_ms(&runtime, now + 20 * ewma::DECAY), 0);
}

#[test]
fn each_request_in_flight_costs_one_time_more() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let endpoint = &cluster.endpoints[0];
    let held = [InFlight::start(endpoint, now), InFlight::start(endpoint, now)];
    assert_eq!(cost_ms(&endpoint.runtime, now), 90);
    drop(held);
    assert_eq!(cost_ms(&endpoint.runtime, now), 30);
}

#[test]
fn an_endpoint_that_owes_answers_becomes_dear_while_it_is_silent() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let endpoint = &cluster.endpoints[0];
    let _first = InFlight::start(endpoint, now);
    let mut second = InFlight::start(endpoint, now + SECOND);
    assert_eq!(cost_ms(&endpoint.runtime, now + 2 * SECOND), 6_000, "2 s of silence × 3");
    // Something was heard: the silence starts afresh.
    second.answered(now + 2 * SECOND);
    let after = cost_ms(&endpoint.runtime, now + 2 * SECOND);
    assert!((2_999..=3_000).contains(&after), "1 s of latency × 3: {after}");
}

#[test]
fn a_long_answered_stream_is_load_but_not_silence() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let endpoint = &cluster.endpoints[0];
    let mut stream = InFlight::start(endpoint, now);
    stream.answered(now + MS);
    let much_later = now + 3_600 * SECOND;
    assert_eq!(cost_ms(&endpoint.runtime, much_later), 0);
    assert_eq!(endpoint.runtime.in_flight.load(Ordering::Relaxed), 1);
}

#[test]
fn silence_counts_from_the_first_request_not_from_the_last_answer_long_ago() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let endpoint = &cluster.endpoints[0];
    InFlight::start(endpoint, now).answered(now);
    let later = now + 600 * SECOND;
    let _request = InFlight::start(endpoint, later);
    assert_eq!(cost_ms(&endpoint.runtime, later), 0);
}

// --- the guard ---------------------------------------------------------------

#[test]
fn a_request_that_is_called_off_leaves_no_trace_in_the_counters() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    drop(InFlight::start(&cluster.endpoints[0], now));
    let read = [&runtime.in_flight, &runtime.unanswered].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((read, runtime.failures.load(Ordering::Relaxed)), ([0, 0], 0));
    assert_eq!(runtime.latency_us.load(Ordering::Relaxed), 0);
}

#[test]
fn only_the_first_answer_counts() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let mut request = InFlight::start(&cluster.endpoints[0], now);
    request.answered(now + 100 * MS);
    request.answered(now + SECOND);
    assert_eq!(cluster.endpoints[0].runtime.latency_us.load(Ordering::Relaxed), 100_000);
}

#[test]
fn counters_never_go_below_zero() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    let request = InFlight::start(&cluster.endpoints[0], now);
    runtime.in_flight.store(0, Ordering::Relaxed);
    drop(request);
    assert_eq!(runtime.in_flight.load(Ordering::Relaxed), 0);
}

#[test]
fn failing_fast_does_not_look_like_answering_fast() {
    // Whatever is normal for the service: 1 ms, 30 ms or 5 s.
    for normal in [MS, 30 * MS, 5 * SECOND] {
        let now = Instant::now();
        let cluster = cluster(Balance::PeakEwma, 2, now);
        let later = now + 100 * SECOND;
        for endpoint in &cluster.endpoints {
            ewma::record(&endpoint.runtime, normal, later);
        }
        let mut attempt = InFlight::start(&cluster.endpoints[0], later);
        attempt.failed(later + Duration::from_micros(50));
        drop(attempt);
        assert_eq!(choices(&cluster, 100, later + SECOND), [0, 100], "{normal:?}");
        assert_eq!(cluster.endpoints[0].runtime.failures.load(Ordering::Relaxed), 1);
    }
}

#[test]
fn a_burst_of_failures_costs_no_more_than_its_ceiling() {
    let (runtime, now) = new_runtime();
    for _ in 0..1_000 {
        ewma::record_failure(&runtime, MS, now);
    }
    assert_eq!(cost_ms(&runtime, now), 30_000);
    ewma::record_failure(&runtime, 60 * SECOND, now);
    assert_eq!(cost_ms(&runtime, now), 60_000, "the time it took is a fact");
}

#[test]
fn an_endpoint_that_failed_is_asked_again_within_seconds_and_no_sooner_for_what_it_still_answers() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 2, now);
    let later = now + 100 * SECOND;
    for endpoint in &cluster.endpoints {
        ewma::record(&endpoint.runtime, MS, later);
    }
    ewma::record_failure(&cluster.endpoints[0].runtime, MS, later);
    // An answer that was under way while another request failed.
    ewma::record(&cluster.endpoints[0].runtime, MS, later + MS);
    let asked_after = (1..60).find(|seconds| {
        let moment = later + *seconds * SECOND;
        ewma::record(&cluster.endpoints[1].runtime, MS, moment);
        choices(&cluster, 100, moment)[0] > 0
    });
    assert_eq!(asked_after, Some(12));
}

#[test]
fn an_endpoint_that_failed_and_recovered_is_back_with_its_first_answer() {
    let (runtime, now) = new_runtime();
    ewma::record_failure(&runtime, MS, now);
    let later = now + 60 * SECOND;
    ewma::record(&runtime, MS, later);
    assert!(cost_ms(&runtime, later) <= 2);
}

#[test]
fn a_stream_that_breaks_off_counts_as_a_failure_not_as_a_latency_of_its_length() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    let mut stream = InFlight::start(&cluster.endpoints[0], now);
    stream.answered(now + MS);
    let later = now + 3_600 * SECOND;
    stream.failed(later);
    drop(stream);
    assert_eq!(cost_ms(runtime, later), 300);
    assert_eq!(runtime.unanswered.load(Ordering::Relaxed), 0);
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Answer(u64),
    Failure(u64),
    Wait(u64),
}

proptest! {
    /// The model is the formula of the module, in milliseconds and floats, with no atomics.
    #[test]
    fn the_cost_follows_the_formula(
        events in proptest::collection::vec(
            prop_oneof![
                (0_u64..5_000).prop_map(Event::Answer),
                (0_u64..5_000).prop_map(Event::Failure),
                (0_u64..20_000).prop_map(Event::Wait),
            ],
            0..60,
        ),
    ) {
        let (runtime, epoch) = new_runtime();
        let (mut value, mut at, mut now) = (30.0_f64, 0_u64, 0_u64);
        let mut is_penalised = false;
        for event in events {
            let decay_ms = if is_penalised { 2_000.0 } else { 10_000.0 };
            let kept = (-((now - at) as f64) / decay_ms).exp();
            let moment = epoch + Duration::from_millis(now);
            match event {
                Event::Wait(ms) => {
                    now += ms;
                    continue;
                }
                Event::Answer(ms) => {
                    ewma::record(&runtime, Duration::from_millis(ms), moment);
                    let sample = ms as f64;
                    is_penalised &= sample < value && value * kept > sample;
                    value = if sample >= value { sample } else { value * kept + sample * (1.0 - kept) };
                }
                Event::Failure(ms) => {
                    ewma::record_failure(&runtime, Duration::from_millis(ms), moment);
                    let memory = value * kept;
                    is_penalised = true;
                    value = (2.0 * memory).clamp(300.0, 30_000.0).max(ms as f64).max(memory);
                }
            }
            at = now;
            let cost = ewma::cost(&runtime, moment);
            // Stored in whole microseconds: a few of them may be lost over a history.
            prop_assert!((cost - value * 1_000.0).abs() < 100.0, "{} and {}", cost, value * 1_000.0);
        }
    }

    #[test]
    fn a_cost_is_a_number_whatever_the_counters_hold(
        latency_us: u64, latency_at_us: u64, heard_at_us: u64, in_flight: u32, unanswered: u32, age_s: u32,
    ) {
        let (runtime, now) = new_runtime();
        runtime.latency_us.store(latency_us, Ordering::Relaxed);
        runtime.latency_at_us.store(latency_at_us, Ordering::Relaxed);
        runtime.heard_at_us.store(heard_at_us, Ordering::Relaxed);
        runtime.in_flight.store(in_flight, Ordering::Relaxed);
        runtime.unanswered.store(unanswered, Ordering::Relaxed);
        let later = now + Duration::from_secs(age_s.into());
        let cost = ewma::cost(&runtime, later);
        prop_assert!(cost.is_finite() && cost >= 0.0);
        ewma::record(&runtime, SECOND, later);
        ewma::record_failure(&runtime, SECOND, later);
        prop_assert!(ewma::cost(&runtime, later).is_finite());
    }
}
