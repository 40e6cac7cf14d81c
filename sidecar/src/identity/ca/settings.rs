//! The CA as a source: what is configured, and the way there.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrider_certs::{
    spiffe_id::{SpiffeId, TrustDomain},
    trust_bundle::TrustBundle,
};

use super::{
    super::{
        file,
        source::{Materials, Running, Source},
        tls_configs::TlsBase,
    },
    Error, Life,
    exchange::Exchange,
};
use crate::{
    clock::Clock,
    model::{settings::CaProof, status::IdentityStatus},
    net::Net,
};

/// Largest file of roots that is read, in bytes; the largest valid bundle fits.
const MAX_BUNDLE_BYTES: u64 = 256 * 1024;

/// Where the CA is and what is asked of it.
#[derive(Clone, Debug)]
pub struct CaSettings {
    /// `host:port`.
    pub address: String,
    /// How we prove who we are.
    pub proof: CaProof,
    /// Lifetime to ask for.
    pub validity: Duration,
    /// Our trust domain.
    pub trust_domain: TrustDomain,
    /// Where key and certificate are kept, if they are.
    pub state_dir: PathBuf,
}

/// The CA as a source.
#[derive(Debug)]
pub struct CaSource<N> {
    pub(super) settings: CaSettings,
    pub(super) exchange: Exchange<N>,
    pub(super) clock: Clock,
    pub(super) status: Arc<IdentityStatus>,
}

impl<N: Net> CaSource<N> {
    /// A source that reaches the CA over `net`.
    #[must_use]
    pub fn new(settings: CaSettings, net: N, tls: TlsBase, clock: &Clock) -> Self {
        let exchange = Exchange {
            net,
            address: settings.address.clone(),
            trust_domain: settings.trust_domain.clone(),
            tls,
            clock: clock.clone(),
        };
        Self { settings, exchange, clock: clock.clone(), status: Arc::default() }
    }

    /// Whether anything outlives a restart: not where the proof can be given again at any time.
    pub(super) fn keeps(&self) -> bool {
        matches!(self.settings.proof, CaProof::JoinToken { .. })
    }

    /// The roots by which the CA is known now.
    pub(super) fn roots(&self, file: &Path) -> Result<TrustBundle, Error> {
        let (text, _mode) = file::read(file, MAX_BUNDLE_BYTES)?;
        Ok(TrustBundle::from_pem(self.settings.trust_domain.clone(), &text).map_err(file::Error::from)?)
    }
}

impl<N: Net> Source for CaSource<N> {
    fn run(self: Arc<Self>, materials: Materials) -> Running {
        Box::pin(async move { Life::new(&self, materials).live().await })
    }

    fn status(&self) -> Arc<IdentityStatus> {
        Arc::clone(&self.status)
    }

    fn remedy(&self, id: Option<&SpiffeId>) -> String {
        let id = id.map_or("ID", SpiffeId::as_str);
        let make = format!("make a join token with `outrider-ca token --spiffe-id {id}`");
        match &self.settings.proof {
            CaProof::JoinToken { file: Some(file) } => {
                format!("{make} and write it to {}: it is picked up without a restart", file.display())
            }
            CaProof::JoinToken { file: None } => {
                format!("{make}, name its file as identity.ca.join_token_file, and restart")
            }
            CaProof::ServiceAccount { token_file, bundle_file } => format!(
                "see that {} is a token for the CA's audience that is kept fresh, and {} has the CA's roots: both are read again without a restart",
                token_file.display(),
                bundle_file.display()
            ),
        }
    }
}
