//! Who we are: gets a certificate, keeps it fresh, and makes TLS configurations of it.
//!
//! ```text
//!   source (ca | file | fixed) ──Material──▶ here ──Identity──▶ publish ──▶ snapshot
//!   federation (other trust domains) ──bundles──┘
//! ```
//! A source decides *what* is used; here it becomes configurations, and operators are told when it runs out.
//!
//! # Invariants
//! - The last good identity stays until a better one is there; nothing withdraws it.
//! - Every identity published has fresh TLS configurations: nothing of an old trust lives on in a new connection.

pub mod ca;
pub mod federation;
pub mod file;
pub mod fixed;
pub mod public;
mod report;
pub mod rotation;
pub mod source;
pub mod store;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls_configs;

use std::{sync::Arc, time::Duration};

use outrider_certs::trust_bundle::TrustBundles;
use tokio::sync::watch;

use self::{
    ca::{CaSettings, CaSource},
    file::{FileSource, Files},
    rotation::Left,
    source::{Material, Source},
    tls_configs::TlsBase,
};
use crate::{
    clock::Clock,
    drain,
    model::{
        Generation, Identity,
        settings::{Bootstrap, IdentitySource, TlsSettings},
        status::IdentityStatus,
    },
    net::{Net, reach},
    readiness::{BlockReady, Readiness},
};

/// How often it is looked at how much of the certificate's lifetime is left: at most this, and forty times in the
/// lifetime of a short one.
const MAX_EXPIRY_CHECK: Duration = Duration::from_secs(60);
/// At least this, so that an expired certificate does not keep us busy.
const MIN_EXPIRY_CHECK: Duration = Duration::from_millis(100);

/// A running identity.
#[derive(Debug)]
pub struct Started {
    /// The newest identity; `None` until the first is there.
    pub identity: watch::Receiver<Option<Arc<Identity>>>,
    /// How it goes, for metrics and operators.
    pub status: Arc<IdentityStatus>,
}

/// Starts `source`, or the one that the configuration names, and looks after the bundles of the trust domains that it lists,
/// on the runtime of the caller. Readiness waits for the first identity under the name `identity`.
///
/// # Errors
/// When the configured TLS suites or groups are not available.
pub fn start<N: Net>(
    source: Option<Arc<dyn Source>>,
    config: watch::Receiver<Arc<Generation>>,
    net: &N,
    clock: &Clock,
    readiness: &Readiness,
) -> Result<Started, tls_configs::Error> {
    let bootstrap = config.borrow().settings.bootstrap.clone();
    let tls = TlsBase::new(&bootstrap.tls, clock)?;
    let source = source.unwrap_or_else(|| configured(&bootstrap, net, &tls, clock));
    let (to, identity) = watch::channel(None);
    let federated = federation::start(federation::Inputs {
        config,
        identity,
        status: source.status(),
        net: net.clone(),
        tls: tls.clone(),
        clock: clock.clone(),
    });
    Ok(keep(source, federated, to, (tls, clock.clone()), readiness))
}

/// For programs beside the sidecar: an identity from the CA, renewed as ours is, without other trust domains. Readiness
/// waits for the first under the name `identity`. `tls` is usually `tls()` of the configuration's defaults.
///
/// # Errors
/// When the TLS suites or groups are not available.
pub fn start_of_ca<N: Net>(
    settings: CaSettings,
    tls: &TlsSettings,
    net: &N,
    clock: &Clock,
    readiness: &Readiness,
) -> Result<Started, tls_configs::Error> {
    let tls = TlsBase::new(tls, clock)?;
    let source: Arc<dyn Source> = Arc::new(CaSource::new(settings, net.clone(), tls.clone(), clock));
    Ok(alone(source, (tls, clock.clone()), readiness))
}

/// An identity without other trust domains.
fn alone(source: Arc<dyn Source>, with: (TlsBase, Clock), readiness: &Readiness) -> Started {
    let federated = watch::Sender::new(Arc::default()).subscribe();
    keep(source, federated, watch::Sender::new(None), with, readiness)
}

fn configured<N: Net>(bootstrap: &Bootstrap, net: &N, tls: &TlsBase, clock: &Clock) -> Arc<dyn Source> {
    let trust_domain = bootstrap.trust_domain.clone();
    match &bootstrap.identity {
        IdentitySource::Ca { address, proof, validity } => {
            let settings = CaSettings {
                address: address.clone(),
                proof: proof.clone(),
                validity: *validity,
                trust_domain,
                state_dir: bootstrap.state_dir.clone(),
            };
            Arc::new(CaSource::new(settings, net.clone(), tls.clone(), clock))
        }
        IdentitySource::File { certificate, key, bundle } => {
            let files = Files { certificate: certificate.clone(), key: key.clone(), bundle: bundle.clone() };
            Arc::new(FileSource::new(files, trust_domain, clock))
        }
    }
}

