//! Killed without a warning under load: what can be repeated is, and nothing goes to whoever has the address next.

use hyper::{Method, StatusCode};

use super::{
    app::App,
    load::{Load, Plan, Session, Totals},
    mesh::{Mesh, MeshPlan, SidecarPlan},
    process::{Process, program},
    run, until,
};

fn post() -> Plan {
    Plan { method: Method::POST, ..Plan::default() }
}

/// Panics unless each failure is one that nobody could have repeated, and there are at most as many as can have been under way.
fn assert_only_unrepeatable(posts: &Totals) {
    // Each client has one request at a time.
    let under_way = u64::from(post().clients);
    assert!(posts.ok > 0, "no request was made");
    assert!(
        posts.failed <= under_way,
        "{under_way} were under way, {} failed: {:#?}",
        posts.failed,
        posts.failures
    );
    for failure in &posts.failures {
        assert!(failure.contains("reset_before_answer"), "{failure}");
    }
}

#[test]
fn a_killed_sidecar_costs_only_posts_that_were_under_way_on_it_and_its_return_is_noticed() {
    run(async {
        let mut mesh = Mesh::start(3).await;
        let (gets, posts) = (mesh.load(Plan::default()), mesh.load(post()));
        gets.go_on(60).await;
        let held = hold_posts(&mesh, 6).await;
        let held_there = mesh.replicas[0].app.held();

        mesh.replicas[0].sidecar.process.kill();
        let mut outcomes = Vec::new();
        gets.go_on(100).await;
        mesh.replicas.iter().for_each(|replica| replica.app.release());
        for request in held {
            outcomes.push(request.await.expect("no panic"));
        }
        let reset = (StatusCode::SERVICE_UNAVAILABLE, Some("reset_before_answer".to_owned()));
        let lost = outcomes.iter().filter(|outcome| **outcome == reset).count() as u64;
        let answered = outcomes.iter().filter(|outcome| **outcome == (StatusCode::OK, None)).count() as u64;
        assert_eq!((lost, answered), (held_there, 6 - held_there), "{outcomes:?}");

        mesh.replicas[0].sidecar = mesh.replicas[0].sidecar.plan.start("-again").ready().await;
        comes_back(&gets, &mesh.replicas[0].sidecar.plan.name).await;
        gets.go_on(50).await;
        gets.finish().await.assert_none_failed();
        assert_only_unrepeatable(&posts.finish().await);
    });
}

/// POST requests that the apps hold.
async fn hold_posts(mesh: &Mesh, count: u64) -> Vec<tokio::task::JoinHandle<(StatusCode, Option<String>)>> {
    let mut requests = Vec::new();
    for number in 1..=count {
        let mut session = Session::open(mesh.outbound()).await;
        requests.push(tokio::spawn(async move {
            let answer = session.send(Method::POST, "/held").await.expect("the caller's sidecar answers");
            let reason = answer.headers().get("x-outrider-reason");
            (answer.status(), reason.map(|reason| String::from_utf8_lossy(reason.as_bytes()).into_owned()))
        }));
        until("the request is held", async || {
            mesh.replicas.iter().map(|replica| replica.app.held()).sum::<u64>() == number
        })
        .await;
    }
    requests
}

/// Waits until a replica gets requests again.
pub(super) async fn comes_back(load: &Load, replica: &str) {
    let before = load.of_replica(replica);
    until("the replica that is back gets requests", async || load.of_replica(replica) > before + 5).await;
}

fn service(plan: &SidecarPlan, suffix: &str) -> Process {
    let arguments = [
        format!("--name={}", plan.service),
        format!("--replica={}", plan.name),
        format!("--listen={}", plan.host.app()),
        "--work-ms=2".to_owned(),
    ];
    Process::start(&format!("app-{}{suffix}", plan.name), &program("service"), arguments, &plan.folder)
}

#[test]
fn a_killed_app_costs_only_posts_that_were_under_way_on_it_and_its_return_is_noticed() {
    run(async {
        let plan = MeshPlan::new(3);
        let apps: Vec<_> = plan.replicas.iter().map(|plan| service(plan, "")).collect();
        for app in &apps {
            until("the app listens", async || app.log().contains("listening")).await;
        }
        let mut mesh = plan.start_with(apps).await;
        let (gets, posts) = (mesh.load(Plan::default()), mesh.load(post()));
        gets.go_on(60).await;
        mesh.replicas[0].app.kill();
        gets.go_on(200).await;

        let plan = mesh.replicas[0].sidecar.plan.clone();
        mesh.replicas[0].app = service(&plan, "-again");
        comes_back(&gets, &plan.name).await;
        gets.go_on(50).await;
        gets.finish().await.assert_none_failed();
        assert_only_unrepeatable(&posts.finish().await);
    });
}

#[test]
fn an_address_recycled_for_another_identity_gets_no_request_and_costs_none() {
    run(async {
        let mesh = Mesh::start(3).await;
        let load = mesh.load(Plan::default());
        load.go_on(60).await;
        mesh.replicas[0].sidecar.process.kill();
        load.go_on(30).await;

        let old = mesh.replicas[0].sidecar.plan.clone();
        let app = App::start("payroll", mesh.network.host(9).app()).await;
        let mut plan = SidecarPlan::new("payroll", "payroll", old.host, mesh.folder.path());
        plan.app = Some(mesh.network.host(9).app());
        mesh.authority.certify("payroll", &plan.folder);
        super::authority::write(&plan.folder, "bundle.pem", &mesh.authority.bundle());
        let stranger = plan.start("").ready().await;

        let identity_failures = async || {
            let clusters = mesh.caller.ask("/clusters").await;
            clusters["clusters"][0]["endpoints"][0]["failures"].as_u64().expect("a number")
        };
        let before = identity_failures().await;
        until("the stranger is tried", async || identity_failures().await > before).await;
        load.go_on(100).await;
        load.finish().await.assert_none_failed();
        assert!(stranger.accepted().await > 0, "it was reached, or nothing is shown");
        assert_eq!(app.seen(), 0, "no request reached the stranger's app");
        let peers = stranger.ask("/listeners").await["listeners"][0]["peers"].clone();
        let requests: u64 =
            peers.as_array().expect("a list").iter().filter_map(|p| p["requests"].as_u64()).sum();
        assert_eq!(requests, 0, "nor its sidecar: {peers}");
    });
}
