//! Who may be chosen: the lineup against a naive model, panic, and what was chosen already.

use super::*;

fn with_panic(balance: Balance, panic_percent: u32, endpoints: u8, now: Instant) -> Cluster {
    let balancing = Balancing { panic_percent, ..balancing() };
    fixture::cluster(ClusterSettings { balancing, ..settings(balance) }, endpoints, now)
}

/// Which endpoints are chosen at all, in many choices.
fn asked(cluster: &Cluster, now: Instant) -> Vec<usize> {
    let counts = choices(cluster, 2_000, now);
    counts.iter().enumerate().filter(|(_, count)| **count > 0).map(|(index, _)| index).collect()
}

#[test]
fn what_is_ejected_or_unhealthy_or_unready_is_not_chosen() {
    for balance in ALL {
        let now = Instant::now();
        let cluster = cluster(balance, 6, now);
        eject(&cluster, 1, now + SECOND);
        check(&cluster, 3, Checked::Unhealthy);
        assert_eq!(asked(&cluster, now), [0, 2, 4, 5], "{balance:?}");
        check(&cluster, 3, Checked::Healthy);
        let_in(&cluster, 1, now);
        assert_eq!(asked(&cluster, now), [0, 1, 2, 3, 4, 5], "{balance:?}");
    }
}

#[test]
fn in_panic_all_are_used_and_without_it_none() {
    for balance in ALL {
        let now = Instant::now();
        let cluster = with_panic(balance, 50, 4, now);
        check(&cluster, 0, Checked::Unhealthy);
        check(&cluster, 1, Checked::Unhealthy);
        assert_eq!(asked(&cluster, now), [2, 3], "{balance:?}: half are usable");
        eject(&cluster, 2, now + SECOND);
        assert_eq!(asked(&cluster, now), [0, 1, 2, 3], "{balance:?}: less than half are");
        check(&cluster, 3, Checked::Unhealthy);
        assert_eq!(asked(&cluster, now), [0, 1, 2, 3], "{balance:?}: none is");

        let cluster = with_panic(balance, 0, 4, now);
        (0..3).for_each(|index| check(&cluster, index, Checked::Unhealthy));
        assert_eq!(asked(&cluster, now), [3], "{balance:?}: the last one");
        check(&cluster, 3, Checked::Unhealthy);
        assert_eq!(plain(&cluster, now), None, "{balance:?}");
    }
}

#[test]
fn an_endpoint_that_was_chosen_already_is_used_whatever_its_standing() {
    for balance in ALL {
        let now = Instant::now();
        let cluster = with_panic(balance, 0, 3, now);
        eject(&cluster, 1, now + SECOND);
        check(&cluster, 1, Checked::Unhealthy);
        let only = cluster.only(Arc::clone(&cluster.endpoints[1]));
        assert_eq!(plain(&only, now), Some(1), "{balance:?}");
        let mut tried = Tried::default();
        tried.insert(cluster.endpoints[1].address());
        assert!(pick(&only, Ask::plain(&tried), now, &mut rng()).is_some(), "{balance:?}: again");
    }
}

#[test]
fn a_rest_that_ends_is_noticed_without_anybody_saying_so() {
    let now = Instant::now();
    let cluster = cluster(Balance::Random, 4, now);
    eject(&cluster, 0, now + SECOND);
    let before = lineup::build(&cluster, now);
    assert_eq!((before.valid_until, before.usable, before.due.len()), (Some(now + SECOND), 3, 0));
    let after = lineup::build(&cluster, now + SECOND);
    assert_eq!((after.valid_until, after.usable, after.due.len()), (None, 3, 1));
}

#[test]
fn a_lineup_is_made_once_for_many_choices() {
    let now = Instant::now();
    let cluster = cluster(Balance::Random, 4, now);
    plain(&cluster, now);
    let first = cluster.lineup.load().clone().unwrap();
    plain(&cluster, now + 3_600 * SECOND);
    assert!(Arc::ptr_eq(&first, cluster.lineup.load().as_ref().unwrap()));
    check(&cluster, 0, Checked::Unhealthy);
    plain(&cluster, now);
    assert!(!Arc::ptr_eq(&first, cluster.lineup.load().as_ref().unwrap()));
}

/// Something that happens to an endpoint.
#[derive(Clone, Copy, Debug)]
enum Event {
    Ejected(u64),
    LetIn,
    Found(bool),
    Overloaded(u64),
    Heard,
    Wait(u64),
}

