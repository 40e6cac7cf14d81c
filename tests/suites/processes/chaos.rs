//! Broken in every way under constant load: nothing that could be saved is lost, and nothing gets worse by our help.
//! The chaos run (`examples/src/chaos/`) does the same at length, with figures.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use hyper::Method;

use super::{
    ailing::AilingApp,
    kill::comes_back,
    load::{Load, Plan, Session},
    mesh::{Mesh, MeshPlan},
    run, until,
};

/// The replica that is hit.
const VICTIM: usize = 1;

async fn mesh() -> Mesh<AilingApp> {
    let plan = MeshPlan::new(3);
    let apps = plan
        .replicas
        .iter()
        .map(|replica| AilingApp::start(&replica.name, replica.host.app(), replica.folder.join("app")));
    let apps = join_all(apps).await;
    plan.start_with(apps).await
}

/// The sum of a counter of the caller's sidecar over all its series.
async fn counted(mesh: &Mesh<AilingApp>, metric: &str) -> f64 {
    let mut session = Session::open(mesh.caller.plan.host.health()).await;
    let (_, body) = session.get("/metrics").await.expect("the health port answers");
    let body = body.expect("a whole body");
    let text = String::from_utf8_lossy(&body);
    let series =
        text.lines().filter(|line| line.strip_prefix(metric).is_some_and(|rest| rest.starts_with('{')));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

async fn ejections(mesh: &Mesh<AilingApp>) -> f64 {
    counted(mesh, "outrider_endpoint_ejections_total").await
}

/// Waits until the caller's sidecar has ejected somebody.
async fn ejected(mesh: &Mesh<AilingApp>) {
    until("the replica is ejected", async || ejections(mesh).await > 0.0).await;
}

/// From here on nobody waits for what is broken.
async fn assert_unaffected(load: &Load) {
    let slow = load.slow();
    load.go_on(300).await;
    assert_eq!(load.slow() - slow, 0, "requests that took longer than a second");
}

#[test]
fn an_app_killed_together_with_its_sidecar_costs_no_request() {
    run(async {
        let mut mesh = mesh().await;
        let load = mesh.load(Plan::default());
        load.go_on(100).await;
        mesh.replicas[VICTIM].sidecar.process.kill();
        mesh.replicas[VICTIM].app.process.kill();
        load.go_on(200).await;
        mesh.replicas[VICTIM].app.start_again().await;
        let plan = mesh.replicas[VICTIM].sidecar.plan.clone();
        mesh.replicas[VICTIM].sidecar = plan.start("-again").ready().await;
        comes_back(&load, &plan.name).await;
        load.finish().await.assert_none_failed();
    });
}

/// Freezes a process of one replica, and expects that the replica is out soon, that nobody waits for it any more, and
/// that it is used again once it is thawed.
async fn freeze(choose: impl Fn(&Mesh<AilingApp>) -> &super::process::Process) {
    let mesh = mesh().await;
    let load = mesh.load(Plan::default());
    load.go_on(100).await;
    assert_eq!(ejections(&mesh).await, 0.0, "all are well");

    choose(&mesh).freeze();
    ejected(&mesh).await;
    // What waits there already is answered by others.
    load.go_on(20).await;
    assert_unaffected(&load).await;
    choose(&mesh).thaw();
    comes_back(&load, &mesh.replicas[VICTIM].sidecar.plan.name).await;
    load.finish().await.assert_none_failed();
}

#[test]
fn a_frozen_app_is_ejected_costs_no_request_and_is_back_when_it_is() {
    run(freeze(|mesh| &mesh.replicas[VICTIM].app.process));
}

#[test]
fn a_frozen_sidecar_is_ejected_costs_no_request_and_is_back_when_it_is() {
    run(freeze(|mesh| &mesh.replicas[VICTIM].sidecar.process));
}

#[test]
fn an_app_that_answers_503_is_ejected_costs_no_request_and_is_back_when_it_is_well() {
    run(async {
        let mesh = mesh().await;
        let load = mesh.load(Plan::default());
        load.go_on(100).await;
        mesh.replicas[VICTIM].app.fail(503, 100);
        ejected(&mesh).await;
        let seen = mesh.replicas[VICTIM].app.seen();
        load.go_on(150).await;
        let probes = mesh.replicas[VICTIM].app.seen() - seen;
        assert!(probes < 10, "{probes} requests at an app that is out");
        mesh.replicas[VICTIM].app.fail(503, 0);
        comes_back(&load, &mesh.replicas[VICTIM].sidecar.plan.name).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn an_app_that_fails_one_request_in_ten_costs_no_request() {
    run(async {
        let mesh = mesh().await;
        let load = mesh.load(Plan::default());
        load.go_on(50).await;
        mesh.replicas[VICTIM].app.fail(503, 10);
        let seen = mesh.replicas[VICTIM].app.seen();
        load.go_on(400).await;
        // Each failure makes it dear for a while.
        until("it is used", async || mesh.replicas[VICTIM].app.seen() >= seen + 10).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn all_apps_and_all_sidecars_are_restarted_one_by_one_without_a_failed_request() {
    run(async {
        let mut mesh = mesh().await;
        let load = mesh.load(Plan::default());
        load.go_on(50).await;
        for replica in 0..mesh.replicas.len() {
            mesh.replicas[replica].app.restart().await;
            comes_back(&load, &mesh.replicas[replica].sidecar.plan.name.clone()).await;
        }
        for replica in 0..mesh.replicas.len() {
            let status = mesh.replicas[replica].sidecar.replace("-new").await;
            assert!(status.success(), "{status}");
            comes_back(&load, &mesh.replicas[replica].sidecar.plan.name.clone()).await;
        }
        let status = mesh.caller.replace("-new").await;
        assert!(status.success(), "{status}");
        load.go_on(50).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn a_mesh_that_lost_all_replicas_works_again_soon_after_the_first_is_back() {
    run(async {
        let mut mesh = mesh().await;
        let load = mesh.load(Plan::default());
        load.go_on(50).await;
        for replica in &mesh.replicas {
            replica.sidecar.process.kill();
            replica.app.process.kill();
        }
        // Long enough for every rest to have grown.
        until("requests fail", async || load.read().failed > 200).await;

        mesh.replicas[0].app.start_again().await;
        let plan = mesh.replicas[0].sidecar.plan.clone();
        mesh.replicas[0].sidecar = plan.start("-again").ready().await;
        until("requests are answered", async || load.of_replica(&plan.name) > 0).await;
        until("no request fails any more", async || {
            let failed = load.read().failed;
            load.go_on(50).await;
            load.read().failed == failed
        })
        .await;
    });
}

#[test]
fn where_everything_fails_the_apps_see_no_more_than_the_budget_lets_through() {
    run(async {
        let mesh = mesh().await;
        let began = Instant::now();
        let load = mesh.load(Plan { method: Method::GET, rate: 200, ..Plan::default() });
        load.go_on(50).await;
        mesh.replicas.iter().for_each(|replica| replica.app.fail(503, 100));
        until("requests fail", async || load.read().failed > 20).await;
        let seen = || mesh.replicas.iter().map(|replica| replica.app.seen()).sum::<u64>();
        let (attempts, before) = (seen(), load.read());
        load.go_on(800).await;
        let (attempts, after) = (seen() - attempts, load.read());
        let requests = after.ok + after.failed - before.ok - before.failed;
        assert!(
            after.ok - before.ok < requests / 10,
            "they fail: {} of {requests}",
            after.failed - before.failed
        );
        // 20 % of the requests and 10 per second of the last ten seconds, those before the failure included.
        let window = began.elapsed().min(Duration::from_secs(10)).as_secs_f64();
        let most = 0.2 * (after.ok + after.failed) as f64 + 10.0 * window;
        let extra = attempts as f64 - requests as f64;
        // Six clients may have one request under way at either edge.
        assert!(extra <= most + 12.0, "{attempts} attempts for {requests} requests, {most} more allowed");
        assert!(extra > 20.0, "{attempts} attempts for {requests} requests: nothing was repeated");
        load.finish().await;
    });
}
