//! Rest, the probe and the way back.

use super::*;

/// The rest in the last event.
fn last_rest(mesh: &Mesh) -> Duration {
    match mesh.events.last() {
        Some(Event::Ejected { rest, .. }) => *rest,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rest_doubles_with_each_failed_probe_up_to_its_bound() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    for base in [5, 10, 20, 40, 60, 60, 60] {
        let (rest, base) = (last_rest(&mesh), Duration::from_secs(base));
        assert!(rest >= base && rest <= base * 3 / 2, "{rest:?} for {base:?}");
        mesh.rest(0);
        assert!(mesh.result(0, Outcome::Local).is_some());
    }
    assert_eq!(mesh.ejected_for(Reason::Probe), 7);
    assert_eq!(mesh.usable(), 2);
}

#[test]
fn rests_differ_by_chance() {
    let rests: Vec<_> = (0..20)
        .map(|seed| {
            let mut mesh = Mesh::new(3);
            mesh.rng = fastrand::Rng::with_seed(seed);
            mesh.results(0, Outcome::Gateway, 5);
            last_rest(&mesh)
        })
        .collect();
    let (least, most) = (rests.iter().min().unwrap(), rests.iter().max().unwrap());
    assert!(*most - *least > SECOND, "{least:?} to {most:?}");
}

#[test]
fn a_probe_that_goes_well_lets_it_in_as_a_newcomer() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    let standings = mesh.standings();
    let back = Event::Back { endpoint: mesh.endpoint(0).address(), is_needed: false };
    assert_eq!(mesh.result(0, Outcome::Success), Some(back));
    assert!(mesh.is_usable(0));
    assert_eq!(mesh.standings(), standings + 1);
    let runtime = &mesh.endpoint(0).runtime;
    assert!(runtime.health.back_at_us.load(Ordering::Relaxed) > 0);
    assert_eq!(runtime.latency_us.load(Ordering::Relaxed), 1_000, "as fast as its probe");
    assert!(!runtime.is_penalised.load(Ordering::Relaxed));
    mesh.results(0, Outcome::Gateway, 4);
    assert!(mesh.is_usable(0), "it begins anew");
}

#[test]
fn what_was_begun_before_the_rest_was_over_decides_nothing() {
    let mut mesh = Mesh::new(3);
    let started = mesh.now;
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    for outcome in [Outcome::Success, Outcome::Gateway] {
        assert_eq!(mesh.report(0, Report { outcome, started, latency: None, is_late_end: false }), None);
    }
    assert_eq!(mesh.standing(0), Standing::Due);
    assert!(mesh.result(0, Outcome::Success).is_some());
    // It fails only now, but was begun long ago.
    for _ in 0..10 {
        mesh.report(0, Report { outcome: Outcome::Gateway, started, latency: None, is_late_end: false });
    }
    assert!(mesh.is_usable(0));
}

#[test]
fn a_probe_that_is_given_up_decides_nothing_and_another_may_follow() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    let endpoint = mesh.endpoint(0);
    let probe = crate::balance::Probe::take(&endpoint.runtime);
    assert!(probe.is_some() && crate::balance::Probe::take(&endpoint.runtime).is_none());
    drop(InFlight::start(Pick { endpoint: std::sync::Arc::clone(&endpoint), probe }, mesh.now));
    assert_eq!(mesh.result(0, Outcome::Nothing), None);
    assert_eq!(mesh.standing(0), Standing::Due);
    assert!(crate::balance::Probe::take(&endpoint.runtime).is_some());
}

#[test]
fn windows_without_an_ejection_shorten_the_next_rest_one_by_one() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    for _ in 0..3 {
        mesh.rest(0);
        mesh.result(0, Outcome::Gateway);
    }
    mesh.rest(0);
    mesh.result(0, Outcome::Success);
    let in_a_row = |mesh: &Mesh| mesh.endpoint(0).runtime.health.ejections.load(Ordering::Relaxed);
    assert_eq!(in_a_row(&mesh), 4);
    mesh.pass(9 * SECOND);
    assert_eq!(in_a_row(&mesh), 4, "it is back for less than a window");
    for left in [3, 2, 1, 0, 0] {
        mesh.pass(10 * SECOND);
        assert_eq!(in_a_row(&mesh), left);
    }
    mesh.results(0, Outcome::Gateway, 5);
    assert!(last_rest(&mesh) < 8 * SECOND);
}

#[test]
fn a_rest_does_not_grow_while_all_others_fail_as_well() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.results(1, Outcome::Gateway, 20);
    mesh.results(2, Outcome::Gateway, 20);
    for _ in 0..5 {
        mesh.rest(0);
        mesh.result(0, Outcome::Gateway);
        assert!(last_rest(&mesh) <= 8 * SECOND);
    }
}

#[test]
fn an_app_that_fails_passes_the_probe_of_one_that_was_not_there() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Local, 5);
    mesh.rest(0);
    mesh.result(0, Outcome::Error);
    assert!(mesh.is_usable(0));
}

#[test]
fn health_checks_and_discovery_have_the_last_word() {
    let mut mesh = Mesh::new(4);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    let endpoint = mesh.endpoint(0);
    endpoint.runtime.health.set_checked(crate::model::health::Checked::Unhealthy);
    assert_eq!(mesh.result(0, Outcome::Success), None);
    assert_eq!(mesh.standing(0), Standing::Unhealthy);
    endpoint.runtime.health.set_checked(crate::model::health::Checked::Healthy);
    assert_eq!(mesh.standing(0), Standing::Due);
}

#[test]
fn an_overloaded_endpoint_is_noted_once_and_for_no_longer_than_the_bound() {
    let mesh = Mesh::new(2);
    let (endpoint, standings) = (mesh.endpoint(0), mesh.standings());
    let until = || {
        Duration::from_micros(endpoint.runtime.health.overloaded_until_us.load(Ordering::Relaxed))
            .saturating_sub(mesh.now - endpoint.runtime.epoch)
    };
    overload(&mesh.cluster, &endpoint, None, mesh.now);
    assert_eq!((until(), mesh.standings()), (OVERLOAD, standings + 1));
    overload(&mesh.cluster, &endpoint, Some(2 * SECOND), mesh.now);
    assert_eq!(until(), OVERLOAD, "a shorter time changes nothing");
    overload(&mesh.cluster, &endpoint, Some(3_600 * SECOND), mesh.now);
    assert_eq!((until(), mesh.standings()), (MAX_OVERLOAD, standings + 1));
    overload(&mesh.cluster, &endpoint, Some(SECOND), mesh.now + 301 * SECOND);
    assert_eq!(mesh.standings(), standings + 2, "it was over");
    assert!(mesh.is_usable(0), "that is no ejection");
}
