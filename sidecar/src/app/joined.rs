//! What the controller says comes into force beside what the file says: by the same path as a reload, one at a time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::{App, Rejected, WORKLOAD};
use crate::{
    config::Joiner,
    drain::{self, Phase},
    model::{
        Settings,
        controller::{self, ControllerStatus, Fragments},
    },
    readiness::BlockReady,
};

/// Both halves of the configuration.
#[derive(Debug)]
pub(super) struct Halves {
    /// What the file says, as it came into force last.
    file: Mutex<Arc<Settings>>,
    /// What the controller says.
    fragments: watch::Receiver<Arc<Fragments>>,
    joiner: Mutex<Joiner>,
    status: Arc<ControllerStatus>,
}

impl Halves {
    pub(super) fn new(
        file: Arc<Settings>,
        fragments: watch::Receiver<Arc<Fragments>>,
        status: Arc<ControllerStatus>,
    ) -> Self {
        Self { file: Mutex::new(file), fragments, joiner: Mutex::default(), status }
    }

    /// What the file says.
    pub(super) fn file(&self) -> Arc<Settings> {
        Arc::clone(&self.file.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the file says is in force.
    pub(super) fn set_file(&self, file: Arc<Settings>) {
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file;
    }

    /// Both together, the controller's as it is now. What cannot be had of it is told.
    pub(super) fn join(&self, file: &Settings) -> Settings {
        let fragments = Arc::clone(&self.fragments.borrow());
        let joined = self.joiner.lock().unwrap_or_else(PoisonError::into_inner).join(file, &fragments);
        self.tell(&joined.rejected);
        joined.settings
    }

    /// Says what is new of what is left out.
    fn tell(&self, rejected: &[controller::Rejected]) {
        let before = self.status.rejected();
        for new in rejected.iter().filter(|new| !before.contains(new)) {
            let controller::Rejected { service, faults, is_conflict } = new;
            for fault in faults {
                if *is_conflict {
                    tracing::warn!(%service, %fault, "what the controller says of a service is left out");
                } else {
                    tracing::warn!(%service, %fault, "what the controller says cannot be used; of a service the last good stays");
                }
            }
        }
        if *before != *rejected {
            self.status.set_rejected(rejected.into());
        }
    }
}

impl App {
    /// Has every change of what the controller says come into force, for as long as the sidecar serves its app. In a pod it
    /// is not ready before that holds for the first word on who may call: until then nobody may.
    pub(super) fn follow_controller(&self, is_in_pod: bool) {
        let mut guard = is_in_pod.then(|| self.readiness.block(WORKLOAD));
        let (app, mut fragments) = (self.clone(), self.halves.fragments.clone());
        drain::spawn_background(async move {
            let mut watcher = app.drains.outbound.watcher();
            loop {
                tokio::select! {
                    biased;
                    () = watcher.reached(Phase::Draining) => return,
                    changed = fragments.changed() => {
                        if changed.is_err() {
                            return;
                        }
                    }
                }
                let has_workload = fragments.borrow_and_update().inbound.is_some();
                match app.bring_into_force(None).await {
                    Ok(_addresses) => {
                        tracing::debug!(
                            generation = app.generation(),
                            "services of the controller are in force"
                        );
                        guard.take_if(|_| has_workload).into_iter().for_each(BlockReady::release);
                    }
                    Err(Rejected::Draining) => return,
                    Err(error) => tracing::error!(%error, "what the controller says cannot come into force"),
                }
            }
        });
    }
}
