//! Silence.

use super::*;

/// Quick answers of those endpoints.
fn talk(mesh: &mut Mesh, talking: &[usize], times: u32) {
    for _ in 0..times {
        for index in talking {
            mesh.answer(*index, 2 * MS);
        }
    }
}

#[test]
fn one_that_falls_silent_under_load_is_ejected_within_two_seconds() {
    // Wherever between two looks it falls silent.
    for after_look in [10, 300, 700, 990] {
        let mut mesh = Mesh::new(3);
        talk(&mut mesh, &[0, 1, 2], 30);
        mesh.pass(3 * SECOND);
        mesh.now += after_look * MS;
        talk(&mut mesh, &[0, 1, 2], 1);
        let waiting: Vec<_> = (0..4).map(|_| mesh.send(0)).collect();
        let stopped = mesh.now;
        // The looks go on as before.
        mesh.now += (1_000 - after_look) * MS;
        talk(&mut mesh, &[1, 2], 10);
        look(&mesh.cluster, mesh.now, &mut mesh.rng);
        assert!(mesh.is_usable(0), "after {after_look}");
        while mesh.is_usable(0) && mesh.now < stopped + 5 * SECOND {
            talk(&mut mesh, &[1, 2], 10);
            mesh.pass(SECOND);
        }
        assert_eq!(mesh.ejected_for(Reason::Silent), 1);
        assert!(mesh.now - stopped <= 2 * SECOND, "{after_look}: {:?}", mesh.now - stopped);
        drop(waiting);
    }
}

#[test]
fn who_waits_for_a_silent_endpoint_is_told() {
    let mut mesh = Mesh::new(3);
    talk(&mut mesh, &[0, 1, 2], 30);
    mesh.pass(2 * SECOND);
    let endpoint = mesh.endpoint(0);
    let mut told = std::pin::pin!(endpoint.runtime.seen.silenced.notified());
    assert!(!told.as_mut().enable());
    let _waiting: Vec<_> = (0..4).map(|_| mesh.send(0)).collect();
    for _ in 0..3 {
        talk(&mut mesh, &[1, 2], 10);
        mesh.pass(SECOND);
    }
    assert!(told.as_mut().enable());
}

#[test]
fn long_polls_are_not_silence() {
    // Any number that began long ago.
    let mut mesh = Mesh::new(3);
    let waiting: Vec<_> = (0..30).map(|_| mesh.send(0)).collect();
    for _ in 0..5 {
        talk(&mut mesh, &[0, 1, 2], 10);
        mesh.pass(SECOND);
    }
    for _ in 0..60 {
        talk(&mut mesh, &[1, 2], 10);
        mesh.pass(SECOND);
    }
    assert_eq!(mesh.usable(), 3, "{:?}", mesh.events);
    drop(waiting);
}

#[test]
fn one_that_keeps_one_or_two_waiting_for_long_has_to_answer_another_and_they_wait_on() {
    for polls in [1, 2] {
        let mut mesh = Mesh::new(3);
        let waiting: Vec<_> = (0..polls).map(|_| mesh.send(0)).collect();
        let endpoint = mesh.endpoint(0);
        let mut told = std::pin::pin!(endpoint.runtime.seen.silenced.notified());
        assert!(!told.as_mut().enable());
        for _ in 0..4 {
            talk(&mut mesh, &[1, 2], 10);
            mesh.pass(SECOND);
            assert_eq!(mesh.usable(), 3, "{:?}", mesh.events);
        }
        for _ in 0..3 {
            talk(&mut mesh, &[1, 2], 10);
            mesh.pass(SECOND);
        }
        assert_eq!(mesh.ejected_for(Reason::Silent), 1, "{polls} polls: {:?}", mesh.events);
        assert!(!told.as_mut().enable(), "they wait on");
        assert_eq!(endpoint.runtime.health.ejections.load(Ordering::Relaxed), 0, "nothing grows");
        drop(waiting);
    }
}

