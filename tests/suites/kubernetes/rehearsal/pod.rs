//! A pod on the node: its network, its containers, and how they are.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Output,
    sync::{Arc, Mutex},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{
    cluster::Cluster,
    container::{Container, Role},
    fields::text,
    kubelet,
};
use crate::{intercept::namespace::Host, processes::until};

/// Longest run of a program that a claim has a container run.
const EXEC_LIMIT: Duration = Duration::from_secs(60);

/// How a container is.
#[derive(Clone, Debug, Default)]
pub(super) struct Status {
    /// Somebody keeps it: it was started, and will be again if that is so.
    pub(super) is_kept: bool,
    /// Its first process, while there is one.
    pub(super) pid: Option<i32>,
    pub(super) is_started: bool,
    pub(super) is_ready: bool,
    pub(super) restarts: u32,
    /// Its last exit code.
    pub(super) ended: Option<i32>,
    /// It ended, and is not started again.
    pub(super) is_over: bool,
}

/// How a pod is.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// In the order of the containers.
    pub(super) containers: Vec<Status>,
    /// Nothing is started any more.
    pub(super) is_ending: bool,
}

/// A pod that has an address. It is run by [`kubelet::run`].
pub(super) struct Pod {
    pub(super) cluster: Arc<Cluster>,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    /// Its network.
    pub(super) host: Host,
    /// The object, as it was when it got its address.
    pub(super) object: Value,
    /// Init containers and sidecars in their order, then apps.
    pub(super) containers: Vec<Container>,
    pub(super) state: watch::Sender<State>,
    events: Mutex<Vec<String>>,
}

impl Pod {
    pub(super) fn new(
        cluster: Arc<Cluster>,
        (object, address, host): (Value, Ipv4Addr, Host),
        containers: Vec<Container>,
    ) -> Self {
        let state = State { containers: vec![Status::default(); containers.len()], is_ending: false };
        Self {
            cluster,
            namespace: text(&object, "/metadata/namespace").to_owned(),
            name: text(&object, "/metadata/name").to_owned(),
            address,
            host,
            object,
            containers,
            state: watch::Sender::new(state),
            events: Mutex::default(),
        }
    }

    /// What happened so far: `outrider started`, `app ended 0`.
    pub(super) fn events(&self) -> Vec<String> {
        self.events.lock().unwrap().clone()
    }

    pub(super) fn note(&self, event: String) {
        self.events.lock().unwrap().push(event);
    }

    fn index(&self, container: &str) -> usize {
        let found = self.containers.iter().position(|one| one.name == container);
        found.unwrap_or_else(|| panic!("{} has no container {container}", self.name))
    }

    pub(super) fn status(&self, container: &str) -> Status {
        self.state.borrow().containers[self.index(container)].clone()
    }

    pub(super) fn log(&self, container: &str) -> String {
        self.containers[self.index(container)].log()
    }

    pub(super) fn set(&self, index: usize, change: impl FnOnce(&mut Status)) {
        self.state.send_modify(|state| change(&mut state.containers[index]));
    }

    /// Waits until that is so of its state.
    pub(super) async fn becomes(&self, is_so: impl FnMut(&State) -> bool) {
        let mut state = self.state.subscribe();
        drop(state.wait_for(is_so).await.expect("the pod is there"));
    }

    /// Whether that is so of all containers of this role behind a place.
    pub(super) fn all(
        &self,
        state: &State,
        role: Role,
        after: usize,
        is_so: impl Fn(&Status) -> bool,
    ) -> bool {
        let all = self.containers.iter().zip(&state.containers).enumerate();
        all.filter(|(index, (container, _))| container.role == role && *index >= after)
            .all(|(_, (_, status))| is_so(status))
    }

    /// Waits until the pod is ready, as the API server says.
    pub(super) async fn ready(&self) {
        until(&format!("{} is ready: {:?}", self.name, self.events()), async || self.is_ready()).await;
    }

    pub(super) fn is_ready(&self) -> bool {
        let state = self.state.borrow();
        let is_well = |status: &Status| status.is_ready;
        self.all(&state, Role::App, 0, is_well) && self.all(&state, Role::Sidecar, 0, is_well)
    }

    /// `Pending`, `Running`, `Succeeded` or `Failed`.
    pub(super) fn phase(&self) -> &'static str {
        let state = self.state.borrow();
        let apps = self.containers.iter().zip(&state.containers).filter(|(one, _)| one.role == Role::App);
        let apps: Vec<_> = apps.map(|(_, status)| status).collect();
        if apps.iter().all(|app| app.is_over) {
            return if apps.iter().all(|app| app.ended == Some(0)) { "Succeeded" } else { "Failed" };
        }
        if apps.iter().any(|app| app.is_kept) { "Running" } else { "Pending" }
    }

    /// Its `status`, for the API server.
    pub(super) fn described(&self) -> Value {
        let of = |roles: &[Role]| -> Value {
            let state = self.state.borrow();
            let all = self.containers.iter().zip(&state.containers);
            all.filter(|(one, _)| roles.contains(&one.role))
                .map(|(one, status)| {
                    json!({
                        "name": one.name, "ready": status.is_ready, "started": status.is_started,
                        "restartCount": status.restarts, "image": one.spec["image"],
                    })
                })
                .collect()
        };
        let ready = if self.is_ready() { "True" } else { "False" };
        json!({
            "phase": self.phase(), "podIP": self.address, "podIPs": [{"ip": self.address}],
            "hostIP": super::network::ADDRESS,
            "conditions": [{"type": "Ready", "status": ready}, {"type": "ContainersReady", "status": ready}],
            "initContainerStatuses": of(&[Role::Init, Role::Sidecar]), "containerStatuses": of(&[Role::App]),
        })
    }

    /// Runs a program in a container.
    pub(super) async fn exec(&self, container: &str, command: &[&str]) -> Output {
        let command: Vec<_> = command.iter().map(|&word| word.to_owned()).collect();
        let pid = self.status(container).pid.expect("it runs");
        let ran = self.containers[self.index(container)].exec(pid, &command, EXEC_LIMIT).await;
        ran.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    /// What a program in a container wrote that ended well.
    pub(super) async fn text(&self, container: &str, command: &[&str]) -> String {
        let output = self.exec(container, command).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}: {command:?}: {}\n{text}{errors}", self.name, output.status);
        text
    }

    pub(super) fn signal(&self, container: &str, signal: Signal) {
        let pid = self.status(container).pid.and_then(Pid::from_raw).expect("it runs");
        kill_process(pid, signal).expect("it is ours");
    }

    pub(super) fn at(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }

    /// Deletes it, as `kubectl delete pod` does, and waits until nothing is left of it.
    pub(super) async fn delete(&self) {
        self.cluster.change(self, |object| {
            object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        });
        kubelet::end(self).await;
        self.cluster.remove(self);
    }
}
