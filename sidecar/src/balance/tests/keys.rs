//! Consistent hashing: which endpoint a key leads to, and which keys move.

use super::*;
use crate::model::{
    balance::{Affinity, AffinityBy},
    maglev::{self, Maglev},
};

const KEYS: usize = 10_000;

fn maglev(endpoints: u8, now: Instant) -> Cluster {
    cluster(Balance::Maglev, endpoints, now)
}

fn choose(cluster: &Cluster, key: u64, tried: &Tried, now: Instant) -> usize {
    let ask = Ask { affinity: Some(key), ..Ask::plain(tried) };
    // Where chance has a say, it says something else each time.
    let mut rng = fastrand::Rng::with_seed(key);
    place(&pick(cluster, ask, now, &mut rng).unwrap().endpoint)
}

/// Where many keys lead.
fn led(cluster: &Cluster, now: Instant) -> Vec<usize> {
    let tried = Tried::default();
    (0..KEYS).map(|key| choose(cluster, maglev::hash(key.to_string().as_bytes()), &tried, now)).collect()
}

/// Of the keys that led elsewhere than to `except`: how many lead somewhere else now, as a share of all.
fn moved(before: &[usize], after: &[usize], except: Option<usize>) -> f64 {
    let pairs = before.iter().zip(after).filter(|(before, _)| Some(**before) != except);
    pairs.filter(|(before, after)| before != after).count() as f64 / KEYS as f64
}

fn counts(led: &[usize], endpoints: usize) -> Vec<usize> {
    (0..endpoints).map(|index| led.iter().filter(|at| **at == index).count()).collect()
}

#[test]
fn keys_are_shared_by_weight() {
    let now = Instant::now();
    for weights in [vec![1; 20], vec![1, 2, 3, 4], vec![1000, 1, 500]] {
        let list: Vec<_> = weights.iter().map(|weight| (*weight, "")).collect();
        let cluster = cluster_of(settings(Balance::Maglev), &list, now);
        let expected: Vec<f64> = weights.iter().map(|weight| f64::from(*weight)).collect();
        assert_drawn(&counts(&led(&cluster, now), weights.len()), &expected, "keys");
    }
}

#[test]
fn the_slots_of_a_table_are_shared_to_within_one() {
    let now = Instant::now();
    for endpoints in [2, 3, 7, 100, 250] {
        let table = Maglev::new(&maglev(endpoints, now).endpoints);
        let slots = table.of(0).fold(vec![0; endpoints.into()], |mut slots, endpoint| {
            slots[endpoint as usize] += 1;
            slots
        });
        let (least, most) = (slots.iter().min().unwrap(), slots.iter().max().unwrap());
        assert_eq!(slots.iter().sum::<usize>(), maglev::SLOTS);
        assert!(most - least <= 1, "{least} to {most}");
    }
}

#[test]
fn a_key_leads_to_one_endpoint_whoever_asks_and_however_they_are_listed() {
    let now = Instant::now();
    let (one, mut other) = (maglev(9, now), maglev(9, now));
    other.endpoints.reverse();
    let other = Cluster::new(other.settings, other.limits, other.endpoints, other.runtime);
    let elsewhere = Cluster { zone: Some(Arc::from("there")), ..maglev(9, now) };
    let first = led(&one, now);
    assert_eq!(first, led(&one, now));
    assert_eq!(first, led(&other, now));
    assert_eq!(first, led(&elsewhere, now));
}

/// A sidecar of another version must lead a key to the same endpoint.
#[test]
fn keys_lead_where_they_always_led() {
    let now = Instant::now();
    let cluster = maglev(10, now);
    let names = ["", "alice", "bob", "10.1.2.3", "spiffe://example.org/ns/shop/sa/cart"];
    let led = names.map(|name| choose(&cluster, maglev::hash(name.as_bytes()), &Tried::default(), now));
    assert_eq!(led, [4, 4, 8, 9, 4], "worked out apart from this code");
}

#[test]
fn when_an_endpoint_leaves_or_comes_about_its_share_moves() {
    let now = Instant::now();
    for endpoints in [3_u8, 10, 50] {
        let (before, after) = (led(&maglev(endpoints, now), now), led(&maglev(endpoints + 1, now), now));
        // The newcomer is the last.
        let came = counts(&after, usize::from(endpoints) + 1)[usize::from(endpoints)] as f64 / KEYS as f64;
        let share = 1.0 / f64::from(endpoints + 1);
        assert!((came - share).abs() < 0.2 * share, "{came} of {share}");
        let others = moved(&after, &before, Some(endpoints.into()));
        assert!(others < 0.03, "{endpoints}: {others} of other keys moved");
    }
}

