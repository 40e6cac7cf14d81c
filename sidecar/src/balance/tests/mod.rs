//! Choices against theory, with fixed seeds, and against naive models.

mod cost;
mod keys;
mod picking;
mod probes;
mod shares;
mod standings;
mod zones;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use proptest::prelude::*;

use super::*;
use crate::model::{
    ClusterSettings, EndpointSettings, balance::Balancing, fixture, health::Checked, runtime::EndpointRuntime,
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Every way to choose.
const ALL: [Balance; 5] =
    [Balance::PeakEwma, Balance::LeastRequest, Balance::RoundRobin, Balance::Random, Balance::Maglev];

fn cluster(balance: Balance, endpoints: u8, now: Instant) -> Cluster {
    fixture::cluster(settings(balance), endpoints, now)
}

fn settings(balance: Balance) -> ClusterSettings {
    ClusterSettings { balance, ..fixture::settings("orders") }
}

fn balancing() -> Balancing {
    fixture::settings("orders").balancing
}

/// A cluster of as many endpoints as there are weights and zones; a sidecar that stands in the zone `here`.
fn cluster_of(settings: ClusterSettings, endpoints: &[(u32, &str)], now: Instant) -> Cluster {
    let of = |(index, (weight, zone)): (u8, &(u32, &str))| {
        let address = SocketAddr::from((Ipv4Addr::new(10, 0, 0, index), 1));
        let zone = Some(*zone).filter(|zone| !zone.is_empty()).map(Arc::from);
        let settings =
            EndpointSettings { weight: *weight, zone, ..EndpointSettings::new(address, Arc::from([])) };
        Arc::new(Endpoint { settings, runtime: Arc::new(EndpointRuntime::new(now)), client: None })
    };
    let endpoints = (0_u8..).zip(endpoints).map(of).collect();
    let empty = fixture::cluster(settings, 0, now);
    let (settings, limits, runtime) = (&empty.settings, &empty.limits, &empty.runtime);
    let cluster = Cluster::new(Arc::clone(settings), Arc::clone(limits), endpoints, Arc::clone(runtime));
    Cluster { zone: Some(Arc::from("here")), ..cluster }
}

/// As if it had been chosen.
fn chosen(endpoint: &Arc<Endpoint>) -> Pick {
    Pick { endpoint: Arc::clone(endpoint), probe: None }
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
        let endpoint = pick(cluster, Ask::plain(&Tried::default()), now, &mut rng).unwrap().endpoint;
        *counts.get_mut(&endpoint.address()).unwrap() += 1;
    }
    counts.into_values().collect()
}

/// The place of an endpoint in its cluster, by its address.
fn place(endpoint: &Endpoint) -> usize {
    let SocketAddr::V4(address) = endpoint.address() else { panic!("no IPv4 address") };
    address.ip().octets()[3].into()
}

/// The place of the endpoint that is chosen for nothing in particular, without a probe.
fn plain(cluster: &Cluster, now: Instant) -> Option<usize> {
    pick(cluster, Ask::plain(&Tried::default()), now, &mut rng()).map(|pick| place(&pick.endpoint))
}

/// Ejects an endpoint until `until`, as outlier detection does.
fn eject(cluster: &Cluster, index: usize, until: Instant) {
    let runtime = &cluster.endpoints[index].runtime;
    let until_us = until.duration_since(runtime.epoch).as_micros();
    runtime.health.ejected_until_us.store(u64::try_from(until_us).unwrap(), Ordering::Release);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
}

/// Lets it in again.
fn let_in(cluster: &Cluster, index: usize, now: Instant) {
    let runtime = &cluster.endpoints[index].runtime;
    let at_us = now.duration_since(runtime.epoch).as_micros();
    runtime.health.back_at_us.store(u64::try_from(at_us).unwrap(), Ordering::Relaxed);
    runtime.health.ejected_until_us.store(0, Ordering::Release);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
}

/// What a health check finds.
fn check(cluster: &Cluster, index: usize, checked: Checked) {
    cluster.endpoints[index].runtime.health.set_checked(checked);
    cluster.runtime.standings.fetch_add(1, Ordering::Release);
}

fn new_runtime() -> (EndpointRuntime, Instant) {
    let now = Instant::now();
    (EndpointRuntime::new(now), now)
}

/// Whether counts are what is expected of independent draws: Pearson's statistic under the bound that one history in
/// ten thousand exceeds, for up to 20 endpoints (Wilson and Hilferty's approximation). The seeds are fixed, so this is
/// no matter of luck.
fn assert_drawn(counts: &[usize], expected: &[f64], what: &str) {
    let sum: f64 = expected.iter().sum();
    let all = counts.iter().sum::<usize>() as f64;
    let expected: Vec<f64> = expected.iter().map(|share| share / sum * all).collect();
    let pairs = || counts.iter().zip(&expected).filter(|(_, expected)| **expected > 0.0);
    assert!(counts.iter().zip(&expected).all(|(count, expected)| *expected > 0.0 || *count == 0), "{what}");
    let statistic: f64 = pairs().map(|(count, expected)| (*count as f64 - expected).powi(2) / expected).sum();
    let freedom = (pairs().count() - 1) as f64;
    let spread = 2.0 / (9.0 * freedom);
    let bound = freedom * (1.0 - spread + 3.72 * spread.sqrt()).powi(3);
    assert!(statistic < bound, "{what}: {statistic:.1} over {bound:.1}: {counts:?} for {expected:?}");
}
