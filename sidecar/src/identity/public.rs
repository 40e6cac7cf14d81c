//! What `tls: public` needs: roots that vouch for servers outside the mesh, and what we show them.
//!
//! ```text
//!   the system's roots ┐
//!   files of a cluster ┴─▶ PublicFiles ──PublicTls, per cluster──▶ publish ──▶ snapshot
//! ```
//! The system's roots are read when the first cluster asks for them, and once. Files are looked at every two seconds, by
//! content, as those of our own identity.
//!
//! # Invariants
//! - TLS 1.3 and nothing below, no resumption, no early data; the configured suites and groups, as in the mesh.
//! - Our SVID is never shown outside the mesh.
//! - A configuration is used only for the settings that it was made for. While new files are faulty the last good stays;
//!   a cluster whose files never were good has none, and its requests fail.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use indexmap::IndexMap;
use rustls::{
    RootCertStore,
    client::WebPkiServerVerifier,
    pki_types::{CertificateDer, InvalidDnsNameError, PrivatePkcs8KeyDer, ServerName, pem::PemObject},
};
use zeroize::Zeroizing;

use super::{
    file::{self, POLL},
    report::Reporter,
    tls_configs::{self, TlsBase},
};
use crate::{
    clock::Clock,
    model::{
        ClusterName, ClusterSettings,
        transport::{PublicSettings, PublicTls, Roots, Transport},
        wire::{ALPN_STANDARD_H1, ALPN_STANDARD_H2},
    },
};

/// Largest file that is read, in bytes; a distribution's whole list of roots is about 220 KiB.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why a cluster cannot be reached by TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] file::Error),
    /// The operating system has no roots, or not where they are looked for.
    #[error(
        "the system has no roots: {0} (install ca-certificates, set SSL_CERT_FILE, or give public.roots)"
    )]
    NoSystemRoots(String),
    /// A file with roots holds something else, or nothing.
    #[error("{path} holds no usable root: {problem}", path = path.display())]
    Roots {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The client certificate cannot be read.
    #[error("{path} is not a certificate chain in PEM: {problem}", path = path.display())]
    Certificate {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The client certificate's key cannot be read.
    #[error("{path} is not a private key in PKCS#8 PEM: {problem}", path = path.display())]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Everybody on this host may read or replace the key.
    #[error("{path} is open to everybody (mode {mode:o}): close it with `chmod o-rwx`", path = path.display())]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The server's name is none.
    #[error("the server name is neither a DNS name nor an IP address")]
    ServerName(#[from] InvalidDnsNameError),
    /// The roots do not make a verifier.
    #[error("the roots cannot be used: {0}")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
    /// rustls does not take certificate and key.
    #[error(transparent)]
    Tls(#[from] tls_configs::Error),
}

/// TLS configurations of the clusters outside the mesh, as fresh as their files.
#[derive(Debug)]
pub struct PublicFiles {
    base: TlsBase,
    clock: Clock,
    /// Once a cluster has asked for them.
    system: Option<Arc<RootCertStore>>,
    clusters: IndexMap<ClusterName, Entry>,
    next_look: Instant,
}

#[derive(Debug)]
struct Entry {
    settings: Arc<PublicSettings>,
    /// Of the contents that `tls` was made of.
    fingerprint: u64,
    tls: Option<Arc<PublicTls>>,
    report: Reporter<Error>,
}

impl PublicFiles {
    /// Nothing is read before [`reconcile`](Self::reconcile) says for whom.
    #[must_use]
    pub fn new(base: TlsBase, clock: &Clock) -> Self {
        let next_look = clock.now();
        Self { base, clock: clock.clone(), system: None, clusters: IndexMap::new(), next_look }
    }

    /// Reads the files of clusters that are new or have changed, and forgets those that are gone. Blocks for some
    /// milliseconds when there is something to read.
    pub fn reconcile(&mut self, clusters: &[Arc<ClusterSettings>]) {
        let wanted: IndexMap<&ClusterName, &Arc<PublicSettings>> = clusters
            .iter()
            .filter_map(|cluster| match &cluster.transport {
                Transport::Public(settings) => Some((&cluster.name, settings)),
                Transport::Mesh(..) | Transport::Plain(_) | Transport::App => None,
            })
            .collect();
        self.clusters
            .retain(|name, entry| wanted.get(name).is_some_and(|settings| ***settings == *entry.settings));
        for (name, settings) in wanted {
            if !self.clusters.contains_key(name) {
                let mut entry = Entry {
                    settings: Arc::clone(settings),
                    fingerprint: 0,
                    tls: None,
                    report: Reporter::new("reading what `tls: public` needs"),
                };
                self.look_at(name, &mut entry);
                self.clusters.insert(name.clone(), entry);
            }
        }
    }

    /// What connections of that cluster are made with; `None` until its files are good.
    #[must_use]
    pub fn of(&self, cluster: &ClusterName) -> Option<&Arc<PublicTls>> {
        self.clusters.get(cluster)?.tls.as_ref()
    }

    /// Resolves when a file has brought something new; never, while no cluster has any. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.clusters.is_empty() {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep_until(self.next_look.into()).await;
            self.next_look = self.clock.now() + POLL;
            let mut clusters = std::mem::take(&mut self.clusters);
            let mut is_new = false;
            for (name, entry) in &mut clusters {
                is_new |= self.look_at(name, entry);
            }
            self.clusters = clusters;
            if is_new {
                return;
            }
        }
    }

    /// Tells whether there is something new.
    fn look_at(&mut self, name: &ClusterName, entry: &mut Entry) -> bool {
        let look = Content::read(&entry.settings).and_then(|content| {
            let fingerprint = content.fingerprint();
            if entry.tls.is_some() && fingerprint == entry.fingerprint {
                return Ok(None);
            }
            Ok(Some((fingerprint, self.make(&entry.settings, &content)?)))
        });
        match look {
            Ok(None) => {
                entry.report.worked();
                false
            }
            Ok(Some((fingerprint, tls))) => {
                entry.report.worked();
                tracing::info!(cluster = %name, server = %entry.settings.server_name, "TLS out of the mesh is set up");
                (entry.fingerprint, entry.tls) = (fingerprint, Some(Arc::new(tls)));
                true
            }
            Err(error) => {
                let remedy =
                    format!("cluster {name} answers 503 until its files are good: they are looked at again");
                entry.report.failed(&error, entry.tls.is_none(), &remedy);
                false
            }
        }
    }

    fn make(&mut self, settings: &Arc<PublicSettings>, content: &Content) -> Result<PublicTls, Error> {
        let roots = match (&settings.roots, &content.roots) {
            (Roots::File(path), Some(text)) => Arc::new(roots(path, text)?),
            (Roots::System | Roots::File(_), _) => self.system()?,
        };
        let client = match (&settings.client, &content.client) {
            (Some(files), Some((certificate, key))) => {
                Some((chain(&files.certificate, certificate)?, private_key(&files.key, key)?))
            }
            (Some(_) | None, _) => None,
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(roots, self.base.provider()).build()?;
        let config = |alpn: &[&[u8]]| {
            let client = client.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
            self.base.public(Arc::clone(&verifier), client, alpn).map(Arc::new)
        };
        Ok(PublicTls {
            server_name: ServerName::try_from(settings.server_name.to_string())?,
            either: config(&[ALPN_STANDARD_H2, ALPN_STANDARD_H1])?,
            h2: config(&[ALPN_STANDARD_H2])?,
            h1: config(&[ALPN_STANDARD_H1])?,
            tcp: config(&[])?,
        })
    }

    fn system(&mut self) -> Result<Arc<RootCertStore>, Error> {
        if let Some(roots) = &self.system {
            return Ok(Arc::clone(roots));
        }
        let roots = system_roots()?;
        tracing::info!(taken = roots.len(), "the system's roots are read, for `tls: public`");
        Ok(Arc::clone(self.system.insert(Arc::new(roots))))
    }
}

/// Whom the operating system trusts.
pub(super) fn system_roots() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (taken, _ignored) = roots.add_parsable_certificates(found.certs);
    if taken == 0 {
        let errors: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::NoSystemRoots(errors.join("; ")));
    }
    Ok(roots)
}

