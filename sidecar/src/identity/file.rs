//! Our certificate from PEM files that something else keeps fresh.
//!
//! The files are looked at every two seconds, by content: that also sees a Kubernetes volume change, where files stay
//! and a symbolic link above them moves. Certificate, key and bundle are taken together or not at all: while one of
//! them is half-written, or the key is not the certificate's, the last good stays.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use outrider_certs::{
    spiffe_id::{SpiffeId, TrustDomain},
    svid::{self, X509Svid},
    trust_bundle::{self, TrustBundle, TrustBundles},
    verify::{self, Role},
};
use zeroize::Zeroizing;

use super::{
    report::Reporter,
    source::{Material, Materials, Running, Source},
};
use crate::{clock::Clock, model::status::IdentityStatus};

/// Time between two looks.
pub(super) const POLL: Duration = Duration::from_secs(2);
/// Largest file that is read, in bytes; the largest valid bundle fits.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is larger than any certificate, key or bundle.
    #[error("{path} is too large", path = .0.display())]
    TooLarge(PathBuf),
    /// Certificate and key are no SVID.
    #[error("certificate and key: {0}")]
    Svid(#[from] svid::Error),
    /// The bundle cannot be used.
    #[error("trust bundle: {0}")]
    Bundle(#[from] trust_bundle::Error),
    /// Peers with this bundle would not believe this certificate.
    #[error("the certificate does not fit the trust bundle: {0}")]
    Unverified(#[from] verify::Error),
    /// The certificate is of another trust domain.
    #[error("the certificate is for {found}, but our trust domain is {expected}")]
    TrustDomain {
        /// Ours.
        expected: TrustDomain,
        /// Whom the certificate names.
        found: SpiffeId,
    },
}

/// Which files.
#[derive(Clone, Debug)]
pub struct Files {
    /// Leaf and intermediates.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Roots of the own trust domain.
    pub bundle: PathBuf,
}

/// Watched files as a source.
#[derive(Debug)]
pub struct FileSource {
    files: Files,
    trust_domain: TrustDomain,
    clock: Clock,
    status: Arc<IdentityStatus>,
}

impl FileSource {
    /// A source that watches `files`.
    #[must_use]
    pub fn new(files: Files, trust_domain: TrustDomain, clock: &Clock) -> Self {
        Self { files, trust_domain, clock: clock.clone(), status: Arc::default() }
    }

    async fn watch(&self, materials: Materials) {
        let mut report = Reporter::new("reading the certificate files");
        let mut published = None;
        loop {
            let look = self.read().and_then(|content| {
                let fingerprint = content.fingerprint();
                if published == Some(fingerprint) {
                    return Ok(None);
                }
                Ok(Some((fingerprint, self.judge(&content)?)))
            });
            match look {
                Ok(None) => {
                    report.worked();
                    if self.status.renewals.is_failing() {
                        self.status.renewals.succeed(self.clock.wall());
                    }
                }
                Ok(Some((fingerprint, material))) => {
                    report.worked();
                    self.status.renewals.succeed(self.clock.wall());
                    let id = material.svid.id();
                    let not_after = humantime::format_rfc3339_seconds(material.svid.not_after());
                    tracing::info!(%id, %not_after, "certificate read");
                    published = Some(fingerprint);
                    materials.send_replace(Some(Arc::new(material)));
                }
                Err(error) => {
                    self.status.renewals.fail(error.to_string());
                    report.failed(&error, published.is_none(), &self.remedy(None));
                }
            }
            tokio::time::sleep(POLL).await;
        }
    }

    fn read(&self) -> Result<Content, Error> {
        let read = |path| read(path, MAX_FILE_BYTES).map(|(bytes, _mode)| bytes);
        Ok(Content {
            certificate: read(&self.files.certificate)?,
            key: read(&self.files.key)?,
            bundle: read(&self.files.bundle)?,
        })
    }

    /// Lets the files through only if peers with the same bundle would believe the certificate.
    fn judge(&self, content: &Content) -> Result<Material, Error> {
        let svid = X509Svid::from_pem(&content.certificate, &content.key)?;
        if *svid.id().trust_domain() != self.trust_domain {
            return Err(Error::TrustDomain { expected: self.trust_domain.clone(), found: svid.id().clone() });
        }
        let bundle = TrustBundle::from_pem(self.trust_domain.clone(), &content.bundle)?;
        let bundles = TrustBundles::single(bundle);
        let now = self.clock.wall();
        verify::peer(svid.chain(), &bundles, Role::Server, now)?;
        verify::peer(svid.chain(), &bundles, Role::Client, now)?;
        Ok(Material { svid, bundles: Arc::new(bundles) })
    }
}

impl Source for FileSource {
    fn run(self: Arc<Self>, materials: Materials) -> Running {
        Box::pin(async move { self.watch(materials).await })
    }

    fn status(&self) -> Arc<IdentityStatus> {
        Arc::clone(&self.status)
    }

    fn remedy(&self, _id: Option<&SpiffeId>) -> String {
        let Files { certificate, key, bundle } = &self.files;
        format!(
            "put a valid certificate, its key and its roots at {}, {} and {}: they are picked up without a restart",
            certificate.display(),
            key.display(),
            bundle.display()
        )
    }
}

/// What the files hold at one look.
struct Content {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
    bundle: Zeroizing<Vec<u8>>,
}

impl Content {
    /// Tells contents apart without keeping a key in memory a second time. Not for use against an adversary: whoever
    /// writes these files is us.
    fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&*self.certificate, &*self.key, &*self.bundle).hash(&mut hasher);
        hasher.finish()
    }
}

