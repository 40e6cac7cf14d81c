//! `stat` and `top`, and what commands say where they cannot be answered.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use http::StatusCode;
use hyper::Method;
use rustix::{
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::process::Command;

use super::{Asked, PLAIN, orders, said};
use crate::{
    harness::{Client, HttpApp, TestMesh, client::call},
    processes::{process::program, until},
};

#[tokio::test]
async fn stat_tells_who_calls_whom_how_often_and_how_well() {
    let mesh = TestMesh::new();
    let (sidecar, _app) = orders(&mesh).await;
    let routes = "routes: [{name: reads, path_prefix: /items}]";
    let web = Asked::web(&mesh, &[sidecar.address()], &format!("{PLAIN}, {routes}")).await;
    let mut client = Client::http1(web.address).await;
    for path in ["/items/1", "/items/2", "/items/3", "/other"] {
        assert_eq!(client.get(path).await.unwrap().status(), StatusCode::OK);
    }
    until("all are counted", async || web.edges().await.len() == 2).await;
    let edges = web.edges().await;
    let reads = &edges[0];
    assert_eq!((&reads["source"], &reads["destination"]), (&"web".into(), &"orders".into()), "{edges:?}");
    assert_eq!((&reads["direction"], &reads["route"]), (&"outbound".into(), &"reads".into()));
    assert_eq!((&reads["requests"], &reads["success"]), (&3.into(), &1.0.into()));
    assert_eq!(reads["by_status"], serde_json::json!({ "2xx": 3 }));
    let quantiles = ["p50_ms", "p90_ms", "p99_ms"].map(|name| reads[name].as_f64().unwrap());
    assert!(quantiles.is_sorted() && quantiles[0] > 0.0, "{quantiles:?}");
    assert_eq!((&edges[1]["route"], &edges[1]["requests"]), (&"".into(), &1.into()));

    let (_, body) = web.get("/edges").await;
    let cluster = &body["clusters"][0];
    assert_eq!((&cluster["name"], &cluster["endpoints"]["usable"]), (&"orders".into(), &1.into()), "{body}");
    let table = web.says(&["stat", "--window", "15m"]).await;
    assert!(
        table.is_good && table.out.contains("orders reads") && table.out.contains("100.00"),
        "{}",
        table.out
    );
    assert!(table.out.lines().all(|line| line.len() <= 80) && !table.out.contains('\u{1b}'), "{}", table.out);
    let json = web.says(&["stat", "--window", "15m", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(json["edges"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn failures_count_against_success_and_ejected_endpoints_are_told() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    assert_eq!(call(web.address, Method::GET).await.0, StatusCode::SERVICE_UNAVAILABLE);
    until("it is counted", async || !web.edges().await.is_empty()).await;
    let edges = web.edges().await;
    assert_eq!((&edges[0]["failed"], &edges[0]["success"]), (&1.into(), &0.0.into()));
    assert_eq!(edges[0]["by_flag"], serde_json::json!({ "UH": 1 }));
    let top = web.says(&["top", "--sort", "success"]).await;
    assert!(top.is_good && top.out.contains("0/0") && top.out.contains(" 0.00"), "one table: {}", top.out);
    assert!(!top.out.contains('\u{1b}'), "and no more than that where there is no terminal");
}

/// A terminal of 100 columns: where a program writes to it, and what it shows so far.
fn terminal() -> (File, Arc<Mutex<Vec<u8>>>) {
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let far = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&far, size).unwrap();
    let shown: Arc<Mutex<Vec<u8>>> = Arc::default();
    let (mut near, seen) = (File::from(near), Arc::clone(&shown));
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        // It fails when nobody writes any more.
        while let Ok(length @ 1..) = near.read(&mut chunk) {
            seen.lock().unwrap().extend_from_slice(&chunk[..length]);
        }
    });
    (File::from(far), shown)
}

#[tokio::test]
async fn top_draws_again_and_again_and_leaves_the_terminal_as_it_was() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    let (far, shown) = terminal();
    let text = || String::from_utf8_lossy(&shown.lock().unwrap()).into_owned();
    let mut command = web.command(&["top"]);
    command.stdout(far);
    let mut top = command.spawn().unwrap();
    drop(command);
    call(web.address, Method::GET).await;
    until("it shows the failure", async || text().contains("0.00") && text().matches("\x1b[H").count() > 2)
        .await;
    let pid = Pid::from_raw(top.id().unwrap().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    assert!(crate::harness::soon("it ends", top.wait()).await.unwrap().success());
    // What it wrote last may be read after its end.
    until("the terminal is as it was", async || text().ends_with("\x1b[?25h\x1b[?1049l")).await;
    let text = text();
    assert!(text.starts_with("\x1b[?1049h\x1b[?25l"), "{text:?}");
    let lines = text.split("\r\n").map(|line| line.split("\x1b").next().unwrap_or_default());
    assert!(lines.clone().all(|line| line.chars().count() <= 100), "{text}");
    assert!(lines.clone().any(|line| line.contains("P90")), "and it uses the width that is there");
}

#[tokio::test]
async fn a_window_beyond_what_is_kept_is_refused_with_the_bound() {
    let mesh = TestMesh::new();
    let web = Asked::web(&mesh, &[], PLAIN).await;
    for target in ["/edges?seconds=0", "/edges?seconds=901", "/edges?seconds=x", "/edges?other=1"] {
        assert_eq!(web.get(target).await.0, 400, "{target}");
    }
    let said = web.says(&["stat", "--window", "1h"]).await;
    assert!(!said.is_good && said.err.contains("15 minutes"), "{}", said.err);
}

#[tokio::test]
async fn where_nobody_answers_the_remedy_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ask = async |path: &std::path::Path, command: &str| {
        let mut asked = Command::new(program("outrider"));
        asked.arg(command).arg("--admin-socket").arg(path);
        said(asked).await
    };
    let path = folder.path().join("admin.sock");
    for command in ["top", "stat", "tap", "explain"] {
        let missing = ask(&path, command).await;
        assert!(!missing.is_good && missing.err.contains("is the sidecar running"), "{}", missing.err);
    }
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let dead = ask(&path, "stat").await;
    assert!(!dead.is_good && dead.err.contains("has ended"), "{}", dead.err);
    if !rustix::process::geteuid().is_root() {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
        let forbidden = ask(&path, "stat").await;
        assert!(!forbidden.is_good && forbidden.err.contains("no permission"), "{}", forbidden.err);
    }
}

#[tokio::test]
async fn what_the_sidecar_is_called_by_others_is_told_by_their_identity() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("orders").await;
    let address = crate::processes::mesh::Network::new().host(1).inbound();
    let yaml = format!("inbound: [{{name: in, listen: '{address}', app: '{}'}}]", app.address());
    let orders = Asked::start(&mesh, "orders", address, &yaml).await;
    let web = mesh.caller(&[address], PLAIN).await;
    assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    until("it is counted", async || !orders.edges().await.is_empty()).await;
    let edges = orders.edges().await;
    assert_eq!(edges[0]["source"], crate::harness::ca::id("web").to_string());
    assert_eq!((&edges[0]["direction"], &edges[0]["destination"]), (&"inbound".into(), &"inbound/in".into()));
}
