//! How requests are shared, against theory.

use super::*;

/// By these weights, in no zone.
fn weighted(balance: Balance, weights: &[u32], now: Instant) -> Cluster {
    let endpoints: Vec<_> = weights.iter().map(|weight| (*weight, "")).collect();
    cluster_of(settings(balance), &endpoints, now)
}

fn shares(weights: &[u32]) -> Vec<f64> {
    weights.iter().map(|weight| f64::from(*weight)).collect()
}

fn overload(cluster: &Cluster, index: usize, until: Instant) {
    let runtime = &cluster.endpoints[index].runtime;
    let until_us = until.duration_since(runtime.epoch).as_micros();
    runtime.health.overloaded_until_us.store(u64::try_from(until_us).unwrap(), Ordering::Relaxed);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
}

fn hold(cluster: &Cluster, index: usize, requests: u32) {
    cluster.endpoints[index].runtime.in_flight.store(requests, Ordering::Relaxed);
}

#[test]
fn weights_say_how_requests_are_shared() {
    let lists: [&[u32]; 5] = [&[1, 1], &[1, 2, 3, 4], &[9, 1], &[5, 5, 5], &[1000, 1, 500, 20, 20, 3]];
    for (balance, weights) in ALL.into_iter().flat_map(|balance| lists.map(|weights| (balance, weights))) {
        let now = Instant::now();
        let counts = choices(&weighted(balance, weights, now), 50_000, now);
        assert_drawn(&counts, &shares(weights), &format!("{balance:?}"));
    }
}

#[test]
fn no_endpoint_is_starved_of_requests() {
    for balance in ALL {
        let now = Instant::now();
        let counts = choices(&weighted(balance, &[1, 1000, 1000, 1000], now), 100_000, now);
        assert!((5..100).contains(&counts[0]), "{balance:?}: about 33 of {counts:?}");
    }
}

#[test]
fn turns_are_smooth() {
    let weights = [1, 2, 3, 4, 10];
    let now = Instant::now();
    let cluster = weighted(Balance::RoundRobin, &weights, now);
    let mut counts = [0.0_f64; 5];
    for turn in 1..=2_000 {
        counts[plain(&cluster, now).unwrap()] += 1.0;
        for (count, share) in counts.iter().zip(shares(&weights)) {
            let due = share / 20.0 * f64::from(turn);
            assert!((count - due).abs() < 3.0, "turn {turn}: {count} of {due}");
        }
    }
}

#[test]
fn the_emptier_of_two_gets_the_request() {
    // Of six pairs of four the emptiest is in three and always wins, the next in two more, and so on.
    let now = Instant::now();
    let cluster = cluster(Balance::LeastRequest, 4, now);
    for (index, requests) in [2, 0, 3, 1].into_iter().enumerate() {
        hold(&cluster, index, requests);
    }
    // Latency is nothing to it.
    ewma::record(&cluster.endpoints[1].runtime, 60 * SECOND, now);
    assert_drawn(&choices(&cluster, 20_000, now), &[1.0, 3.0, 0.0, 2.0], "least_request");
}

#[test]
fn the_quicker_of_two_gets_the_request() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 4, now);
    for (index, latency) in [30, 10, 40, 20].into_iter().enumerate() {
        cluster.endpoints[index].runtime.latency_us.store(latency * 1_000, Ordering::Relaxed);
    }
    assert_drawn(&choices(&cluster, 20_000, now), &[1.0, 3.0, 0.0, 2.0], "peak_ewma");
    // Twenty times the load outweighs a quarter of the latency.
    hold(&cluster, 1, 20);
    assert_drawn(&choices(&cluster, 20_000, now), &[2.0, 0.0, 1.0, 3.0], "peak_ewma");
}

#[test]
fn a_dearer_heavy_endpoint_keeps_the_square_of_its_share() {
    let now = Instant::now();
    let cluster = weighted(Balance::PeakEwma, &[3, 1], now);
    ewma::record(&cluster.endpoints[0].runtime, 90 * MS, now);
    assert_drawn(&choices(&cluster, 20_000, now), &[9.0, 7.0], "heavier and dearer");
    // A hundred times as dear is out of order, whatever it weighs.
    ewma::record(&cluster.endpoints[0].runtime, 3 * SECOND, now);
    assert_eq!(choices(&cluster, 20_000, now), [0, 20_000]);
}

#[test]
fn requests_in_flight_come_to_be_by_weight() {
    // A hundred in flight, of which any one ends and another begins.
    for balance in [Balance::PeakEwma, Balance::LeastRequest] {
        let now = Instant::now();
        let (cluster, mut rng, tried) = (weighted(balance, &[1, 2, 5], now), rng(), Tried::default());
        let mut held = Vec::new();
        let mut sums = [0.0; 3];
        for step in 0..40_000 {
            if held.len() >= 100 {
                drop(held.swap_remove(rng.usize(..held.len())));
            }
            held.push(InFlight::start(pick(&cluster, Ask::plain(&tried), now, &mut rng).unwrap(), now));
            if step >= 1_000 {
                for (sum, endpoint) in sums.iter_mut().zip(&cluster.endpoints) {
                    *sum += f64::from(endpoint.runtime.in_flight.load(Ordering::Relaxed)) / 39_000.0;
                }
            }
        }
        for (mean, expected) in sums.iter().zip([12.5, 25.0, 62.5]) {
            assert!((mean - expected).abs() < 2.0, "{balance:?}: {sums:?}");
        }
    }
}

