//! A sidecar is replaced by a new process beside the old one, and nobody notices.

use super::{
    load::Plan,
    mesh::{Mesh, Sidecar},
    run,
};

/// Replacements in a row.
const ROUNDS: u32 = 3;

/// Replaces the chosen sidecar several times under load of clients that keep their connections and of clients that
/// make one for each request.
async fn replace_under_load(mut mesh: Mesh, choose: impl Fn(&mut Mesh) -> &mut Sidecar) {
    let keeping = mesh.load(Plan::default());
    let fresh = mesh.load(Plan { keeps: false, ..Plan::default() });
    for round in 1..=ROUNDS {
        keeping.go_on(60).await;
        let status = choose(&mut mesh).replace(&format!("-{round}")).await;
        assert!(status.success(), "round {round}: {status}");
    }
    keeping.go_on(60).await;
    let (keeping, fresh) = (keeping.finish().await, fresh.finish().await);
    keeping.assert_none_failed();
    fresh.assert_none_failed();
    eprintln!("keeping: {} repeated, {} closing of {}", keeping.repeated, keeping.closing, keeping.ok);
}

#[test]
fn the_callers_sidecar_is_replaced_under_load_without_a_failed_request() {
    run(async {
        replace_under_load(Mesh::start(2).await, |mesh| &mut mesh.caller).await;
    });
}

#[test]
fn the_only_callees_sidecar_is_replaced_under_load_without_a_failed_request() {
    run(async {
        replace_under_load(Mesh::start(1).await, |mesh| &mut mesh.replicas[0].sidecar).await;
    });
}
