//! Who we are: gets a certificate, keeps it fresh, and makes TLS configurations of it.
//!
//! ```text
//!   source (ca | file | fixed) ──Material──▶ here ──Identity──▶ publish ──▶ snapshot
//! ```
//! A source decides *what* is used; here it becomes configurations, and operators are told when it runs out.
//!
//! # Invariants
//! - The last good identity stays until a better one is there; nothing withdraws it.
//! - Every identity published has fresh TLS configurations: nothing of an old trust lives on in a new connection.

pub mod ca;
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
        Identity,
        settings::{Bootstrap, IdentitySource, TlsSettings},
        status::IdentityStatus,
    },
    net::Net,
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

/// Starts the source that the configuration names, on the runtime of the caller. Readiness waits for the first
/// identity under the name `identity`.
///
/// # Errors
/// When the configured TLS suites or groups are not available.
pub fn start<N: Net>(
    bootstrap: &Bootstrap,
    net: &N,
    clock: &Clock,
    readiness: &Readiness,
) -> Result<Started, tls_configs::Error> {
    let trust_domain = bootstrap.trust_domain.clone();
    let source: Arc<dyn Source> = match &bootstrap.identity {
        IdentitySource::Ca { address, join_token_file, validity } => {
            let settings = CaSettings {
                address: address.clone(),
                join_token_file: join_token_file.clone(),
                validity: *validity,
                trust_domain,
                state_dir: bootstrap.state_dir.clone(),
            };
            let tls = TlsBase::new(&bootstrap.tls, clock)?;
            Arc::new(CaSource::new(settings, net.clone(), tls, clock))
        }
        IdentitySource::File { certificate, key, bundle } => {
            let files = Files { certificate: certificate.clone(), key: key.clone(), bundle: bundle.clone() };
            Arc::new(FileSource::new(files, trust_domain, clock))
        }
    };
    start_with(source, &bootstrap.tls, clock, readiness)
}

/// Starts with any source, as [`start`].
///
/// # Errors
/// As [`start`].
pub fn start_with(
    source: Arc<dyn Source>,
    tls: &TlsSettings,
    clock: &Clock,
    readiness: &Readiness,
) -> Result<Started, tls_configs::Error> {
    let tls = TlsBase::new(tls, clock)?;
    let (to, identity) = watch::channel(None);
    let (materials, from) = watch::channel(None);
    let status = source.status();
    let keeper = Keeper {
        source: Arc::clone(&source),
        clock: clock.clone(),
        tls,
        to,
        told: Left::Plenty,
        guard: Some(readiness.block("identity")),
    };
    drain::spawn_background(source.run(materials));
    drain::spawn_background(keeper.keep(from));
    Ok(Started { identity, status })
}

/// Turns material into identities, and tells operators how long the newest lasts.
struct Keeper {
    source: Arc<dyn Source>,
    clock: Clock,
    tls: TlsBase,
    to: watch::Sender<Option<Arc<Identity>>>,
    /// The most urgent thing that was said of the present certificate.
    told: Left,
    guard: Option<BlockReady>,
}

impl Keeper {
    async fn keep(mut self, mut from: watch::Receiver<Option<Arc<Material>>>) {
        let mut may_change = true;
        loop {
            let pause = self.look_at_expiry();
            tokio::select! {
                biased;
                changed = from.changed(), if may_change => {
                    may_change = changed.is_ok();
                    let newest = from.borrow_and_update().clone();
                    if let Some(material) = newest.filter(|_| may_change) {
                        self.adopt(&material);
                    }
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn adopt(&mut self, material: &Material) {
        let tls = match self.tls.configs(&material.svid, &material.bundles) {
            Ok(tls) => tls,
            Err(error) => {
                tracing::error!(%error, "the new certificate cannot be used; the last good stays");
                return;
            }
        };
        let identity = Identity { svid: material.svid.clone(), bundles: Arc::clone(&material.bundles), tls };
        self.told = Left::Plenty;
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
