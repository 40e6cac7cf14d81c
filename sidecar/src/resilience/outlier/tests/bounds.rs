//! How many may be out of use.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::model::{EndpointSettings, health::Checked};

/// The cluster with some of its endpoints, as discovery changed it.
fn with_endpoints(cluster: &Cluster, kept: impl Fn(usize) -> bool) -> Cluster {
    let endpoints = cluster.endpoints.iter().enumerate().filter(|(index, _)| kept(*index));
    let endpoints = endpoints.map(|(_, endpoint)| Arc::clone(endpoint)).collect();
    let (settings, limits) = (Arc::clone(&cluster.settings), Arc::clone(&cluster.limits));
    Cluster::new(settings, limits, endpoints, Arc::clone(&cluster.runtime))
}

#[test]
fn never_below_half_and_never_the_last() {
    for (endpoints, left) in [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (10, 5), (101, 51)] {
        let mut mesh = Mesh::new(endpoints);
        // The last one is well, so that there is somewhere to go.
        mesh.results(usize::from(endpoints) - 1, Outcome::Success, 10);
        for index in 0..usize::from(endpoints) {
            mesh.results(index, Outcome::Local, 50);
        }
        assert_eq!(mesh.usable(), left, "of {endpoints}");
    }
}

#[test]
fn less_may_be_allowed_and_none() {
    for (percent, left) in [(0, 10), (9, 10), (10, 9), (25, 8), (50, 5)] {
        let outlier = OutlierSettings { max_ejected_percent: percent, ..fixture::outlier() };
        let mut mesh = Mesh::with(10, outlier);
        for index in 0..9 {
            mesh.results(index, Outcome::Local, 50);
        }
        assert_eq!(mesh.usable(), left, "{percent} %");
    }
}

#[test]
fn who_is_held_back_by_checks_or_discovery_counts() {
    let mut mesh = Mesh::new(6);
    mesh.endpoint(5).runtime.health.set_checked(Checked::Unhealthy);
    let settings = EndpointSettings { is_ready: false, ..mesh.endpoint(4).settings.clone() };
    let runtime = Arc::clone(&mesh.endpoint(4).runtime);
    mesh.cluster.endpoints[4] = Arc::new(Endpoint { settings, runtime, client: None });
    for index in 0..4 {
        mesh.results(index, Outcome::Local, 5);
    }
    let out = (0..4).filter(|index| !mesh.is_usable(*index)).count();
    assert_eq!(out, 1, "two of three are out already");
}

#[test]
fn who_is_due_soonest_comes_back_when_others_leave() {
    let mut mesh = Mesh::new(8);
    for index in [2, 0, 3, 1] {
        mesh.now += SECOND;
        mesh.results(index, Outcome::Local, 5);
    }
    let until = |index: usize| mesh.endpoint(index).runtime.health.ejected_until_us.load(Ordering::Relaxed);
    let mut order: Vec<usize> = (0..4).collect();
    order.sort_by_key(|index| until(*index));
    assert_eq!(mesh.usable(), 4);
    // Of the four that are well, two leave: of six, three may be out.
    mesh.cluster = with_endpoints(&mesh.cluster, |index| index < 6);
    let events = mesh.pass(SECOND);
    assert_eq!(events, [Event::Back { endpoint: mesh.endpoint(order[0]).address(), is_needed: true }]);
    // All that are well leave.
    mesh.cluster = with_endpoints(&mesh.cluster, |index| index < 4);
    mesh.pass(SECOND);
    assert_eq!(mesh.usable(), 2);
    mesh.cluster = with_endpoints(&mesh.cluster, |index| index == order[3]);
    mesh.pass(SECOND);
    assert!(mesh.is_usable(0), "it is alone");
}

#[test]
fn who_health_checks_hold_back_makes_room_for_the_ejected() {
    let mut mesh = Mesh::new(4);
    mesh.results(0, Outcome::Local, 5);
    mesh.results(1, Outcome::Local, 5);
    mesh.endpoint(2).runtime.health.set_checked(Checked::Unhealthy);
    mesh.pass(SECOND);
    assert_eq!(mesh.usable(), 2);
}