#[test]
fn who_is_overloaded_gets_a_tenth_until_it_is_over() {
    for balance in ALL {
        let now = Instant::now();
        let cluster = weighted(balance, &[1, 1, 1, 2], now);
        overload(&cluster, 3, now + SECOND);
        assert_drawn(&choices(&cluster, 20_000, now), &[1.0, 1.0, 1.0, 0.2], &format!("{balance:?}"));
        let over = now + SECOND;
        assert_drawn(&choices(&cluster, 20_000, over), &[1.0, 1.0, 1.0, 2.0], &format!("{balance:?}"));
    }
}

#[test]
fn where_all_are_overloaded_none_is_spared() {
    let now = Instant::now();
    let cluster = cluster(Balance::Random, 3, now);
    (0..3).for_each(|index| overload(&cluster, index, now + SECOND));
    assert_drawn(&choices(&cluster, 20_000, now), &[1.0; 3], "all");
}

#[test]
fn who_is_back_starts_slowly() {
    for balance in ALL {
        let begin = Instant::now();
        let slow_start = Some(10 * SECOND);
        let settings =
            ClusterSettings { balancing: Balancing { slow_start, ..balancing() }, ..settings(balance) };
        let cluster = fixture::cluster(settings, 4, begin);
        assert_drawn(&choices(&cluster, 20_000, begin), &[1.0; 4], "all are new alike");
        let back = begin + 60 * SECOND;
        eject(&cluster, 1, back);
        let_in(&cluster, 1, back);
        for (elapsed, factor) in
            [(0, 0.1), (900, 0.1), (1_500, 0.15), (5_200, 0.5), (9_999, 0.95), (10_000, 1.0)]
        {
            let moment = back + elapsed * MS;
            let counts = choices(&cluster, 10_000, moment);
            assert_drawn(&counts, &[1.0, factor, 1.0, 1.0], &format!("{balance:?} after {elapsed} ms"));
        }
    }
}

#[test]
fn a_newcomer_starts_slowly_beside_old_ones() {
    let begin = Instant::now();
    let old = cluster(Balance::Random, 3, begin);
    let now = begin + 60 * SECOND;
    let mut endpoints = old.endpoints.clone();
    endpoints.extend(cluster(Balance::Random, 4, now).endpoints.pop());
    let balancing = Balancing { slow_start: Some(10 * SECOND), ..balancing() };
    let settings = Arc::new(ClusterSettings { balancing, ..ClusterSettings::clone(&old.settings) });
    let cluster = Cluster::new(settings, Arc::clone(&old.limits), endpoints, Arc::clone(&old.runtime));
    assert_drawn(&choices(&cluster, 20_000, now), &[1.0, 1.0, 1.0, 0.1], "new");
    assert_drawn(&choices(&cluster, 20_000, now + 8 * SECOND), &[1.0, 1.0, 1.0, 0.8], "less new");
}

#[test]
fn a_newcomer_is_assumed_to_be_as_quick_as_its_peers() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 4, now);
    let assumed = |moment| lineup::build(&cluster, moment).assumed_us;
    assert!((assumed(now) - 30_000.0).abs() < 1.0, "nobody knows anything");
    for (index, latency) in [(0, 200), (1, 2), (2, 3)] {
        cluster.endpoints[index].runtime.latency_us.store(latency * 1_000, Ordering::Relaxed);
    }
    assert!((assumed(now) - 3_000.0).abs() < 1.0, "the median");
    // What failed says nothing of how quick they are.
    ewma::record_failure(&cluster.endpoints[1].runtime, MS, now);
    ewma::record_failure(&cluster.endpoints[2].runtime, MS, now);
    assert!((assumed(now) - 30_000.0).abs() < 1.0, "never more than the default");
}

#[test]
fn what_is_assumed_is_looked_at_anew_until_all_were_heard() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 2, now);
    // Its first answer took 2 ms: the one that nobody has heard from is not left alone for that.
    plain(&cluster, now);
    cluster.endpoints[0].runtime.latency_us.store(2_000, Ordering::Relaxed);
    assert_eq!(choices(&cluster, 1_000, now)[1], 0, "a default of 30 ms");
    let counts = choices(&cluster, 1_000, now + SECOND);
    assert!(counts[1] > 400, "{counts:?}");
    cluster.endpoints[1].runtime.latency_us.store(2_000, Ordering::Relaxed);
    assert_eq!(lineup::build(&cluster, now).valid_until, None);
}

#[test]
fn a_retry_is_shared_by_weight_too() {
    for balance in [Balance::LeastRequest, Balance::Random, Balance::Maglev] {
        let now = Instant::now();
        let (cluster, mut rng) = (weighted(balance, &[7, 1, 3, 1], now), rng());
        let mut tried = Tried::default();
        tried.insert(cluster.endpoints[0].address());
        let mut counts = [0; 4];
        for _ in 0..20_000 {
            let pick = pick(&cluster, Ask::plain(&tried), now, &mut rng).unwrap();
            counts[place(&pick.endpoint)] += 1;
        }
        assert_drawn(&counts, &[0.0, 1.0, 3.0, 1.0], &format!("{balance:?}"));
    }
}
