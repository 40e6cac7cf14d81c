//! The one request that decides whether an endpoint is back.

use super::*;

fn ask(tried: &Tried) -> Ask<'_> {
    Ask { may_probe: true, ..Ask::plain(tried) }
}

/// Two usable endpoints and a third, ejected until a second after `now`.
fn ejected(balance: Balance, now: Instant) -> Cluster {
    let cluster = cluster(balance, 3, now);
    eject(&cluster, 2, now + SECOND);
    cluster
}

#[test]
fn an_ejected_endpoint_rests_and_is_then_probed_by_one_request_at_a_time() {
    for balance in ALL {
        let now = Instant::now();
        let (cluster, mut rng, tried) = (ejected(balance, now), rng(), Tried::default());
        for _ in 0..100 {
            let pick = pick(&cluster, ask(&tried), now, &mut rng).unwrap();
            assert!(place(&pick.endpoint) != 2 && pick.probe.is_none(), "it rests");
        }
        let rested = now + SECOND;
        let probe = pick(&cluster, ask(&tried), rested, &mut rng).unwrap();
        assert_eq!((place(&probe.endpoint), probe.probe.is_some()), (2, true), "{balance:?}");
        for _ in 0..100 {
            let other = pick(&cluster, ask(&tried), rested, &mut rng).unwrap();
            assert!(place(&other.endpoint) != 2 && other.probe.is_none(), "{balance:?}: it is being probed");
        }
        // Called off: the next may be it.
        drop(InFlight::start(probe, rested));
        let next = pick(&cluster, ask(&tried), rested, &mut rng).unwrap();
        assert_eq!((place(&next.endpoint), next.probe.is_some()), (2, true), "{balance:?}");
    }
}

#[test]
fn a_probe_can_be_repeated_until_nothing_but_the_others_came_for_long() {
    for balance in ALL {
        let now = Instant::now();
        let (cluster, mut rng, tried) = (ejected(balance, now), rng(), Tried::default());
        let mut is_probe = |moment| {
            let pick = pick(&cluster, Ask::plain(&tried), moment, &mut rng).unwrap();
            pick.probe.is_some()
        };
        let (due, by_any) = (now + SECOND, now + SECOND + lineup::UNPROBED);
        assert!((0..100).all(|_| !is_probe(due) && !is_probe(by_any - MS)), "{balance:?}");
        assert!(is_probe(by_any), "{balance:?}");
    }
}

#[test]
fn a_retry_does_not_probe_what_it_has_tried() {
    let now = Instant::now();
    let (cluster, mut tried) = (ejected(Balance::PeakEwma, now), Tried::default());
    tried.insert(cluster.endpoints[2].address());
    let pick = pick(&cluster, ask(&tried), now + SECOND, &mut rng()).unwrap();
    assert!(place(&pick.endpoint) != 2 && pick.probe.is_none());
}

#[test]
fn who_is_back_is_not_probed_by_a_lineup_from_before() {
    let now = Instant::now();
    let cluster = ejected(Balance::PeakEwma, now);
    let rested = now + SECOND;
    let before = Arc::new(lineup::build(&cluster, rested));
    assert_eq!(before.due.len(), 1);
    cluster.endpoints[2].runtime.health.ejected_until_us.store(0, Ordering::Release);
    let tried = Tried::default();
    assert!(probe::take(&cluster, &before, ask(&tried), rested, &mut rng()).is_none());
    assert!(!cluster.endpoints[2].runtime.is_probed(), "given back");
}

#[test]
fn of_many_that_are_due_each_gets_its_probe() {
    let now = Instant::now();
    let (cluster, mut rng, tried) = (cluster(Balance::PeakEwma, 20, now), rng(), Tried::default());
    (10..20).for_each(|index| eject(&cluster, index, now + SECOND));
    let mut probed = std::collections::BTreeSet::new();
    let mut held = Vec::new();
    for _ in 0..200 {
        let pick = pick(&cluster, ask(&tried), now + SECOND, &mut rng).unwrap();
        if pick.probe.is_some() {
            assert!(probed.insert(place(&pick.endpoint)), "one at a time");
            held.push(pick);
        }
    }
    assert_eq!(probed, (10..20).collect());
}

#[test]
fn the_last_endpoint_can_be_probed_where_nothing_else_may_be_used() {
    let now = Instant::now();
    let settings = settings(Balance::PeakEwma);
    let balancing = Balancing { panic_percent: 0, ..balancing() };
    let cluster = fixture::cluster(ClusterSettings { balancing, ..settings }, 1, now);
    eject(&cluster, 0, now + SECOND);
    let tried = Tried::default();
    assert!(pick(&cluster, ask(&tried), now, &mut rng()).is_none(), "it rests");
    let probe = pick(&cluster, ask(&tried), now + SECOND, &mut rng()).unwrap();
    assert!(probe.probe.is_some());
    assert!(pick(&cluster, ask(&tried), now + SECOND, &mut rng()).is_none(), "it is being probed");
}

#[test]
fn what_belongs_to_one_endpoint_probes_no_other_until_that_has_waited_for_long() {
    let now = Instant::now();
    let (cluster, mut rng, tried) = (ejected(Balance::Maglev, now), rng(), Tried::default());
    let key_to = |endpoint| cluster.maglev.as_ref().unwrap().key_to(endpoint, 7).unwrap();
    let mut asked = |endpoint, at| {
        let ask = Ask { affinity: Some(key_to(endpoint)), ..ask(&tried) };
        let pick = pick(&cluster, ask, at, &mut rng).unwrap();
        (place(&pick.endpoint), pick.probe.is_some())
    };
    let due = now + SECOND;
    for _ in 0..20 {
        assert_eq!([asked(0, due), asked(1, due)], [(0, false), (1, false)], "each with its own");
    }
    assert_eq!(asked(2, due), (2, true), "its own may come");
    // Else one that nobody belongs to would never be back.
    assert_eq!(asked(0, due + lineup::UNPROBED), (2, true));
}

#[test]
fn what_belongs_to_one_endpoint_probes_another_where_nobody_else_is_left() {
    let now = Instant::now();
    let settings = settings(Balance::Maglev);
    let balancing = Balancing { panic_percent: 0, ..balancing() };
    let cluster = fixture::cluster(ClusterSettings { balancing, ..settings }, 2, now);
    eject(&cluster, 0, now + SECOND);
    eject(&cluster, 1, now + 2 * SECOND);
    let (tried, key) = (Tried::default(), cluster.maglev.as_ref().unwrap().key_to(1, 7));
    let ask = Ask { affinity: key, ..ask(&tried) };
    let probe = pick(&cluster, ask, now + SECOND, &mut rng()).unwrap();
    assert_eq!((place(&probe.endpoint), probe.probe.is_some()), (0, true));
}
