//! The certificate that the API server sees, and the roots it is told to believe; from the CA or from files, always the
//! newest.
//!
//! A certificate comes into use only if it convinces whoever has its roots and knows the service's name, as the API
//! server does. One that does not is told once, and the last good one stays.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use outrider::{
    clock::Clock,
    config::defaults::{CIPHER_SUITES, KEY_EXCHANGE},
    drain,
    identity::{
        ca::{CaSettings, CaSource},
        source::{Material, Source as _},
        tls_configs::{self, TlsBase},
    },
    model::settings::TlsSettings,
    net::TcpNet,
};
use outrider_certs::{pem, rustls_verify::provider};
use rustls::{
    RootCertStore, ServerConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier as _},
    server::NoServerSessionStorage,
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _};
use tokio::sync::watch;

/// How often files are looked at.
const POLL: Duration = Duration::from_secs(1);
/// Largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 256 * 1024;
/// Most certificates in a chain or a file of roots.
const MAX_CERTIFICATES: usize = 64;

/// Where the certificate comes from.
#[derive(Clone, Debug)]
pub enum Origin {
    /// From the mesh's CA.
    Ca(Box<CaSettings>),
    /// From PEM files that something else keeps fresh, as a mounted Secret.
    Files {
        /// The leaf, then its intermediates.
        certificate: PathBuf,
        /// Its key.
        key: PathBuf,
        /// The roots that the API server is told.
        roots: PathBuf,
    },
}

/// What is served with from here on.
#[derive(Debug)]
pub struct Serving {
    /// TLS for the next connections.
    pub tls: Arc<ServerConfig>,
    /// The roots, in PEM.
    pub roots: String,
    /// Which roots are newer: a higher number. 0: nobody counts.
    pub sequence: u64,
    /// When the leaf runs out, if that is known.
    pub not_after: Option<SystemTime>,
}

/// The newest; `None` until there is one.
pub(super) type Newest = watch::Receiver<Option<Arc<Serving>>>;