fn events() -> impl Strategy<Value = Vec<(usize, Event)>> {
    let event = prop_oneof![
        (1_u64..5_000).prop_map(Event::Ejected),
        Just(Event::LetIn),
        any::<bool>().prop_map(Event::Found),
        (1_u64..5_000).prop_map(Event::Overloaded),
        Just(Event::Heard),
        (1_u64..3_000).prop_map(Event::Wait),
    ];
    proptest::collection::vec((0_usize..8, event), 1..60)
}

/// What the model remembers of an endpoint: ejected until, found ill.
#[derive(Clone, Copy, Default)]
struct Known {
    ejected_until: Option<Instant>,
    is_ill: bool,
}

fn happen(cluster: &Cluster, known: &mut [Known], index: usize, event: Event, now: &mut Instant) {
    let (index, later) = (index % known.len(), |ms| *now + Duration::from_millis(ms));
    let endpoint = &cluster.endpoints[index];
    match event {
        Event::Ejected(ms) => {
            known[index].ejected_until = Some(later(ms));
            eject(cluster, index, later(ms));
        }
        Event::LetIn => {
            known[index].ejected_until = None;
            let_in(cluster, index, *now);
        }
        Event::Found(is_well) => {
            known[index].is_ill = !is_well;
            check(cluster, index, if is_well { Checked::Healthy } else { Checked::Unhealthy });
        }
        Event::Overloaded(ms) => {
            let until = later(ms).duration_since(endpoint.runtime.epoch).as_micros();
            endpoint
                .runtime
                .health
                .overloaded_until_us
                .store(u64::try_from(until).unwrap(), Ordering::Relaxed);
            cluster.runtime.standings.fetch_add(1, Ordering::Release);
        }
        Event::Heard => InFlight::start(chosen(endpoint), *now).answered(*now),
        Event::Wait(ms) => *now = later(ms),
    }
}

proptest! {
    /// After whatever has happened, a choice is one that a look at all endpoints allows, and the lineup in use is the one
    /// that would be made now.
    #[test]
    fn a_choice_is_what_a_look_at_all_endpoints_allows(
        which in 0_usize..5,
        count in 1_u8..8,
        panic_percent in prop_oneof![Just(0_u32), Just(50), Just(100)],
        slow_start: bool,
        may_probe: bool,
        events in events(),
        seed: u64,
    ) {
        let mut now = Instant::now();
        let slow_start = slow_start.then_some(3 * SECOND);
        let balancing = Balancing { panic_percent, slow_start, ..balancing() };
        let cluster = fixture::cluster(ClusterSettings { balancing, ..settings(ALL[which]) }, count, now);
        let mut known = vec![Known::default(); count.into()];
        let mut rng = fastrand::Rng::with_seed(seed);
        for (index, event) in events {
            happen(&cluster, &mut known, index, event, &mut now);
            let usable: Vec<usize> = (0..known.len())
                .filter(|index| known[*index].ejected_until.is_none() && !known[*index].is_ill)
                .collect();
            let is_due = |index: usize| {
                !known[index].is_ill && known[index].ejected_until.is_some_and(|until| now >= until)
            };
            let is_panic = usable.len() * 100 < known.len() * panic_percent as usize;
            let tried = Tried::default();
            let affinity = rng.bool().then(|| rng.u64(..));
            let ask = Ask { tried: &tried, affinity, may_probe };
            let pick = pick(&cluster, ask, now, &mut rng);
            let lineup = cluster.lineup.load().clone().unwrap();
            prop_assert_eq!((lineup.usable as usize, lineup.is_panic), (usable.len(), is_panic));
            // What is remembered of answers moves on by itself, all else stands until it is said to change.
            let fresh = lineup::build(&cluster, now);
            prop_assert_eq!((&lineup.seats, &lineup.due, &lineup.draw), (&fresh.seats, &fresh.due, &fresh.draw));
            match pick {
                None => prop_assert!(usable.is_empty() && !is_panic),
                Some(Pick { endpoint, probe: Some(_probe) }) => {
                    let index = place(&endpoint);
                    let by_any = known[index].ejected_until.map(|until| until + lineup::UNPROBED);
                    prop_assert!(is_due(index) && (may_probe || by_any.is_some_and(|by_any| now >= by_any)));
                }
                Some(Pick { endpoint, probe: None }) => {
                    prop_assert!(is_panic || usable.contains(&place(&endpoint)));
                    // What belongs to an endpoint is the probe of that one at first.
                    let belongs = affinity.is_some() && cluster.maglev.is_some();
                    prop_assert!(!may_probe || belongs || !(0..known.len()).any(is_due), "a probe goes first");
                }
            }
        }
    }
}