#[test]
fn while_an_endpoint_is_ejected_its_keys_and_no_others_are_elsewhere() {
    let now = Instant::now();
    let cluster = maglev(10, now);
    let before = led(&cluster, now);
    eject(&cluster, 4, now + SECOND);
    let during = led(&cluster, now);
    assert!(moved(&before, &during, Some(4)) == 0.0, "nobody else's keys");
    let given: Vec<usize> =
        before.iter().zip(&during).filter(|(before, _)| **before == 4).map(|(_, during)| *during).collect();
    let mut expected = [1.0; 10];
    expected[4] = 0.0;
    assert_drawn(&counts(&given, 10), &expected, "what it had");
    let_in(&cluster, 4, now);
    assert_eq!(led(&cluster, now), before);
}

#[test]
fn a_retry_of_a_key_goes_elsewhere_and_always_to_the_same_place() {
    let now = Instant::now();
    let cluster = maglev(5, now);
    for key in 0..100 {
        let key = maglev::mix(key);
        let order = || {
            let mut tried = Tried::default();
            let next = |_| {
                let index = choose(&cluster, key, &tried, now);
                tried.insert(cluster.endpoints[index].address());
                index
            };
            (0..5).map(next).collect::<Vec<_>>()
        };
        let first = order();
        assert_eq!(first, order());
        assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
    }
}

#[test]
fn keys_come_to_who_starts_slowly_one_after_the_other() {
    let begin = Instant::now();
    let mut settings = settings(Balance::Maglev);
    settings.balancing.slow_start = Some(10 * SECOND);
    let cluster = fixture::cluster(settings, 5, begin);
    let now = begin + 60 * SECOND;
    let whole = led(&cluster, now);
    let_in(&cluster, 2, now);
    let mut had = 0.0;
    for (elapsed, factor) in [(0, 0.1), (3, 0.3), (6, 0.6), (9, 0.9), (10, 1.0)] {
        let during = led(&cluster, now + elapsed * SECOND);
        // Only its own keys are elsewhere, ever fewer.
        assert!(moved(&whole, &during, Some(2)) == 0.0);
        let has = counts(&during, 5)[2] as f64 / counts(&whole, 5)[2] as f64;
        assert!((has - factor).abs() < 0.03 && has > had, "{has} for {factor}");
        had = has;
    }
}

#[test]
fn who_has_too_much_load_is_passed_over() {
    let now = Instant::now();
    let mut settings = settings(Balance::Maglev);
    settings.balancing.affinity = Some(Affinity { by: AffinityBy::Source, max_load_percent: Some(150) });
    let cluster = fixture::cluster(settings, 4, now);
    let key = maglev::hash(b"everybody's favourite");
    let favourite = choose(&cluster, key, &Tried::default(), now);
    cluster.runtime.in_flight.store(40, Ordering::Relaxed);
    let load = &cluster.endpoints[favourite].runtime.in_flight;
    // 150 % of the ten that it would have on average.
    load.store(14, Ordering::Relaxed);
    assert_eq!(choose(&cluster, key, &Tried::default(), now), favourite);
    load.store(15, Ordering::Relaxed);
    assert_ne!(choose(&cluster, key, &Tried::default(), now), favourite);
    // Where nobody has room it is the key's own again.
    for endpoint in &cluster.endpoints {
        endpoint.runtime.in_flight.store(100, Ordering::Relaxed);
    }
    assert_eq!(choose(&cluster, key, &Tried::default(), now), favourite);
}

#[test]
fn a_key_can_be_made_for_every_endpoint() {
    let now = Instant::now();
    let cluster = maglev(30, now);
    let mut rng = rng();
    for _ in 0..1_000 {
        let (endpoint, random) = (rng.u32(..30), rng.u64(..));
        for random in [random, u64::MAX, 0] {
            let key = cluster.maglev.as_ref().unwrap().key_to(endpoint, random).unwrap();
            assert_eq!(choose(&cluster, key, &Tried::default(), now), endpoint as usize);
        }
    }
    assert!(cluster.maglev.as_ref().unwrap().key_to(30, 1).is_none());
}

#[test]
fn almost_none_usable_is_no_endless_search() {
    let now = Instant::now();
    let mut settings = settings(Balance::Maglev);
    settings.balancing.panic_percent = 0;
    let cluster = fixture::cluster(settings, 200, now);
    (1..200).for_each(|index| check(&cluster, index, Checked::Unhealthy));
    assert!(led(&cluster, now).iter().all(|index| *index == 0));
}
