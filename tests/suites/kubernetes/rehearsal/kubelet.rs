//! A pod's life, as the kubelet leads it: containers one after the other, started anew when they die, ended in order.
//!
//! Order of ending (KEP-753, `kuberuntime/kuberuntime_termination_order.go`): every `preStop` at once, then SIGTERM to the
//! apps, then to sidecars from the last to the first, each when those before it have ended or the time is over.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures_util::future::join_all;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    container::Role,
    fields::{list, number, text},
    pod::Pod,
    probes,
    volumes::{fill, fill_api_token},
};

/// Rest before a container is started a third time; a real kubelet takes ten seconds.
const BACKOFF: Duration = Duration::from_secs(1);
/// Time for an end after SIGTERM, whatever the `preStop` took (`minimumGracePeriodInSeconds`).
const LEAST_GRACE: Duration = Duration::from_secs(2);
/// `terminationGracePeriodSeconds` of who says nothing.
const GRACE: u32 = 30;

/// Runs a pod to its end, and tells the API server how it is.
pub(super) fn run(pod: &Arc<Pod>) {
    tokio::spawn(publish(Arc::clone(pod)));
    tokio::spawn(live(Arc::clone(pod)));
}

async fn publish(pod: Arc<Pod>) {
    let mut state = pod.state.subscribe();
    loop {
        state.mark_unchanged();
        pod.cluster.change(&pod, |object| object["status"] = pod.described());
        if state.changed().await.is_err() {
            return;
        }
    }
}

async fn live(pod: Arc<Pod>) {
    let volumes = pod.cluster.folder(&pod.name).join("volumes");
    fill_api_token(&volumes.join("api-token"), &pod.object, &pod.cluster.api);
    for volume in list(&pod.object, "/spec/volumes") {
        fill(&volumes.join(text(volume, "/name")), volume, &pod.object, &pod.cluster.api).await;
    }
    for (index, container) in pod.containers.iter().enumerate() {
        let begun = pod.state.send_if_modified(|state| {
            let is_begun = !state.is_ending;
            state.containers[index].is_kept = is_begun;
            is_begun
        });
        if !begun {
            return;
        }
        tokio::spawn(keep(Arc::clone(&pod), index));
        match container.role {
            Role::Init => pod.becomes(|state| state.containers[index].is_over).await,
            Role::Sidecar => pod.becomes(|state| state.is_ending || state.containers[index].is_started).await,
            Role::App => {}
        }
    }
    pod.becomes(|state| pod.all(state, Role::App, 0, |app| app.is_over)).await;
    // A Job's pod: its sidecars have nothing to do any more.
    if !pod.state.borrow().is_ending {
        end(&pod).await;
    }
}

/// Starts a container, and again when it ended, if that is its pod's policy.
async fn keep(pod: Arc<Pod>, index: usize) {
    let container = &pod.containers[index];
    for attempt in 0.. {
        if attempt > 1 {
            tokio::time::sleep(BACKOFF).await;
        }
        let mut running = container.start(attempt).await;
        pod.note(format!("{} started", container.name));
        pod.set(index, |status| status.pid = Some(running.pid));
        let code = tokio::select! {
            code = running.ended() => code,
            never = probes::watch(&pod, index) => match never {},
        };
        pod.note(format!("{} ended {code}", container.name));
        let mut is_over = false;
        pod.state.send_modify(|state| {
            is_over = state.is_ending || !is_restarted(&pod, container.role, code);
            let status = &mut state.containers[index];
            (status.pid, status.is_started, status.is_ready) = (None, false, false);
            (status.ended, status.is_over) = (Some(code), is_over);
            status.restarts += u32::from(!is_over);
        });
        if is_over {
            return;
        }
    }
}

fn is_restarted(pod: &Pod, role: Role, code: i32) -> bool {
    let policy = text(&pod.object, "/spec/restartPolicy");
    match role {
        Role::Sidecar => true,
        Role::Init => code != 0 && policy != "Never",
        Role::App => policy == "Always" || policy == "OnFailure" && code != 0,
    }
}

/// Ends all containers.
pub(super) async fn end(pod: &Pod) {
    pod.state.send_modify(|state| state.is_ending = true);
    let grace = number(&pod.object, "/spec/terminationGracePeriodSeconds").unwrap_or(GRACE);
    let deadline = Instant::now() + Duration::from_secs(grace.into());
    join_all((0..pod.containers.len()).map(|index| stop(pod, index, deadline))).await;
}

async fn stop(pod: &Pod, index: usize, deadline: Instant) {
    let container = &pod.containers[index];
    if !pod.state.borrow().containers[index].is_kept {
        return;
    }
    pod.becomes(|state| state.containers[index].pid.is_some() || state.containers[index].is_over).await;
    let Some(pid) = pod.state.borrow().containers[index].pid else { return };
    let hook = list(&container.spec, "/lifecycle/preStop/exec/command");
    if !hook.is_empty() {
        let command: Vec<_> = hook.iter().map(|word| word.as_str().expect("a word").to_owned()).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match container.exec(pid, &command, left).await {
            Ok(output) => {
                output.status.code().map_or_else(|| output.status.to_string(), |code| code.to_string())
            }
            Err(error) => error,
        };
        pod.note(format!("{} preStop {outcome}", container.name));
    }
    if container.role == Role::Sidecar {
        let is_alone = pod.becomes(|state| {
            let is_over = |status: &super::pod::Status| !status.is_kept || status.is_over;
            pod.all(state, Role::App, 0, is_over) && pod.all(state, Role::Sidecar, index + 1, is_over)
        });
        // Late, it is its turn all the same.
        drop(timeout_at(deadline, is_alone).await);
    }
    pod.note(format!("{} told to end", container.name));
    terminate(pod, index, deadline.max(Instant::now() + LEAST_GRACE)).await;
}

/// SIGTERM, and at the deadline SIGKILL; until it is over, or somebody else ends it.
async fn terminate(pod: &Pod, index: usize, deadline: Instant) {
    let was = pod.state.borrow().containers[index].pid;
    for signal in [Signal::TERM, Signal::KILL] {
        let Some(pid) = was.and_then(Pid::from_raw) else { return };
        // It may have ended meanwhile.
        let _gone = kill_process(pid, signal);
        let is_gone = pod.becomes(|state| state.containers[index].pid != was);
        if timeout_at(deadline, is_gone).await.is_ok() {
            return;
        }
        pod.note(format!("{} did not end in time", pod.containers[index].name));
    }
    pod.becomes(|state| state.containers[index].pid != was).await;
}

/// Ends a container that is not well; it is started anew.
pub(super) async fn give_up(pod: &Pod, index: usize, probe: &str) -> Infallible {
    pod.note(format!("{} failed its {probe}", pod.containers[index].name));
    let grace: &Value = &pod.object["spec"]["terminationGracePeriodSeconds"];
    let grace = grace.as_u64().unwrap_or(GRACE.into());
    terminate(pod, index, Instant::now() + Duration::from_secs(grace)).await;
    std::future::pending().await
}
