//! What a window shows.

use super::*;

/// No rows, so that only windows judge.
fn windows_only() -> OutlierSettings {
    OutlierSettings {
        consecutive_gateway_failures: None,
        consecutive_local_failures: None,
        ..fixture::outlier()
    }
}

/// So many requests to an endpoint, of which every `nth` fails in that way.
fn mixed(mesh: &mut Mesh, index: usize, requests: u32, (nth, outcome): (u32, Outcome)) {
    for number in 1..=requests {
        mesh.result(index, if number % nth == 0 { outcome } else { Outcome::Success });
    }
}

#[test]
fn an_endpoint_that_succeeds_less_often_than_the_others_is_ejected() {
    for (failures, is_ejected) in [(20, false), (13, false), (10, true), (2, true)] {
        let mut mesh = Mesh::with(3, windows_only());
        mesh.pass(10 * SECOND);
        mixed(&mut mesh, 0, 200, (failures, Outcome::Error));
        mixed(&mut mesh, 1, 200, (200, Outcome::Error));
        mixed(&mut mesh, 2, 200, (1_000, Outcome::Error));
        mesh.pass(10 * SECOND);
        assert_eq!(mesh.ejected_for(Reason::SuccessRate) == 1, is_ejected, "one failure in {failures}");
        assert_eq!(mesh.usable(), if is_ejected { 2 } else { 3 });
    }
}

#[test]
fn few_failures_of_few_requests_are_chance() {
    let mut mesh = Mesh::with(3, windows_only());
    mixed(&mut mesh, 0, 20, (10, Outcome::Error));
    mixed(&mut mesh, 1, 20, (1_000, Outcome::Error));
    mixed(&mut mesh, 2, 20, (1_000, Outcome::Error));
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.usable(), 3, "two of twenty");
}

#[test]
fn a_rate_that_all_have_ejects_nobody() {
    for nth in [2, 3, 10] {
        let mut mesh = Mesh::with(4, windows_only());
        for index in 0..4 {
            mixed(&mut mesh, index, 300, (nth, Outcome::Error));
        }
        mesh.pass(10 * SECOND);
        assert_eq!(mesh.usable(), 4, "one failure in {nth}");
    }
}

#[test]
fn two_are_not_compared() {
    let mut mesh = Mesh::with(2, windows_only());
    mixed(&mut mesh, 0, 200, (2, Outcome::Error));
    mixed(&mut mesh, 1, 200, (1_000, Outcome::Error));
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.usable(), 2);
}

#[test]
fn one_that_nearly_always_fails_is_ejected_without_comparison() {
    for (failures, is_ejected) in [(84, false), (85, true), (100, true)] {
        let mut mesh = Mesh::with(2, windows_only());
        mesh.results(0, Outcome::Error, failures);
        mesh.results(0, Outcome::Success, 100 - failures);
        mesh.result(1, Outcome::Success);
        mesh.pass(10 * SECOND);
        assert_eq!(mesh.ejected_for(Reason::FailurePercent) == 1, is_ejected, "{failures} %");
    }
    let mut mesh = Mesh::with(2, windows_only());
    mesh.results(0, Outcome::Error, 19);
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.usable(), 2, "of 19 requests nothing is concluded");
}

#[test]
fn an_endpoint_far_slower_than_the_others_is_ejected() {
    // Twice and four times as slow is what load makes; all below the floor are fast.
    for (normal, slow, is_ejected) in [
        (50, 100, false),
        (50, 190, false),
        (50, 320, true),
        (1, 90, false),
        (1, 150, true),
        (400, 2_500, true),
    ] {
        let mut mesh = Mesh::with(3, windows_only());
        for _ in 0..40 {
            mesh.answer(0, slow * MS);
            mesh.answer(1, normal * MS);
            mesh.answer(2, normal * MS);
        }
        mesh.pass(10 * SECOND);
        let found = mesh.ejected_for(Reason::Slow) == 1 && !mesh.is_usable(0);
        assert_eq!(found, is_ejected, "{slow} ms beside {normal} ms: {:?}", mesh.events);
    }
}

#[test]
fn some_slow_answers_make_no_slow_endpoint() {
    let mut mesh = Mesh::with(3, windows_only());
    for round in 0..50 {
        for index in 0..3 {
            // Two in five of the first one's are long polls.
            let is_long = index == 0 && round % 5 < 2;
            mesh.answer(index, if is_long { 30 * SECOND } else { 5 * MS });
        }
    }
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.usable(), 3);
}

#[test]
fn a_slow_endpoint_is_back_only_when_its_probe_is_fast() {
    let mut mesh = Mesh::with(3, windows_only());
    for _ in 0..40 {
        mesh.answer(0, 900 * MS);
        mesh.answer(1, 10 * MS);
        mesh.answer(2, 10 * MS);
    }
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.ejected_for(Reason::Slow), 1);
    for probes in 1..=2 {
        mesh.rest(0);
        mesh.answer(0, 900 * MS);
        assert_eq!(mesh.ejected_for(Reason::Probe), probes);
    }
    mesh.rest(0);
    mesh.answer(0, 20 * MS);
    assert!(mesh.is_usable(0));
}

#[test]
fn the_worst_is_ejected_where_not_all_may_be() {
    let mut mesh = Mesh::with(3, windows_only());
    mesh.results(1, Outcome::Success, 10);
    mesh.results(1, Outcome::Error, 90);
    mesh.results(0, Outcome::Error, 100);
    mesh.results(2, Outcome::Success, 100);
    mesh.pass(10 * SECOND);
    assert_eq!((mesh.usable(), mesh.is_usable(0)), (2, false));
}

#[test]
fn a_window_begins_anew() {
    let mut mesh = Mesh::with(2, windows_only());
    mesh.results(0, Outcome::Error, 15);
    mesh.pass(10 * SECOND);
    mesh.results(0, Outcome::Error, 15);
    mesh.pass(10 * SECOND);
    assert_eq!(mesh.usable(), 2);
}
