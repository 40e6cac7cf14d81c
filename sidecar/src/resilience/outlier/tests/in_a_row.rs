//! Failures in a row.

use super::*;

#[test]
fn five_gateway_failures_in_a_row_eject_and_four_do_not() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 4);
    assert!(mesh.is_usable(0));
    mesh.result(0, Outcome::Success);
    mesh.results(0, Outcome::Gateway, 4);
    assert!(mesh.is_usable(0), "an answer between them begins anew");
    let standings = mesh.standings();
    assert!(matches!(
        mesh.result(0, Outcome::Gateway),
        Some(Event::Ejected { reason: Reason::GatewayFailures, in_a_row: 1, .. })
    ));
    assert!(matches!(mesh.standing(0), Standing::Resting(_)));
    assert_eq!((mesh.standings(), mesh.ejected_for(Reason::GatewayFailures)), (standings + 1, 1));
}

#[test]
fn local_failures_are_counted_apart_from_gateways() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Local, 4);
    mesh.results(0, Outcome::Gateway, 4);
    assert!(mesh.is_usable(0));
    mesh.results(0, Outcome::Local, 4);
    assert!(mesh.is_usable(0), "an answer of a gateway was heard: it could be reached");
    mesh.result(0, Outcome::Local);
    assert_eq!(mesh.ejected_for(Reason::LocalFailures), 1);
}

#[test]
fn an_app_that_fails_is_there() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 4);
    mesh.result(0, Outcome::Error);
    mesh.results(0, Outcome::Gateway, 4);
    mesh.results(0, Outcome::Error, 15);
    assert!(mesh.is_usable(0));
}

#[test]
fn what_says_nothing_ends_no_row() {
    let mut mesh = Mesh::new(3);
    for _ in 0..5 {
        assert!(mesh.is_usable(0));
        mesh.result(0, Outcome::Gateway);
        mesh.result(0, Outcome::Nothing);
    }
    assert!(!mesh.is_usable(0));
}

#[test]
fn without_a_limit_no_row_ejects() {
    let outlier = OutlierSettings {
        consecutive_gateway_failures: None,
        consecutive_local_failures: None,
        ..fixture::outlier()
    };
    let mut mesh = Mesh::with(3, outlier);
    mesh.results(0, Outcome::Gateway, 100);
    mesh.results(0, Outcome::Local, 100);
    assert!(mesh.is_usable(0));
}

#[test]
fn a_timeout_that_is_too_short_for_all_ejects_nobody() {
    let mut mesh = Mesh::new(3);
    // Three in ten are late, whoever is asked.
    for round in 0..1_000 {
        for index in 0..3 {
            mesh.result(index, if round % 10 < 7 { Outcome::Success } else { Outcome::Late });
        }
        mesh.now += 10 * MS;
    }
    mesh.results(0, Outcome::Late, 50);
    assert_eq!(mesh.usable(), 3);
    assert!(mesh.cluster.runtime.outlier.held_back.load(Ordering::Relaxed) > 0);
}

#[test]
fn timeouts_of_one_alone_eject_it() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Late, 5);
    assert!(mesh.is_usable(0), "nothing is known of the others");
    mesh.results(1, Outcome::Success, 20);
    mesh.results(2, Outcome::Success, 20);
    mesh.results(0, Outcome::Late, 5);
    assert_eq!(mesh.ejected_for(Reason::LocalFailures), 1);
}

#[test]
fn nobody_is_ejected_for_what_all_do() {
    let mut mesh = Mesh::new(4);
    for _ in 0..50 {
        for index in 0..4 {
            mesh.result(index, Outcome::Gateway);
        }
    }
    assert_eq!(mesh.usable(), 4, "{:?}", mesh.events);
    // One of them is well again: now there is somewhere to go.
    mesh.results(3, Outcome::Success, 100);
    for _ in 0..10 {
        for index in 0..3 {
            mesh.result(index, Outcome::Gateway);
        }
    }
    assert_eq!(mesh.usable(), 2, "half, and no more");
    assert!(mesh.is_usable(3));
}

#[test]
fn a_stream_that_breaks_off_was_no_success() {
    let mut mesh = Mesh::new(3);
    for _ in 0..20 {
        mesh.result(0, Outcome::Success);
        let (started, latency) = (mesh.now, Some(MS));
        mesh.report(0, Report { outcome: Outcome::Gateway, started, latency, is_late_end: true });
    }
    let results = mesh.endpoint(0).runtime.seen.in_window();
    assert_eq!((results.successes, results.failures), (0, 20));
}

#[test]
fn results_of_an_endpoint_that_rests_change_nothing() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    let Standing::Resting(until) = mesh.standing(0) else { panic!() };
    mesh.results(0, Outcome::Success, 10);
    mesh.results(0, Outcome::Gateway, 10);
    assert_eq!(mesh.standing(0), Standing::Resting(until));
    assert_eq!(mesh.events.len(), 1);
}
