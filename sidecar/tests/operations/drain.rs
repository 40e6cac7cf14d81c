//! `outrider drain` against a process that drains.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Arc, atomic::Ordering},
};

use outrider::admin::{self, DrainRequest, State};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::process::state;

/// Runs the program beside the server.
fn drain(socket: &Path, arguments: &[&str]) -> JoinHandle<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command.arg("drain").arg("--admin-socket").arg(socket).args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap())
}

/// Waits for the request that the program sends.
async fn requested(state: &Arc<State>) -> DrainRequest {
    let mut requests = state.drain_requests.subscribe();
    let request = requests.wait_for(Option::is_some).await.unwrap();
    request.unwrap()
}

fn text(output: &Output) -> (Option<i32>, String) {
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), out + &String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn an_inbound_drain_ends_with_the_last_inbound_connection() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let state = state(None);
    let bound = admin::bind_socket(&socket).unwrap();
    tokio::spawn(admin::serve_socket(bound, Arc::clone(&state), std::future::pending()));
    let output = drain(&socket, &["--inbound", "--wait", "20s"]);
    assert_eq!(requested(&state).await, DrainRequest { inbound_only: true });
    state.snapshots.load().config.listeners["api"].runtime.active.store(0, Ordering::Relaxed);
    let (code, out) = text(&output.await.unwrap());
    assert_eq!(code, Some(0), "{out}");
    assert!(out.contains("draining: 2 left\n") || out.contains("draining: 0 left\n"), "{out}");
    assert!(out.ends_with("drained\n"), "{out}");
}

#[tokio::test]
async fn a_whole_drain_ends_with_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let state = state(None);
    let bound = admin::bind_socket(&socket).unwrap();
    let (end, ended) = oneshot::channel::<()>();
    tokio::spawn(admin::serve_socket(bound, Arc::clone(&state), async move { ended.await.unwrap() }));
    let output = drain(&socket, &["--wait", "20s"]);
    assert_eq!(requested(&state).await, DrainRequest { inbound_only: false });
    end.send(()).unwrap();
    let (code, out) = text(&output.await.unwrap());
    assert_eq!(code, Some(0), "{out}");
    assert!(out.ends_with("drained\n"), "{out}");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let bound = admin::bind_socket(&socket).unwrap();
    tokio::spawn(admin::serve_socket(bound, state(None), std::future::pending()));
    let (code, out) = text(&drain(&socket, &["--inbound", "--wait", "500ms"]).await.unwrap());
    assert_eq!(code, Some(1), "{out}");
    assert!(out.contains("still draining after 500ms"), "{out}");
}
