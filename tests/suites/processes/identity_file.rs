//! Certificates and roots from files that change under load.

use std::fs;

use hyper::StatusCode;
use serde_json::Value;

use super::{
    authority::{Authority, write},
    load::{Plan, Session},
    mesh::{CALLER, Mesh, Sidecar, SidecarPlan},
    run, until,
};

fn sidecars(mesh: &Mesh) -> Vec<&Sidecar> {
    mesh.replicas.iter().map(|replica| &replica.sidecar).chain([&mesh.caller]).collect()
}

async fn number(sidecar: &Sidecar, pointer: &str) -> u64 {
    sidecar.ask("/certs").await.pointer(pointer).and_then(Value::as_u64).expect("a number")
}

/// Lets every sidecar see a change of its files, and waits until all have taken up something new.
async fn change(mesh: &Mesh, change: impl Fn(&SidecarPlan)) {
    const TAKEN_UP: &str = "/renewal/successes";
    let mut before = Vec::new();
    for sidecar in sidecars(mesh) {
        before.push(number(sidecar, TAKEN_UP).await);
    }
    for sidecar in sidecars(mesh) {
        change(&sidecar.plan);
    }
    for (sidecar, before) in sidecars(mesh).into_iter().zip(before) {
        let name = &sidecar.plan.name;
        until(&format!("{name} takes it up"), async || number(sidecar, TAKEN_UP).await > before).await;
    }
}

#[test]
fn a_change_of_roots_under_load_costs_nothing_and_shuts_the_old_root_out() {
    run(async {
        let mesh = Mesh::start(2).await;
        let load = mesh.load(Plan::default());
        let fresh = mesh.load(Plan { keeps: false, rate: 50, ..Plan::default() });
        load.go_on(40).await;
        let new = Authority::new(&mesh.folder.path().join("new-ca"));
        let both = mesh.authority.bundle() + &new.bundle();

        change(&mesh, |plan| write(&plan.folder, "bundle.pem", &both)).await;
        let old_peer = late_caller(&mesh, 11, &mesh.authority, &both).await;
        assert_eq!(call(&old_peer).await, StatusCode::OK, "both roots are trusted");
        assert!(old_peer.ask("/certs").await["trust_bundles"][0]["roots"] == 2);
        load.go_on(20).await;
        change(&mesh, |plan| new.certify(plan.service, &plan.folder)).await;
        load.go_on(20).await;
        change(&mesh, |plan| write(&plan.folder, "bundle.pem", &new.bundle())).await;
        load.go_on(40).await;

        until("the live connections of an old-root peer are cut", async || {
            call(&old_peer).await == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        let late = late_caller(&mesh, 12, &mesh.authority, &both).await;
        assert_eq!(call(&late).await, StatusCode::SERVICE_UNAVAILABLE, "the old root is out");
        let mut refused = 0;
        for replica in &mesh.replicas {
            let listeners = replica.sidecar.ask("/listeners").await;
            let reasons = listeners["listeners"][0]["refused"].as_object().expect("reasons").clone();
            refused += reasons.values().filter_map(Value::as_u64).sum::<u64>();
        }
        assert!(refused > 0, "and the replicas say so");
        load.finish().await.assert_none_failed();
        fresh.finish().await.assert_none_failed();
    });
}

/// Another sidecar of the caller's, certified by `authority`.
async fn late_caller(mesh: &Mesh, host: u8, authority: &Authority, bundle: &str) -> Sidecar {
    let name = format!("late-{host}");
    let mut plan = SidecarPlan::new(&name, CALLER, mesh.network.host(host), mesh.folder.path());
    plan.calls = mesh.caller.plan.calls.clone();
    authority.certify(CALLER, &plan.folder);
    write(&plan.folder, "bundle.pem", bundle);
    plan.start("").ready().await
}

async fn call(caller: &Sidecar) -> StatusCode {
    let mut session = Session::open(caller.plan.host.outbound()).await;
    session.get("/").await.expect("the sidecar answers").0.status
}

#[test]
fn half_written_files_keep_the_last_good() {
    run(async {
        let mesh = Mesh::start(2).await;
        let load = mesh.load(Plan::default());
        let broken: Vec<_> = sidecars(&mesh)
            .into_iter()
            .zip(["svid.pem", "svid_key.pem", "bundle.pem"])
            .map(|(sidecar, name)| {
                let file = sidecar.plan.folder.join(name);
                let whole = fs::read(&file).expect("there");
                fs::write(&file, &whole[..whole.len() / 2]).expect("written");
                (sidecar, file, whole)
            })
            .collect();
        for (sidecar, file, whole) in &broken {
            until("the half is noticed", async || number(sidecar, "/renewal/failures").await > 0).await;
            assert!(sidecar.process.log().contains("the last good stays"), "it warns");
            fs::write(file, whole).expect("written");
        }
        for (sidecar, ..) in &broken {
            let is_well = async || sidecar.ask("/certs").await["renewal"]["error"].is_null();
            until("it is well again", is_well).await;
        }
        load.go_on(20).await;
        load.finish().await.assert_none_failed();
    });
}
