//! Told to stop, a sidecar finishes what it has and loses nothing.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::{Method, StatusCode, header};

use super::{
    app::PIECE_BYTES,
    load::{Answer, Plan, Session},
    mesh::{Host, Mesh, MeshPlan, Sidecar},
    process::{Process, program},
    run, until,
};

/// Time for a process that has nothing left to wait for.
const PROMPT: Duration = Duration::from_secs(5);

/// What `/ready` on the health port says.
async fn readiness(host: Host) -> StatusCode {
    let (head, _) = Session::open(host.health()).await.get("/ready").await.expect("health answers");
    head.status
}

/// A request that the app holds until it is released.
async fn held_request(mesh: &Mesh) -> tokio::task::JoinHandle<Result<Answer, hyper::Error>> {
    let mut session = Session::open(mesh.outbound()).await;
    tokio::spawn(async move { session.get("/held").await })
}

fn held(mesh: &Mesh) -> u64 {
    mesh.replicas.iter().map(|replica| replica.app.held()).sum()
}

fn text(answer: Result<Answer, hyper::Error>) -> (StatusCode, String) {
    let (head, body) = answer.expect("an answer");
    (head.status, String::from_utf8_lossy(&body.expect("a whole body")).into_owned())
}

#[test]
fn a_callees_sidecar_told_to_stop_under_load_costs_nothing() {
    run(async {
        let mut mesh = Mesh::start(3).await;
        let load = mesh.load(Plan::default());
        load.go_on(50).await;
        let mut requests = Vec::new();
        while mesh.replicas[0].app.held() == 0 {
            requests.push(held_request(&mesh).await);
            until("another request is held", async || held(&mesh) == requests.len() as u64).await;
        }
        let host = mesh.replicas[0].sidecar.plan.host;
        assert_eq!(readiness(host).await, StatusCode::OK);

        mesh.replicas[0].sidecar.process.terminate();
        until("it is not ready any more", async || readiness(host).await == StatusCode::SERVICE_UNAVAILABLE)
            .await;
        load.go_on(50).await;
        let seen = mesh.replicas[0].app.seen();
        load.go_on(100).await;
        assert_eq!(mesh.replicas[0].app.seen(), seen, "a draining replica gets no new requests");
        assert!(!mesh.replicas[0].sidecar.process.has_ended(), "it waits for the requests it has");

        mesh.replicas.iter().for_each(|replica| replica.app.release());
        let status = mesh.replicas[0].sidecar.process.exited(PROMPT).await;
        assert!(status.success(), "{status}");
        for request in requests {
            assert_eq!(text(request.await.expect("no panic")), (StatusCode::OK, "released".to_owned()));
        }
        load.go_on(50).await;
        load.finish().await.assert_none_failed();
    });
}

#[test]
fn a_callers_sidecar_told_to_stop_finishes_requests_and_says_goodbye_to_idle_clients() {
    run(async {
        let mut plan = MeshPlan::new(1);
        plan.caller.drain = ("5s", "20s");
        let mut mesh = plan.start().await;
        let under_way = held_request(&mesh).await;
        let mut idle = Session::open(mesh.outbound()).await;
        let (head, _) = idle.get("/").await.expect("an answer");
        assert_eq!(head.headers.get(header::CONNECTION), None, "nothing is said before the drain");
        until("the request is held", async || held(&mesh) == 1).await;

        mesh.caller.process.terminate();
        let host = mesh.caller.plan.host;
        until("it drains", async || readiness(host).await == StatusCode::SERVICE_UNAVAILABLE).await;
        let (head, body) = idle.get("/").await.expect("a kept connection still serves");
        assert_eq!((head.status, body.is_ok()), (StatusCode::OK, true));
        assert_eq!(head.headers.get(header::CONNECTION).expect("goodbye"), "close");

        mesh.replicas[0].app.release();
        assert_eq!(text(under_way.await.expect("no panic")), (StatusCode::OK, "released".to_owned()));
        let status = mesh.caller.process.exited(PROMPT).await;
        assert!(status.success(), "{status}");
    });
}

