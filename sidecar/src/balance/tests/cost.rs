//! What an endpoint is thought to cost, and the guard that feeds it.

use super::*;

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
    let held = [InFlight::start(chosen(endpoint), now), InFlight::start(chosen(endpoint), now)];
    assert_eq!(cost_ms(&endpoint.runtime, now), 90);
    drop(held);
    assert_eq!(cost_ms(&endpoint.runtime, now), 30);
}

#[test]
fn an_endpoint_that_owes_answers_becomes_dear_while_it_is_silent() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let endpoint = &cluster.endpoints[0];
    let _first = InFlight::start(chosen(endpoint), now);
    let mut second = InFlight::start(chosen(endpoint), now + SECOND);
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
    let mut stream = InFlight::start(chosen(endpoint), now);
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
    InFlight::start(chosen(endpoint), now).answered(now);
    let later = now + 600 * SECOND;
    let _request = InFlight::start(chosen(endpoint), later);
    assert_eq!(cost_ms(&endpoint.runtime, later), 0);
}

// --- the guard ---------------------------------------------------------------

#[test]
fn a_request_that_is_called_off_leaves_no_trace_in_the_counters() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    drop(InFlight::start(chosen(&cluster.endpoints[0]), now));
    let read = [&runtime.in_flight, &runtime.unanswered].map(|count| count.load(Ordering::Relaxed));
    assert_eq!((read, runtime.failures.load(Ordering::Relaxed)), ([0, 0], 0));
    assert_eq!(runtime.latency_us.load(Ordering::Relaxed), 0);
}

#[test]
fn an_endpoint_that_stood_still_is_asked_again_within_seconds_and_one_that_is_always_slow_is_not() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    ewma::record(runtime, MS, now);
    ewma::record(runtime, 8 * SECOND, now);
    assert!(cost_ms(runtime, now + 20 * SECOND) < 1);
    // The same again is no news.
    ewma::record(runtime, 8 * SECOND, now);
    assert!(cost_ms(runtime, now + 20 * SECOND) > 1_000);
}

#[test]
fn an_answer_without_the_work_is_news_and_no_latency() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    let mut request = InFlight::start(chosen(&cluster.endpoints[0]), now);
    request.declined(now + MS);
    assert_eq!(runtime.latency_us.load(Ordering::Relaxed), 0);
    assert_eq!(runtime.unanswered.load(Ordering::Relaxed), 0);
}

#[test]
fn who_is_waited_for_in_vain_stays_silent_until_something_comes_of_it() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    ewma::record(runtime, MS, now);
    let mut given_up = InFlight::start(chosen(&cluster.endpoints[0]), now);
    given_up.abandoned(now + 3 * SECOND);
    drop(given_up);
    assert_eq!(cost_ms(runtime, now + 3 * SECOND), 3_000);
    // The next one does not begin the silence anew.
    let mut next = InFlight::start(chosen(&cluster.endpoints[0]), now + 60 * SECOND);
    assert!(cost_ms(runtime, now + 60 * SECOND) >= 60_000);
    next.answered(now + 60 * SECOND + MS);
    assert_eq!(runtime.seen.abandoned.load(Ordering::Relaxed), 0);
    // Who is impatient says nothing.
    let mut impatient = InFlight::start(chosen(&cluster.endpoints[0]), now + 61 * SECOND);
    impatient.abandoned(now + 61 * SECOND + 900 * MS);
    assert_eq!(runtime.seen.abandoned.load(Ordering::Relaxed), 0);
}

#[test]
fn only_the_first_answer_counts() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let mut request = InFlight::start(chosen(&cluster.endpoints[0]), now);
    request.answered(now + 100 * MS);
    request.answered(now + SECOND);
    assert_eq!(cluster.endpoints[0].runtime.latency_us.load(Ordering::Relaxed), 100_000);
}

#[test]
fn counters_never_go_below_zero() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    let runtime = &cluster.endpoints[0].runtime;
    let request = InFlight::start(chosen(&cluster.endpoints[0]), now);
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
        let mut attempt = InFlight::start(chosen(&cluster.endpoints[0]), later);
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
    let mut stream = InFlight::start(chosen(&cluster.endpoints[0]), now);
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
        let (mut is_penalised, mut is_known) = (false, false);
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
                    let is_standstill = is_known && sample >= 10.0 * value && sample >= 300.0;
                    is_penalised = is_standstill || is_penalised && sample < value && value * kept > sample;
                    is_known = true;
                    value = if sample >= value { sample } else { value * kept + sample * (1.0 - kept) };
                }
                Event::Failure(ms) => {
                    ewma::record_failure(&runtime, Duration::from_millis(ms), moment);
                    let memory = value * kept;
                    (is_penalised, is_known) = (true, true);
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
