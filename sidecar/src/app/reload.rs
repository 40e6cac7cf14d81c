//! Another configuration comes into force while the sidecar runs: as a whole, or not at all.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use outrider_certs::TrustDomain;

use super::{Addresses, App, Error};
use crate::{
    config::{self, Fault},
    drain::Phase,
    model::{Generation, Settings, Snapshot},
};

/// Far longer than it takes until a trust domain that was taken out is trusted no longer: some milliseconds.
const FORGETTING: Duration = Duration::from_secs(5);

/// Why a configuration that is sound did not come into force. Nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It changes what is fixed for the life of the process.
    #[error("{} key(s) cannot change while the sidecar runs", .0.len())]
    Fixed(Vec<Fault>),
    /// The sidecar is stopping.
    #[error("the sidecar is draining; it ends with the configuration that it has")]
    Draining,
    /// One of its new listeners cannot listen, or the process is falling apart.
    #[error(transparent)]
    Listen(#[from] Error),
}

impl Rejected {
    /// The same in the form in which `outrider check` says what is wrong.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        let fault = |path: String, problem: String, remedy: &str| {
            vec![Fault { path, line: None, problem, remedy: remedy.to_owned() }]
        };
        match self {
            Self::Fixed(faults) => faults.clone(),
            Self::Draining => fault(String::new(), self.to_string(), "start another process with it"),
            Self::Listen(Error::Bind { listener, address, source }) => fault(
                format!("listener {listener}"),
                format!("cannot listen on {address}: {source}"),
                "free the address or choose another, then reload again",
            ),
            Self::Listen(error) => fault(String::new(), error.to_string(), "start the sidecar again"),
        }
    }
}

impl App {
    /// Brings another configuration file into force, in one swap; returns where its listeners listen, once they do. What is
    /// in flight goes on as it began, and what the controller says stays. One at a time: another call waits.
    ///
    /// # Errors
    /// [`Rejected`]; nothing has changed then.
    pub async fn reload(&self, settings: Settings) -> Result<Addresses, Rejected> {
        let faults = config::fixed_faults(&self.settings(), &settings);
        if !faults.is_empty() {
            return Err(Rejected::Fixed(faults));
        }
        self.bring_into_force(Some(Arc::new(settings))).await
    }

    /// Brings into force what the file says, `None`: as before, with what the controller says now.
    pub(super) async fn bring_into_force(&self, file: Option<Arc<Settings>>) -> Result<Addresses, Rejected> {
        let mut listening = self.listening.lock().await;
        // Draining inbound alone, the sidecar still serves its app.
        if self.drains.outbound.phase() > Phase::Running {
            return Err(Rejected::Draining);
        }
        let before = Arc::clone(&self.config.borrow());
        let (file, next) = match file {
            Some(file) => {
                let next = before.next(Arc::new(self.halves.join(&file)));
                (file, next)
            }
            None => {
                let file = self.halves.file();
                let next = before.next_of_same_file(Arc::new(self.halves.join(&file)));
                (file, next)
            }
        };
        let next = Arc::new(next);
        let bound = if listening.is_serving() { listening.bind(&next).await? } else { Vec::new() };
        listening.end_lives(self, &next);
        self.publish(&next).await;
        self.forget(&before.settings, &next.settings).await;
        if listening.is_serving() {
            listening.serve(self, &next, bound).await;
        }
        self.halves.set_file(file);
        Ok(listening.addresses(&next))
    }

    /// Returns when no trust domain that was taken out is trusted any more; live connections of its workloads are closed by
    /// each worker within a second.
    async fn forget(&self, before: &Settings, after: &Settings) {
        let is_listed =
            |name: &TrustDomain| after.federation.iter().any(|domain| domain.trust_domain == *name);
        let domains = before.federation.iter().map(|domain| &domain.trust_domain);
        let gone: Vec<_> = domains.filter(|domain| !is_listed(domain)).collect();
        let is_forgotten = |snapshot: &Snapshot| {
            let identity = snapshot.identity.as_ref();
            identity.is_none_or(|identity| gone.iter().all(|domain| identity.bundles.get(domain).is_none()))
        };
        let forgotten = self.snapshots.until(is_forgotten);
        if tokio::time::timeout(FORGETTING, forgotten).await.is_err() {
            tracing::error!("trust domains that were taken out of the configuration are still trusted");
        }
    }

    /// The swap; returns when every request that begins goes by it.
    async fn publish(&self, next: &Arc<Generation>) {
        self.config.send_replace(Arc::clone(next));
        self.snapshots.until(|snapshot| snapshot.config.number >= next.number).await;
        self.max_connections.store(next.settings.limits.max_connections, Ordering::Relaxed);
    }
}
