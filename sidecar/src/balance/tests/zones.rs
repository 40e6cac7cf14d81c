//! The own zone first, and what goes to the others.

use super::*;

/// `own` endpoints in the own zone, and `others` in another.
fn zoned(balance: Balance, own: usize, others: usize, now: Instant) -> Cluster {
    let list: Vec<_> = (0..own).map(|_| (1, "here")).chain((0..others).map(|_| (1, "there"))).collect();
    cluster_of(settings(balance), &list, now)
}

/// What of many choices goes to the first `own` endpoints.
fn own_ratio(cluster: &Cluster, own: usize, now: Instant) -> f64 {
    let counts = choices(cluster, 20_000, now);
    counts[..own].iter().sum::<usize>() as f64 / 20_000.0
}

/// All that balance by share; peak EWMA and least request are here by equal costs.
const BY_SHARE: [Balance; 4] =
    [Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random];

#[test]
fn the_own_zone_spills_over_in_proportion() {
    for balance in BY_SHARE {
        let now = Instant::now();
        let cluster = zoned(balance, 10, 5, now);
        for ill in 0..10 {
            if ill > 0 {
                check(&cluster, ill - 1, Checked::Unhealthy);
            }
            // Fifteen in all: never in panic here.
            let is_panic = (15 - ill) * 2 < 15;
            let expected = if is_panic { 10.0 / 15.0 } else { (1.4 * (10 - ill) as f64 / 10.0).min(1.0) };
            let ratio = own_ratio(&cluster, 10, now);
            assert!((ratio - expected).abs() < 0.01, "{balance:?}, {ill} ill: {ratio} for {expected}");
        }
    }
}

#[test]
fn an_own_zone_that_is_down_leaves_everything_to_the_others() {
    for balance in BY_SHARE {
        let now = Instant::now();
        let cluster = zoned(balance, 2, 4, now);
        (0..2).for_each(|index| check(&cluster, index, Checked::Unhealthy));
        assert_drawn(
            &choices(&cluster, 20_000, now),
            &[0.0, 0.0, 1.0, 1.0, 1.0, 1.0],
            &format!("{balance:?}"),
        );
    }
}

#[test]
fn where_both_are_poor_both_get_in_proportion_to_their_health() {
    let now = Instant::now();
    let settings = settings(Balance::Random);
    let balancing = Balancing { panic_percent: 0, ..balancing() };
    let list: Vec<_> = (0..5).map(|_| (1, "here")).chain((0..5).map(|_| (1, "there"))).collect();
    let cluster = cluster_of(ClusterSettings { balancing, ..settings }, &list, now);
    [0, 1, 2, 5, 6, 7, 8].into_iter().for_each(|index| check(&cluster, index, Checked::Unhealthy));
    // 40 % and 20 % of them are usable.
    let ratio = own_ratio(&cluster, 5, now);
    assert!((ratio - 2.0 / 3.0).abs() < 0.01, "{ratio}");
}

#[test]
fn where_the_own_zone_is_unknown_or_ignored_or_empty_zones_play_no_part() {
    for balance in BY_SHARE {
        let now = Instant::now();
        let nowhere = Cluster { zone: None, ..zoned(balance, 2, 4, now) };
        let mut settings = settings(balance);
        settings.balancing.prefers_zone = false;
        let list = [(1, "here"), (1, "here"), (1, "there"), (1, "there"), (1, ""), (1, "there")];
        let ignored = cluster_of(settings, &list, now);
        let empty = zoned(balance, 0, 6, now);
        for cluster in [nowhere, ignored, empty] {
            assert_drawn(&choices(&cluster, 20_000, now), &[1.0; 6], &format!("{balance:?}"));
        }
    }
}

#[test]
fn an_overload_spills_over_and_a_slow_start_does_not() {
    let begin = Instant::now();
    let mut settings = settings(Balance::Random);
    settings.balancing.slow_start = Some(10 * SECOND);
    let list: Vec<_> = (0..2).map(|_| (1, "here")).chain((0..3).map(|_| (1, "there"))).collect();
    let cluster = cluster_of(settings, &list, begin);
    let now = begin + 60 * SECOND;
    let_in(&cluster, 0, now);
    assert_drawn(&choices(&cluster, 20_000, now), &[0.1, 1.0, 0.0, 0.0, 0.0], "it starts slowly in its zone");
    let until_us = u64::try_from((now + SECOND).duration_since(begin).as_micros()).unwrap();
    cluster.endpoints[1].runtime.health.overloaded_until_us.store(until_us, Ordering::Relaxed);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
    // 1.1 of 2 can be used.
    let ratio = own_ratio(&cluster, 2, now);
    assert!((ratio - 1.4 * 0.55).abs() < 0.01, "{ratio}");
}

#[test]
fn a_retry_leaves_the_zone_when_all_in_it_were_tried() {
    for balance in BY_SHARE {
        let now = Instant::now();
        let (cluster, mut rng, mut tried) = (zoned(balance, 2, 3, now), rng(), Tried::default());
        let mut order = Vec::new();
        for _ in 0..5 {
            let pick = pick(&cluster, Ask::plain(&tried), now, &mut rng).unwrap();
            tried.insert(pick.endpoint.address());
            order.push(place(&pick.endpoint));
        }
        assert!(order[..2].iter().all(|index| *index < 2), "{balance:?}: {order:?}");
        order.sort_unstable();
        assert_eq!(order, [0, 1, 2, 3, 4], "{balance:?}");
        let again = pick(&cluster, Ask::plain(&tried), now, &mut rng).unwrap();
        assert!(place(&again.endpoint) < 2, "{balance:?}: home again");
    }
}