#[test]
fn what_outlasts_the_drain_deadline_is_cut_and_the_exit_code_is_still_0() {
    run(async {
        let mut plan = MeshPlan::new(1);
        plan.caller.drain = ("100ms", "1s");
        plan.replicas[0].drain = ("100ms", "1s");
        let mut mesh = plan.start().await;
        let request = held_request(&mesh).await;
        until("the request is held", async || held(&mesh) == 1).await;
        cut(&mut mesh.replicas[0].sidecar).await;
        let (head, _) = request.await.expect("no panic").expect("the caller's sidecar answers");
        assert_eq!(head.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(head.headers.contains_key("x-outrider-reason"), "{head:?}");

        mesh.replicas[0].sidecar = mesh.replicas[0].sidecar.plan.start("-again").ready().await;
        let request = held_request(&mesh).await;
        until("the request is held", async || held(&mesh) == 1).await;
        cut(&mut mesh.caller).await;
        let broken = request.await.expect("no panic").expect_err("the connection was cut");
        assert!(broken.is_incomplete_message() || broken.is_closed(), "{broken:?}");
    });
}

/// SIGTERM to a sidecar whose drain ends only by its deadline of 1 s.
async fn cut(sidecar: &mut Sidecar) {
    let told = Instant::now();
    let status = sidecar.stop().await;
    let took = told.elapsed();
    assert!(status.success(), "{status}");
    assert!(took >= Duration::from_secs(1) && took < PROMPT, "it ended after {took:?}");
}

#[test]
fn a_second_sigterm_ends_a_draining_sidecar_at_once() {
    run(async {
        let mut plan = MeshPlan::new(1);
        plan.caller.drain = ("5s", "1h");
        let mut mesh = plan.start().await;
        let request = held_request(&mesh).await;
        until("the request is held", async || held(&mesh) == 1).await;
        mesh.caller.process.terminate();
        let host = mesh.caller.plan.host;
        until("it drains", async || readiness(host).await == StatusCode::SERVICE_UNAVAILABLE).await;
        mesh.caller.process.terminate();
        let status = mesh.caller.process.exited(PROMPT).await;
        assert!(status.success(), "{status}");
        assert!(mesh.caller.process.log().contains("stopping at once"), "it says so");
        request.await.expect("no panic").expect_err("nobody was left to answer");
    });
}

#[test]
fn outrider_drain_follows_a_drain_to_its_end() {
    run(async {
        let mut mesh = Mesh::start(1).await;
        let request = held_request(&mesh).await;
        until("the request is held", async || held(&mesh) == 1).await;
        let mut inbound = drain_command(&mesh.replicas[0].sidecar, &["--inbound", "--wait", "0s"], "inbound");
        assert!(inbound.exited(PROMPT).await.success());
        let host = mesh.replicas[0].sidecar.plan.host;
        until("it drains", async || readiness(host).await == StatusCode::SERVICE_UNAVAILABLE).await;
        assert!(!mesh.replicas[0].sidecar.process.has_ended(), "its own app may still call out");

        let mut whole = drain_command(&mesh.replicas[0].sidecar, &[], "whole");
        until("it is followed", async || whole.log().contains("left")).await;
        assert!(!whole.has_ended(), "a request is under way");
        mesh.replicas[0].app.release();
        assert_eq!(text(request.await.expect("no panic")).0, StatusCode::OK);
        let status = mesh.replicas[0].sidecar.process.exited(PROMPT).await;
        assert!(status.success(), "the sidecar: {status}");
        let status = whole.exited(PROMPT).await;
        assert!(status.success(), "the command: {status}, {}", whole.log());
        assert!(whole.log().ends_with("drained\n"), "{}", whole.log());
    });
}

fn drain_command(sidecar: &Sidecar, more: &[&str], name: &str) -> Process {
    let folder = &sidecar.plan.folder;
    let socket = folder.join("admin.sock").display().to_string();
    let arguments = ["drain", "--admin-socket", &socket].into_iter().chain(more.iter().copied());
    Process::start(name, &program("outrider"), arguments, folder)
}

#[test]
fn a_long_download_survives_the_start_of_drains_on_both_sides() {
    run(async {
        let mut plan = MeshPlan::new(1);
        plan.caller.drain = ("200ms", "15s");
        plan.replicas[0].drain = ("200ms", "15s");
        let mut mesh = plan.start().await;
        let mut session = Session::open(mesh.outbound()).await;
        let mut body = session.send(Method::GET, "/stream").await.expect("an answer").into_body();
        read(&mut body, 10 * PIECE_BYTES).await;
        let hosts = [mesh.caller.plan.host, mesh.replicas[0].sidecar.plan.host];
        mesh.caller.process.terminate();
        mesh.replicas[0].sidecar.process.terminate();
        for host in hosts {
            until("it drains", async || readiness(host).await == StatusCode::SERVICE_UNAVAILABLE).await;
        }
        // Past the idle grace, when idle connections are closed.
        let phase = async |sidecar: &Sidecar| sidecar.ask("/status").await["phase"] == "closing";
        until("the grace is over", async || {
            read(&mut body, PIECE_BYTES).await;
            phase(&mesh.caller).await && phase(&mesh.replicas[0].sidecar).await
        })
        .await;
        read(&mut body, 20 * PIECE_BYTES).await;
        mesh.replicas[0].app.release();
        while let Some(frame) = body.frame().await {
            frame.expect("the rest comes whole");
        }
        for sidecar in [&mut mesh.caller, &mut mesh.replicas[0].sidecar] {
            let status = sidecar.process.exited(PROMPT).await;
            assert!(status.success(), "{}: {status}", sidecar.plan.name);
        }
    });
}

async fn read(body: &mut hyper::body::Incoming, bytes: usize) {
    let mut left = bytes;
    while left > 0 {
        let frame = body.frame().await.expect("the download goes on").expect("unbroken");
        left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
    }
}