/// Starts with any source and without other trust domains, as [`start`].
#[cfg(test)]
pub(crate) fn start_with(
    source: Arc<dyn Source>,
    tls: &TlsSettings,
    clock: &Clock,
    readiness: &Readiness,
) -> Result<Started, tls_configs::Error> {
    let tls = TlsBase::new(tls, clock)?;
    Ok(alone(source, (tls, clock.clone()), readiness))
}

fn keep(
    source: Arc<dyn Source>,
    federated: watch::Receiver<Arc<TrustBundles>>,
    to: watch::Sender<Option<Arc<Identity>>>,
    (tls, clock): (TlsBase, Clock),
    readiness: &Readiness,
) -> Started {
    let identity = to.subscribe();
    let (materials, from) = watch::channel(None);
    let status = source.status();
    let keeper = Keeper {
        source: Arc::clone(&source),
        clock,
        tls,
        federated,
        material: None,
        to,
        told: Left::Plenty,
        guard: Some(readiness.block("identity")),
    };
    drain::spawn_background(source.run(materials));
    drain::spawn_background(keeper.keep(from));
    Started { identity, status }
}

/// Each trust domain's bundle, none mixed with another; what the source gave counts before what was federated.
fn together(own: &Arc<TrustBundles>, federated: &TrustBundles) -> Arc<TrustBundles> {
    if federated.iter().next().is_none() {
        return Arc::clone(own);
    }
    Arc::new(federated.iter().chain(own.iter()).cloned().collect())
}

/// Turns material into identities, and tells operators how long the newest lasts.
struct Keeper {
    source: Arc<dyn Source>,
    clock: Clock,
    tls: TlsBase,
    /// Bundles of other trust domains.
    federated: watch::Receiver<Arc<TrustBundles>>,
    /// What the source gave last.
    material: Option<Arc<Material>>,
    to: watch::Sender<Option<Arc<Identity>>>,
    /// The most urgent thing that was said of the present certificate.
    told: Left,
    guard: Option<BlockReady>,
}

impl Keeper {
    async fn keep(mut self, mut from: watch::Receiver<Option<Arc<Material>>>) {
        let (mut may_change, mut may_federate) = (true, true);
        loop {
            let pause = self.look_at_expiry();
            tokio::select! {
                biased;
                changed = from.changed(), if may_change => {
                    may_change = changed.is_ok();
                    let newest = from.borrow_and_update().clone();
                    if let Some(material) = newest.filter(|_| may_change) {
                        self.material = Some(material);
                        self.told = Left::Plenty;
                        self.adopt();
                    }
                }
                changed = self.federated.changed(), if may_federate => {
                    may_federate = changed.is_ok();
                    if may_federate {
                        self.adopt();
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Publishes what the source gave last together with the newest bundles of other trust domains.
    fn adopt(&mut self) {
        let Some(material) = self.material.clone() else { return };
        let bundles = together(&material.bundles, &self.federated.borrow_and_update());
        let tls = match self.tls.configs(&material.svid, &bundles) {
            Ok(tls) => tls,
            Err(error) => {
                if self.to.borrow().is_some() {
                    tracing::warn!(%error, "the new certificate cannot be used; the last good stays");
                } else {
                    tracing::error!(%error, "the certificate cannot be used, and there is no other");
                }
                return;
            }
        };
        let identity = Identity { svid: material.svid.clone(), bundles, tls };
        self.to.send_replace(Some(Arc::new(identity)));
        if let Some(guard) = self.guard.take() {
            guard.release();
        }
    }

    /// Warns when little is left. Returns when to look again.
    fn look_at_expiry(&mut self) -> Duration {
        let Some(identity) = self.to.borrow().clone() else { return MAX_EXPIRY_CHECK };
        let svid = &identity.svid;
        let left = Left::of(svid.not_before(), svid.not_after(), self.clock.wall());
        if left > self.told {
            self.tell(left, &identity);
        }
        let lifetime = svid.not_after().duration_since(svid.not_before()).unwrap_or_default();
        (lifetime / 40).clamp(MIN_EXPIRY_CHECK, MAX_EXPIRY_CHECK)
    }

    fn tell(&mut self, left: Left, identity: &Identity) {
        let id = identity.svid.id();
        let not_after = humantime::format_rfc3339_seconds(identity.svid.not_after());
        let percent = match left {
            Left::Plenty => return,
            // Half is left shortly before a renewal is due: worth a word only if renewing fails.
            Left::Half if !self.source.status().renewals.is_failing() => return,
            Left::Half => 50,
            Left::Fifth => 20,
            Left::Twentieth => 5,
            Left::Nothing => 0,
        };
        self.told = left;
        if percent > 0 {
            tracing::warn!(%id, %not_after, "less than {percent} % of the certificate's lifetime is left");
        } else {
            let remedy = self.source.remedy(Some(id));
            tracing::error!(%id, %not_after, remedy, "our certificate has expired: peers refuse us");
        }
    }
}