#[test]
fn where_all_have_long_polls_they_are_no_silence() {
    let mut mesh = Mesh::new(3);
    mesh.pass(2 * SECOND);
    mesh.now += 100 * MS;
    // An app starts: it opens three watches at each, and its quick calls happen to go elsewhere.
    let watches: Vec<_> = (0..9).map(|number| mesh.send(number % 3)).collect();
    for _ in 0..30 {
        talk(&mut mesh, &[1, 2], 10);
        mesh.pass(SECOND);
    }
    assert_eq!(mesh.usable(), 3, "{:?}", mesh.events);
    drop(watches);
}

#[test]
fn slow_answers_are_awaited_as_long_as_they_usually_take() {
    let mut mesh = Mesh::new(3);
    for _ in 0..20 {
        for index in 0..3 {
            mesh.answer(index, 800 * MS);
        }
    }
    let _waiting: Vec<_> = (0..5).map(|_| mesh.send(0)).collect();
    for _ in 0..4 {
        mesh.answer(1, 800 * MS);
        mesh.answer(2, 800 * MS);
        mesh.pass(SECOND);
        assert_eq!(mesh.usable(), 3);
    }
    for _ in 0..2 {
        mesh.answer(1, 800 * MS);
        mesh.answer(2, 800 * MS);
        mesh.pass(SECOND);
    }
    assert_eq!(mesh.ejected_for(Reason::Silent), 1, "five times as long");
}

#[test]
fn with_little_traffic_nobody_is_silent() {
    let mut mesh = Mesh::new(3);
    talk(&mut mesh, &[1, 2], 5);
    let _waiting: Vec<_> = (0..10).map(|_| mesh.send(0)).collect();
    for _ in 0..30 {
        mesh.pass(4 * SECOND);
        mesh.answer(1, MS);
    }
    assert_eq!(mesh.usable(), 3);
}

#[test]
fn where_nobody_talks_nobody_is_silent() {
    let mut mesh = Mesh::new(3);
    talk(&mut mesh, &[0, 1, 2], 30);
    let _waiting: Vec<_> = (0..30).map(|number| mesh.send(number % 3)).collect();
    mesh.pass(8 * SECOND);
    assert_eq!(mesh.usable(), 3);
}

#[test]
fn a_probe_that_hangs_is_a_failed_one() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    talk(&mut mesh, &[1, 2], 30);
    let probe = crate::balance::Probe::take(&mesh.endpoint(0).runtime);
    let probing = InFlight::start(Pick { endpoint: mesh.endpoint(0), probe }, mesh.now);
    assert!(probing.is_probe());
    mesh.pass(SECOND);
    assert_eq!(mesh.standing(0), Standing::Due);
    mesh.pass(2 * SECOND);
    assert!(matches!(mesh.events.last(), Some(Event::Ejected { reason: Reason::Silent, in_a_row: 2, .. })));
    drop(probing);
}

#[test]
fn a_stream_that_goes_on_after_its_head_is_an_answer() {
    let mut mesh = Mesh::new(3);
    mesh.results(0, Outcome::Gateway, 5);
    mesh.rest(0);
    let endpoint = mesh.endpoint(0);
    headed(&endpoint, mesh.now - SECOND, mesh.now);
    mesh.pass(2 * SECOND);
    assert_eq!(mesh.standing(0), Standing::Due, "that was begun before");
    headed(&endpoint, mesh.now, mesh.now);
    mesh.pass(2 * SECOND);
    assert!(mesh.is_usable(0));
}

#[test]
fn several_workers_look_once() {
    let mesh = Mesh::new(3);
    let judged = || mesh.cluster.runtime.outlier.looked_at_us.load(Ordering::Relaxed);
    look(&mesh.cluster, mesh.now, &mut fastrand::Rng::with_seed(1));
    let first = judged();
    look(&mesh.cluster, mesh.now + 500 * MS, &mut fastrand::Rng::with_seed(1));
    assert_eq!(judged(), first);
    look(&mesh.cluster, mesh.now + SECOND, &mut fastrand::Rng::with_seed(1));
    assert!(judged() > first);
}