/// The roots in a file, which is read.
pub(super) fn file_roots(path: &Path) -> Result<RootCertStore, Error> {
    roots(path, &file::read(path, MAX_FILE_BYTES)?.0)
}

type Bytes = Zeroizing<Vec<u8>>;

/// What the files of one cluster hold at one look.
struct Content {
    roots: Option<Bytes>,
    /// Certificate and key.
    client: Option<(Bytes, Bytes)>,
}

impl Content {
    fn read(settings: &PublicSettings) -> Result<Self, Error> {
        let read = |path: &Path| file::read(path, MAX_FILE_BYTES).map(|(bytes, _mode)| bytes);
        let roots = match &settings.roots {
            Roots::System => None,
            Roots::File(path) => Some(read(path)?),
        };
        let client = match &settings.client {
            None => None,
            Some(client) => {
                let (key, mode) = file::read(&client.key, MAX_FILE_BYTES)?;
                if mode & EVERYBODY != 0 {
                    return Err(Error::Exposed { path: client.key.clone(), mode });
                }
                Some((read(&client.certificate)?, key))
            }
        };
        Ok(Self { roots, client })
    }

    /// As that of the own identity's files.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.roots.as_ref().map(|bytes| bytes.as_slice()).hash(&mut hasher);
        self.client
            .as_ref()
            .map(|(certificate, key)| (certificate.as_slice(), key.as_slice()))
            .hash(&mut hasher);
        hasher.finish()
    }
}

/// Permission bits of those who are neither the owner nor of the group. A group is let in: Kubernetes gives a pod its
/// secrets by one.
const EVERYBODY: u32 = 0o007;

fn roots(path: &Path, text: &[u8]) -> Result<RootCertStore, Error> {
    let failed = |problem: String| Error::Roots { path: path.to_path_buf(), problem };
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(text) {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        store.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if store.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(store) }
}

fn chain(path: &Path, text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let failed = |problem: String| Error::Certificate { path: path.to_path_buf(), problem };
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(error.to_string()))?;
    if chain.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(chain) }
}

fn private_key(path: &Path, text: &[u8]) -> Result<PrivatePkcs8KeyDer<'static>, Error> {
    PrivatePkcs8KeyDer::from_pem_slice(text)
        .map_err(|error| Error::Key { path: path.to_path_buf(), problem: error.to_string() })
}