/// A whole file of at most so many bytes, and its permission bits.
pub(super) fn read(path: &Path, max_bytes: u64) -> Result<(Zeroizing<Vec<u8>>, u32), Error> {
    let io = |source| Error::Read { path: path.to_path_buf(), source };
    let mut bytes = Zeroizing::new(Vec::new());
    let file = File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.mode() & 0o7777;
    file.take(max_bytes + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max_bytes {
        return Err(Error::TooLarge(path.to_path_buf()));
    }
    Ok((bytes, mode))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use outrider_certs::pem;
    use tempfile::TempDir;

    use super::*;
    use crate::{
        identity::{
            Started, start_with,
            testing::{ORDERS, Root, domain, epoch, eventually, tls_settings},
        },
        readiness::Readiness,
    };

    /// Certificate, key and bundle of one folder, as a source in virtual time.
    struct Bench {
        folder: TempDir,
        root: Root,
        started: Started,
    }

    impl Bench {
        /// `link` is where the files are found, below the folder.
        fn start(link: &str, prepare: impl FnOnce(&Path, &Root)) -> Self {
            let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
            prepare(folder.path(), &root);
            let at = |name: &str| folder.path().join(link).join(name);
            let files = Files { certificate: at("svid.pem"), key: at("key.pem"), bundle: at("bundle.pem") };
            let clock = Clock::simulated(epoch(), 7);
            let source = Arc::new(FileSource::new(files, domain(), &clock));
            let started = start_with(source, &tls_settings(), &clock, &Readiness::default()).unwrap();
            Self { folder, root, started }
        }

        fn shown(&self) -> Option<X509Svid> {
            self.started.identity.borrow().as_ref().map(|identity| identity.svid.clone())
        }

        async fn until_shown(&self, svid: &X509Svid) {
            let is_shown = || self.shown().is_some_and(|shown| shown.chain() == svid.chain());
            eventually(Duration::from_secs(3), "the certificate in use", is_shown).await;
        }

        fn error(&self) -> String {
            self.started.status.renewals.last().error.unwrap_or_default()
        }
    }

    fn write(folder: &Path, svid: &X509Svid, root: &Root) {
        fs::write(folder.join("svid.pem"), svid.chain_pem()).unwrap();
        fs::write(folder.join("key.pem"), &*svid.key_pem()).unwrap();
        fs::write(folder.join("bundle.pem"), pem::certificate(&root.der())).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn replaced_files_are_used_live_and_mismatching_ones_are_not() {
        let bench = Bench::start("", |folder, root| write(folder, &root.day_svid(ORDERS), root));
        eventually(Duration::from_secs(1), "the first", || bench.shown().is_some()).await;
        let (first, second) = (bench.shown().unwrap(), bench.root.day_svid(ORDERS));

        fs::write(bench.folder.path().join("svid.pem"), second.chain_pem()).unwrap();
        let complains = || bench.error().contains("key does not belong");
        eventually(Duration::from_secs(3), "the mismatch", complains).await;
        assert_eq!(bench.shown().unwrap().chain(), first.chain(), "the last good stays");

        let key = second.key_pem();
        fs::write(bench.folder.path().join("key.pem"), &key[..key.len() / 2]).unwrap();
        tokio::time::sleep(POLL * 2).await;
        assert_eq!(bench.shown().unwrap().chain(), first.chain(), "half a key is no key");

        fs::write(bench.folder.path().join("key.pem"), &*key).unwrap();
        bench.until_shown(&second).await;
        assert_eq!(bench.error(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_kubernetes_volume_swap_is_seen() {
        let bench = Bench::start("..data", |folder, root| {
            fs::create_dir(folder.join("v1")).unwrap();
            write(&folder.join("v1"), &root.day_svid(ORDERS), root);
            symlink("v1", folder.join("..data")).unwrap();
        });
        eventually(Duration::from_secs(1), "the first", || bench.shown().is_some()).await;
        let (folder, second) = (bench.folder.path(), bench.root.day_svid(ORDERS));
        fs::create_dir(folder.join("v2")).unwrap();
        write(&folder.join("v2"), &second, &bench.root);
        symlink("v2", folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        bench.until_shown(&second).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_certificate_that_no_peer_would_believe_is_not_used() {
        let (good, foreign) = (Root::new("root"), Root::new("another root"));
        let before = epoch() - Duration::from_secs(7200);
        let id = |text: &str| SpiffeId::parse(text).unwrap();
        let expired = good.svid(&id(ORDERS), before, epoch() - Duration::from_secs(1));
        let abroad = good.day_svid("spiffe://other.mesh/orders");
        let cases = [
            (foreign.day_svid(ORDERS), "not issued by a root"),
            (expired, "expired"),
            (abroad, "our trust domain is test.mesh"),
        ];
        for (svid, complaint) in cases {
            let bench = Bench::start("", |folder, _| write(folder, &svid, &good));
            eventually(Duration::from_secs(1), complaint, || bench.error().contains(complaint)).await;
            assert!(bench.shown().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_come_late_are_picked_up() {
        let bench = Bench::start("late", |_, _| {});
        eventually(Duration::from_secs(1), "a complaint", || bench.error().contains("svid.pem")).await;
        let (late, svid) = (bench.folder.path().join("late"), bench.root.day_svid(ORDERS));
        fs::create_dir(&late).unwrap();
        write(&late, &svid, &bench.root);
        bench.until_shown(&svid).await;
    }
}
