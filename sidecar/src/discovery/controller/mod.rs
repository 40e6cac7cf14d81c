//! What the app uses and the file does not name, as `outrider-controller` tells it.
//!
//! ```text
//!   Wanted ──▶ state ◀──messages──▶ session ═══ mutual TLS ═══▶ controller
//!                │ ├──▶ Told ──Feed──▶ Lists ──▶ publish       endpoints: often, without a reload
//!                │ ├──▶ Fragments ──▶ app: joined with the file, a reload     settings: rarely
//!                │ └──▶ Outside ──▶ publish                    what is of no service
//!                ╰── looks now and then what is used, and forgets the rest
//! ```
//! # Invariants
//! - One stream at a time, to whoever proves to be the configured controller; the next is tried with growing, jittered pauses.
//! - What was said stays, however long nobody can be asked; its age is told with each cluster.
//! - The address is looked up anew for each stream.

pub mod api;
mod lists;
mod session;
mod state;

use std::{
    fs,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::watch;

pub use self::lists::{Told, WithController};
use self::{
    api::outrider_discovery_v1::WatchResponse,
    session::Renew,
    state::{Changes, State, Usage},
};
use crate::{
    clock::Clock,
    drain,
    model::{
        ClusterName, Snapshot,
        controller::{ControllerSettings, ControllerStatus, Fragments},
        snapshot::Snapshots,
        wanted::{Outside, Wanted},
    },
    net::Net,
    readiness::BlockReady,
};

/// First pause after a failure; it doubles.
const BACKOFF_BASE: Duration = Duration::from_millis(200);
/// Longest pause. A controller that comes back is asked by all sidecars within this time.
const BACKOFF_MAX: Duration = Duration::from_secs(15);
/// While something is wanted that nobody knows, no pause is longer.
const BACKOFF_WANTED: Duration = Duration::from_secs(1);
/// Between two looks at what is used: that often, or a tenth of the time that something may be idle, if that is shorter.
const MAX_LOOK: Duration = Duration::from_secs(60);
/// Where a process reads what its host is called: in a pod, the pod's name.
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// What is needed to ask the controller.
#[derive(Debug)]
pub struct Inputs<N> {
    /// Where, and how.
    pub settings: Arc<ControllerSettings>,
    /// How it is reached.
    pub net: N,
    /// Time, and jitter.
    pub clock: Clock,
    /// As whom we ask, and what is used.
    pub snapshots: Snapshots,
    /// What is wanted.
    pub wanted: Arc<Wanted>,
    /// Where endpoints go.
    pub told: Told,
    /// Where settings of services go.
    pub fragments: watch::Sender<Arc<Fragments>>,
    /// Where it goes what leads outside.
    pub outside: watch::Sender<Arc<Outside>>,
    /// How it goes.
    pub status: Arc<ControllerStatus>,
    /// Released with the first word of the controller.
    pub guard: BlockReady,
}

/// Starts asking, on the runtime of the caller.
pub fn start<N: Net>(inputs: Inputs<N>) {
    let Inputs { settings, net, clock, snapshots, wanted, told, fragments, outside, status, guard } = inputs;
    let state = State::new(settings.max_wanted, settings.idle);
    let look = (settings.idle / 10).min(MAX_LOOK);
    let (next_look, rng) = (clock.now() + look, clock.fork_rng());
    let keeper = Keeper {
        settings,
        net,
        clock,
        snapshots,
        wanted,
        told,
        fragments,
        outside,
        status,
        guard: Some(guard),
        state,
        look,
        next_look,
        rng,
    };
    drain::spawn_background(keeper.keep());
}

/// Who asks.
struct Keeper<N> {
    settings: Arc<ControllerSettings>,
    net: N,
    clock: Clock,
    snapshots: Snapshots,
    wanted: Arc<Wanted>,
    told: Told,
    fragments: watch::Sender<Arc<Fragments>>,
    outside: watch::Sender<Arc<Outside>>,
    status: Arc<ControllerStatus>,
    guard: Option<BlockReady>,
    state: State,
    /// Between two looks at what is used.
    look: Duration,
    next_look: Instant,
    rng: fastrand::Rng,
}

impl<N: Net> Keeper<N> {
    async fn keep(mut self) {
        let mut failures = 0_u32;
        loop {
            self.snapshots.until(|snapshot| snapshot.identity.is_some()).await;
            let ended = Box::pin(session::talk(&mut self)).await;
            self.state.end();
            if self.status.is_connected.load(Ordering::Relaxed) {
                failures = 0;
            }
            match ended {
                Ok(Renew) => self.status.end(None),
                Err(error) => {
                    let error = error.to_string();
                    self.tell(&error, failures == 0);
                    failures = failures.saturating_add(1);
                    self.told.fail(&error);
                    self.status.end(Some(error));
                    self.pause(failures).await;
                }
            }
        }
    }

    /// The first failure of several is worth a word.
    fn tell(&self, error: &str, is_first: bool) {
        let address = &self.settings.address;
        if is_first {
            tracing::warn!(%address, error, "the controller cannot be asked; what is known stays");
        } else {
            tracing::debug!(%address, error, "the controller still cannot be asked");
        }
    }

    /// Rests, less long while somebody waits.
    async fn pause(&mut self, failures: u32) {
        let pause = backoff(failures, &mut self.rng);
        let begun = self.clock.now();
        tokio::select! {
            biased;
            () = tokio::time::sleep(pause) => {}
            () = self.wanted.arrived() => {
                self.take_wishes();
                let shorter = pause.min(BACKOFF_WANTED.mul_f64(0.5 + self.rng.f64() / 2.0));
                tokio::time::sleep_until((begun + shorter).into()).await;
            }
        }
    }

    /// The pod that this is.
    fn pod(&self) -> String {
        let host = || fs::read_to_string(HOST_NAME).unwrap_or_default().trim().to_owned();
        self.settings.pod.clone().unwrap_or_else(host)
    }

    /// Takes up what the data side wants.
    fn take_wishes(&mut self) {
        let now = self.clock.now();
        for key in self.wanted.take() {
            self.status.wants.fetch_add(1, Ordering::Relaxed);
            let changes = self.state.want(&key, now);
            self.carry_out(&changes);
        }
    }

    fn hear(&mut self, message: WatchResponse) -> Result<(), state::Fault> {
        let now = self.clock.now();
        let changes = self.state.hear(message, now)?;
        if self.status.hear(now) {
            tracing::info!(address = %self.settings.address, "the controller answers");
        }
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
        if changes == Changes::default() {
            // A heartbeat, or nothing new: what was said on this stream stands.
            self.state.fresh().iter().for_each(|service| self.told.confirm(service));
        }
        self.carry_out(&changes);
        Ok(())
    }

    /// Looks what is used.
    fn look(&mut self) {
        let now = self.clock.now();
        self.next_look = now + self.look;
        let snapshot = self.snapshots.load();
        let rejected = self.status.rejected();
        let usage = |service: &str| {
            let is_rejected = rejected.iter().any(|rejected| *rejected.service == *service);
            Usage { is_rejected, ..usage(&snapshot, service) }
        };
        let changes = self.state.look(usage, now);
        let forgotten = u64::try_from(changes.settled.len()).unwrap_or(u64::MAX);
        self.status.forgotten.fetch_add(forgotten, Ordering::Relaxed);
        self.carry_out(&changes);
    }

    fn carry_out(&self, changes: &Changes) {
        let Changes { fragments, outside, list, settled, gone, confirmed } = changes;
        if let Some((service, (revision, endpoints))) =
            list.as_ref().and_then(|service| Some((service, self.state.list(service)?)))
        {
            self.told.set(service, revision, endpoints);
        }
        if let Some(service) = confirmed {
            self.told.confirm(service);
        }
        gone.iter().for_each(|service| self.told.remove(service));
        if *fragments {
            self.fragments.send_replace(Arc::new(self.state.fragments()));
        }
        if *outside {
            self.outside.send_replace(Arc::new(self.state.outside()));
        }
        settled.iter().for_each(|key| self.wanted.settle(key));
        let wanted = u64::try_from(self.state.wanted()).unwrap_or(u64::MAX);
        self.status.wanted.store(wanted, Ordering::Relaxed);
    }
}

/// How much a service is used, as its cluster has counted.
fn usage(snapshot: &Snapshot, service: &str) -> Usage {
    let Some(cluster) = snapshot.cluster(&ClusterName::new(service)) else { return Usage::default() };
    let (runtime, counts) = (&cluster.runtime, &cluster.runtime.counts);
    let is_busy =
        [&runtime.in_flight, &runtime.connections].map(|count| count.load(Ordering::Relaxed)) != [0, 0];
    let ended = counts.by_class.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    Usage { is_busy, ended, is_rejected: false }
}

/// The pause after that many failures in a row: half of it is chance, so that sidecars do not come all at once.
fn backoff(failures: u32, rng: &mut fastrand::Rng) -> Duration {
    let doubled = BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(BACKOFF_MAX).mul_f64(0.5 + rng.f64() / 2.0)
}

#[cfg(test)]
mod tests;