#[derive(Clone, Copy, Debug)]
enum Happening {
    Result(usize, Outcome),
    Wait(u64),
    Check(usize, Checked),
}

fn happening(endpoints: usize) -> impl Strategy<Value = Happening> {
    let outcome = prop_oneof![
        2 => Just(Outcome::Success),
        1 => Just(Outcome::Error),
        3 => Just(Outcome::Gateway),
        3 => Just(Outcome::Local),
        1 => Just(Outcome::Late),
        1 => Just(Outcome::Nothing),
    ];
    let checked = prop_oneof![Just(Checked::Healthy), Just(Checked::Unhealthy)];
    prop_oneof![
        60 => (0..endpoints, outcome).prop_map(|(index, outcome)| Happening::Result(index, outcome)),
        5 => (0_u64..20_000).prop_map(Happening::Wait),
        1 => (0..endpoints, checked).prop_map(|(index, checked)| Happening::Check(index, checked)),
    ]
}

proptest! {
    #[test]
    fn no_history_ejects_beyond_the_bound(
        endpoints in 1_usize..12,
        percent in 0_u32..=50,
        happenings in proptest::collection::vec(happening(12), 0..400),
    ) {
        let outlier = OutlierSettings { max_ejected_percent: percent, ..fixture::outlier() };
        let mut mesh = Mesh::with(u8::try_from(endpoints).unwrap(), outlier);
        let allowed = endpoints * percent as usize / 100;
        let mut before = 0;
        for happening in happenings {
            match happening {
                Happening::Result(index, outcome) => {
                    mesh.results(index % endpoints, outcome, 3);
                }
                Happening::Wait(millis) => {
                    mesh.pass(Duration::from_millis(millis));
                }
                Happening::Check(index, checked) => {
                    mesh.endpoint(index % endpoints).runtime.health.set_checked(checked);
                }
            }
            let ejected = mesh
                .cluster
                .endpoints
                .iter()
                .filter(|e| e.runtime.health.ejected_until_us.load(Ordering::Relaxed) > 0)
                .count();
            prop_assert!(ejected <= allowed, "{} of {}", ejected, endpoints);
            let out = endpoints - mesh.usable();
            // What checks hold back is not ours to bound; but nobody is ejected on top of it.
            prop_assert!(out <= allowed || ejected <= before, "{} out, {} ejected", out, ejected);
            before = ejected;
        }
    }
}

#[test]
fn the_bound_is_exact_over_threads() {
    for seed in 0..20_u64 {
        let mesh = Mesh::new(9);
        let (cluster, now) = (&mesh.cluster, mesh.now);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                scope.spawn(move || {
                    let mut rng = fastrand::Rng::with_seed(seed * 4 + thread);
                    let settings = cluster.settings.outlier.clone().unwrap();
                    let mut now = now;
                    for _ in 0..5_000 {
                        let index = rng.usize(..9);
                        let endpoint = &cluster.endpoints[index];
                        let fails = rng.u8(..10) < if index < 7 { 9 } else { 1 };
                        let outcome = if fails { Outcome::Local } else { Outcome::Success };
                        let report = Report { outcome, started: now, latency: Some(MS), is_late_end: false };
                        let step = record(&settings, endpoint, report);
                        take(cluster, endpoint, step, now, &mut rng);
                        if rng.u8(..100) == 0 {
                            now += SECOND;
                            look(cluster, now, &mut rng);
                        }
                        // Looked at while nobody changes it: one after the other, they are of different moments.
                        let changing = cluster.runtime.outlier.changing.lock().unwrap();
                        let ejected = cluster
                            .endpoints
                            .iter()
                            .filter(|e| e.runtime.health.ejected_until_us.load(Ordering::Acquire) > 0)
                            .count();
                        drop(changing);
                        assert!(ejected <= 4, "{ejected} of 9");
                    }
                });
            }
        });
        let total: u64 = Reason::ALL.into_iter().map(|reason| mesh.ejected_for(reason)).sum();
        assert!(total > 0);
    }
}
