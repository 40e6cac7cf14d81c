//! What any choice must be, whoever makes it.

use super::*;

#[test]
fn no_endpoint_no_choice() {
    let now = Instant::now();
    for balance in ALL {
        assert!(pick(&cluster(balance, 0, now), Ask::plain(&Tried::default()), now, &mut rng()).is_none());
    }
}

#[test]
fn a_choice_is_counted() {
    let now = Instant::now();
    let cluster = cluster(Balance::PeakEwma, 1, now);
    assert!(pick(&cluster, Ask::plain(&Tried::default()), now, &mut rng()).is_some());
    assert_eq!(cluster.endpoints[0].runtime.picks.load(Ordering::Relaxed), 1);
}

#[test]
fn equal_endpoints_are_chosen_equally() {
    let now = Instant::now();
    for balance in ALL {
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
    let next = |tried: &Tried| pick(&cluster, Ask::plain(tried), now, &mut rng()).unwrap().endpoint.address();
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
        let chosen =
            pick(&cluster, Ask::plain(&tried), now, &mut fastrand::Rng::with_seed(seed)).unwrap().endpoint;
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
        let chosen = pick(&cluster, Ask::plain(&tried), now, &mut fastrand::Rng::with_seed(seed)).unwrap().endpoint;
        prop_assert!(!is_any_left || !tried.contains(chosen.address()));
    }
}