/// Why a certificate is not used.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} cannot be read: {source}", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} holds no {what} in PEM", file.display())]
    Pem { file: PathBuf, what: &'static str },
    #[error("the roots cannot be used: {0}")]
    Roots(String),
    #[error("the API server would not believe it as {name}: {source}")]
    Unbelievable { name: String, source: rustls::Error },
    #[error("key and certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// A chain, its key and its roots, wherever they are from.
struct Found {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    sequence: u64,
    not_after: Option<SystemTime>,
}

/// Begins to serve as `name` with what comes from `origin`.
///
/// # Errors
/// TLS is not available.
pub(super) fn start(
    origin: Origin,
    name: ServerName<'static>,
    clock: &Clock,
) -> Result<Newest, tls_configs::Error> {
    let (to, newest) = watch::channel(None);
    let keeper = Keeper { name, clock: clock.clone(), to, told: Mutex::default() };
    match origin {
        Origin::Files { certificate, key, roots } => {
            drain::spawn_background(keeper.follow_files(certificate, key, roots));
        }
        Origin::Ca(settings) => {
            let tls = TlsBase::new(&algorithms(), clock)?;
            let source = Arc::new(CaSource::new(*settings, TcpNet, tls, clock));
            let (materials, from) = watch::channel(None);
            drain::spawn_background(source.run(materials));
            drain::spawn_background(keeper.follow_ca(from));
        }
    }
    Ok(newest)
}

/// What the mesh speaks.
fn algorithms() -> TlsSettings {
    TlsSettings {
        cipher_suites: CIPHER_SUITES.iter().map(|(_, suite)| *suite).collect(),
        key_exchange: KEY_EXCHANGE.iter().map(|(_, group)| *group).collect(),
    }
}

/// Takes what is new if it is good.
struct Keeper {
    name: ServerName<'static>,
    clock: Clock,
    to: watch::Sender<Option<Arc<Serving>>>,
    /// What was wrong last, so that it is told once.
    told: Mutex<String>,
}

impl Keeper {
    async fn follow_ca(self, mut from: watch::Receiver<Option<Arc<Material>>>) {
        while from.changed().await.is_ok() {
            let newest = from.borrow_and_update().clone();
            let Some(material) = newest else { continue };
            let svid = &material.svid;
            let bundle = material.bundles.get(svid.id().trust_domain());
            self.take(Ok(Found {
                chain: svid.chain().to_vec(),
                key: svid.key().clone_key(),
                roots: bundle.map(|bundle| bundle.roots().to_vec()).unwrap_or_default(),
                sequence: bundle.map_or(0, |bundle| bundle.sequence()),
                not_after: Some(svid.not_after()),
            }));
        }
        self.to.closed().await;
    }

    async fn follow_files(self, certificate: PathBuf, key: PathBuf, roots: PathBuf) {
        let mut last = None;
        loop {
            let files = [certificate.clone(), key.clone(), roots.clone()];
            let read = tokio::task::spawn_blocking(move || read(&files)).await;
            // A read that panicked is looked at again, as one that failed.
            if let Ok(texts) = read {
                match texts {
                    Ok(texts) if last.as_ref() == Some(&texts) => {}
                    Ok(texts) => {
                        self.take(parse(&texts, [&certificate, &key, &roots]));
                        last = Some(texts);
                    }
                    Err(error) => self.take(Err(error)),
                }
            }
            tokio::select! {
                () = self.to.closed() => return,
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    fn take(&self, found: Result<Found, Error>) {
        match found.and_then(|found| self.checked(found)) {
            Ok(serving) => {
                self.told().clear();
                let not_after = serving.not_after.map(|at| humantime::format_rfc3339_seconds(at).to_string());
                tracing::info!(not_after, sequence = serving.sequence, "a new certificate is in use");
                self.to.send_replace(Some(Arc::new(serving)));
            }
            Err(error) => {
                let error = error.to_string();
                let mut told = self.told();
                if *told != error {
                    let has_one = self.to.borrow().is_some();
                    tracing::warn!(%error, has_one, "a certificate is not used; the last good one stays");
                    *told = error;
                }
            }
        }
    }

    fn told(&self) -> std::sync::MutexGuard<'_, String> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at it as the API server will.
    fn checked(&self, found: Found) -> Result<Serving, Error> {
        let mut store = RootCertStore::empty();
        for root in &found.roots {
            store.add(root.clone()).map_err(|error| Error::Roots(error.to_string()))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider())
            .build()
            .map_err(|error| Error::Roots(error.to_string()))?;
        let since = self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = UnixTime::since_unix_epoch(since);
        let (leaf, intermediates) =
            found.chain.split_first().ok_or_else(|| Error::Tls(rustls::Error::NoCertificatesPresented))?;
        verifier
            .verify_server_cert(leaf, intermediates, &self.name, &[], now)
            .map_err(|source| Error::Unbelievable { name: self.name.to_str().into_owned(), source })?;
        let roots = found.roots.iter().map(pem::certificate).collect();
        let mut tls = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_single_cert(found.chain, found.key)?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Serving { tls: Arc::new(tls), roots, sequence: found.sequence, not_after: found.not_after })
    }
}

fn read(files: &[PathBuf; 3]) -> Result<[Vec<u8>; 3], Error> {
    let one = |file: &PathBuf| {
        use std::io::Read as _;
        let mut bytes = Vec::new();
        let opened = std::fs::File::open(file);
        let read = opened.and_then(|opened| opened.take(MAX_FILE_BYTES).read_to_end(&mut bytes));
        read.map(|_| bytes).map_err(|source| Error::Read { file: file.clone(), source })
    };
    let [certificate, key, roots] = files;
    Ok([one(certificate)?, one(key)?, one(roots)?])
}

fn parse(texts: &[Vec<u8>; 3], files: [&PathBuf; 3]) -> Result<Found, Error> {
    let wrong = |file: &PathBuf, what| Error::Pem { file: file.clone(), what };
    let certificates = |text: &[u8], file: &PathBuf| {
        let all = CertificateDer::pem_slice_iter(text).take(MAX_CERTIFICATES).collect::<Result<Vec<_>, _>>();
        all.ok().filter(|all| !all.is_empty()).ok_or_else(|| wrong(file, "certificate"))
    };
    let [certificate, key, roots] = texts;
    Ok(Found {
        chain: certificates(certificate, files[0])?,
        key: PrivateKeyDer::from_pem_slice(key).map_err(|_| wrong(files[1], "private key"))?,
        roots: certificates(roots, files[2])?,
        sequence: 0,
        not_after: None,
    })
}
