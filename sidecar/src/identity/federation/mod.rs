//! Bundles of other trust domains (SPIFFE Federation): fetched, kept over restarts, never mixed.
//!
//! ```text
//!   configuration ──which domains──▶ here ──one task each──▶ domain ──its bundle──▶ here ──all──▶ identity
//!                                                              ▲ file, endpoint, what was kept
//! ```
//! A bundle belongs to the trust domain that the *configuration* gives it; what judges IDs is chosen by the ID's domain
//! alone (`outrider_certs::verify`). So no endpoint, whatever it publishes, can vouch for another domain's workloads.
//!
//! # Invariants
//! - The last good bundle of a domain stays until its source gives another, or the domain is taken out of the
//!   configuration; then nothing of it is left, on disk neither.
//! - One look at an endpoint at a time and domain, each with a deadline; nothing here is waited for by readiness.

mod domain;
pub mod fetch;
mod kept;
pub mod update;

use std::sync::Arc;

use outrider_certs::{
    spiffe_id::TrustDomain,
    trust_bundle::{TrustBundle, TrustBundles},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::{
    domain::{Domain, Slot},
    kept::Folder,
};
use super::tls_configs::TlsBase;
use crate::{
    clock::Clock,
    drain,
    model::{Generation, Identity, federation::FederatedDomain, status::IdentityStatus},
    net::Net,
};

/// What is needed to look after other trust domains.
#[derive(Debug)]
pub(super) struct Inputs<N> {
    pub(super) config: watch::Receiver<Arc<Generation>>,
    /// Our own, for endpoints that a server of our trust domain serves.
    pub(super) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(super) status: Arc<IdentityStatus>,
    pub(super) net: N,
    pub(super) tls: TlsBase,
    pub(super) clock: Clock,
}

/// What the tasks of all domains share.
#[derive(Debug)]
struct Shared<N> {
    net: N,
    tls: TlsBase,
    clock: Clock,
    folder: Folder,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    /// Every federated domain's.
    bundles: watch::Sender<Arc<TrustBundles>>,
    /// Some domain has another bundle.
    changed: Notify,
}

impl<N> Shared<N> {
    /// The newest bundle of another domain than the one that asks, be it ours.
    fn bundle_of(&self, trust_domain: &TrustDomain) -> Option<TrustBundle> {
        if let Some(found) = self.bundles.borrow().get(trust_domain) {
            return Some(found.clone());
        }
        self.identity.borrow().as_ref()?.bundles.get(trust_domain).cloned()
    }
}

/// Starts looking after the domains that the configuration lists, now and later. What was kept and what files hold is
/// there when it returns.
pub(super) fn start<N: Net>(inputs: Inputs<N>) -> watch::Receiver<Arc<TrustBundles>> {
    let Inputs { config, identity, status, net, tls, clock } = inputs;
    let folder = Folder::of(&config.borrow().settings.bootstrap.state_dir);
    let bundles = watch::Sender::new(Arc::default());
    let receiver = bundles.subscribe();
    let shared = Arc::new(Shared { net, tls, clock, folder, identity, bundles, changed: Notify::new() });
    let mut keeper = Federation { config, status, shared, members: Vec::new() };
    keeper.reconcile();
    keeper.publish();
    drain::spawn_background(keeper.run());
    receiver
}

struct Federation<N> {
    config: watch::Receiver<Arc<Generation>>,
    status: Arc<IdentityStatus>,
    shared: Arc<Shared<N>>,
    members: Vec<Member>,
}

/// A listed domain with its task, which ends with it.
struct Member {
    settings: FederatedDomain,
    slot: Arc<Slot>,
    _task: DropGuard,
}

impl<N: Net> Federation<N> {
    async fn run(mut self) {
        loop {
            tokio::select! {
                biased;
                changed = self.config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.reconcile();
                }
                () = self.shared.changed.notified() => {}
            }
            self.publish();
        }
    }

    /// Starts and ends tasks, so that there is one for every listed domain.
    fn reconcile(&mut self) {
        let wanted = Arc::clone(&self.config.borrow_and_update().settings.federation);
        let is_listed = |name: &str| wanted.iter().any(|domain| domain.trust_domain.as_str() == name);
        let mut before = std::mem::take(&mut self.members);
        for settings in wanted.iter() {
            let known =
                before.iter().position(|member| member.settings.trust_domain == settings.trust_domain);
            let known = known.map(|index| before.swap_remove(index));
            self.members.push(match known {
                Some(member) if member.settings == *settings => member,
                Some(Member { slot, .. }) => self.member(settings, slot),
                None => {
                    tracing::info!(trust_domain = %settings.trust_domain, source = settings.source(), "federated");
                    self.member(settings, Arc::default())
                }
            });
        }
        for gone in before {
            tracing::info!(trust_domain = %gone.settings.trust_domain, "no longer federated");
        }
        self.status.federation.retain(|domain| is_listed(domain.as_str()));
        if let Err(error) = self.shared.folder.retain(is_listed) {
            tracing::warn!(%error, "kept bundles of trust domains that are not listed could not be removed");
        }
    }

    fn member(&self, settings: &FederatedDomain, before: Arc<Slot>) -> Member {
        // A slot of its own: the task before this one, which is told to end, may still write to its.
        let slot = Arc::new(Slot::taken_over(&before));
        let status = self.status.federation.of(&settings.trust_domain);
        let domain = Domain::new(Arc::clone(&self.shared), settings.clone(), Arc::clone(&slot), status);
        let end = CancellationToken::new();
        let ended = end.clone();
        drain::spawn_background(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = domain.live() => {}
            }
        });
        Member { settings: settings.clone(), slot, _task: end.drop_guard() }
    }

    fn publish(&self) {
        let bundles: TrustBundles = self.members.iter().filter_map(|member| member.slot.bundle()).collect();
        self.shared.bundles.send_if_modified(|published| {
            let is_new = **published != bundles;
            if is_new {
                *published = Arc::new(bundles);
            }
            is_new
        });
    }
}

#[cfg(test)]
mod tests;
