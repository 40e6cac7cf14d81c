//! What outlives a restart: certificate, key and trust bundle in the state folder.
//!
//! ```text
//!   svid_key.next.pem   written before the CA is asked, so that a folder that cannot be written costs no token
//!   svid.pem            written when the CA has answered
//!   svid_key.pem        the next key, renamed: a crash before this leaves a pair that load() puts together
//!   bundle.json         SPIFFE bundle (JWKS), with its sequence
//! ```
//!
//! # Invariants
//! - The folder is ours alone (0700), files are 0600; anything wider is refused, not repaired: a key that others could
//!   read may be known to them.
//! - Every file is replaced whole (temporary file, fsync, rename, fsync of the folder).
//! - Two sidecars may share the folder while one replaces the other: certificate and keys, which belong together, change
//!   under a lock. The bundle is one file and needs none: whoever reads it finds one bundle whole, and a restart asks
//!   for a newer one at once.
//!
//! Calls block for a few milliseconds (fsync); only the control runtime makes them, a few times a day.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use outrider_certs::{
    files::{self, NotPrivate},
    spiffe_id::TrustDomain,
    svid::{self, X509Svid},
    trust_bundle::{self, TrustBundle},
};
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};

const CERTIFICATE: &str = "svid.pem";
const KEY: &str = "svid_key.pem";
const NEXT_KEY: &str = "svid_key.next.pem";
const BUNDLE: &str = "bundle.json";
/// Permission bits of group and others.
const OTHERS: u32 = 0o077;
/// How often, and how far apart, the lock is tried: half a second in all.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Largest file that is read, in bytes; the largest valid bundle fits.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// Why something cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else could read what is in there.
    #[error("{path} can be read by others (mode {mode:o}): make it private with `chmod {wanted} {path}`", path = path.display())]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: &'static str,
    },
    /// Another user can put files of their own in there.
    #[error("{path} belongs to user {owner}: give it away with `chown {own} {path}`, or set another `state_dir`", path = .path.display(), own = rustix::process::geteuid().as_raw())]
    Foreign {
        /// The folder.
        path: PathBuf,
        /// Its owner's number.
        owner: u32,
    },
    /// The operating system said no.
    #[error("{doing} {path}: {source}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Another process holds the folder's lock and does not let go.
    #[error("{path} is locked by another process", path = .0.display())]
    Busy(PathBuf),
    /// Larger than anything we write.
    #[error("{path} is larger than {MAX_FILE_BYTES} bytes", path = .0.display())]
    TooLarge(PathBuf),
    /// Certificate and key do not make an SVID.
    #[error("the kept certificate: {0}")]
    Svid(#[from] svid::Error),
    /// The bundle cannot be read.
    #[error("the kept trust bundle: {0}")]
    Bundle(#[from] trust_bundle::Error),
}

/// What a restart finds.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Certificate and key; may have expired.
    pub svid: X509Svid,
    /// The bundle of our trust domain.
    pub bundle: TrustBundle,
}

/// The state folder.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// Opens the folder, making it if it is not there.
    ///
    /// # Errors
    /// [`Error::Exposed`] if group or others may enter it, [`Error::Foreign`] if it is another user's, [`Error::Io`] if
    /// it cannot be made or looked at.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = || folder.to_path_buf();
        let io = |doing| move |source| Error::Io { doing, path: path(), source };
        files::make_folder(folder).map_err(io("creating the folder"))?;
        match files::check_private(folder).map_err(io("looking at the folder"))? {
            None => Ok(Self { folder: path() }),
            Some(NotPrivate::Mode(mode)) => Err(Error::Exposed { path: path(), mode, wanted: "700" }),
            Some(NotPrivate::Owner(owner)) => Err(Error::Foreign { path: path(), owner }),
            Some(NotPrivate::NotAFolder) => {
                Err(io("looking at the folder")(io::ErrorKind::NotADirectory.into()))
            }
        }
    }

    /// Reads back what was kept; `None` if there is nothing, or not all of it.
    ///
    /// # Errors
    /// When something is there that cannot be used.
    pub fn load(&self, trust_domain: &TrustDomain) -> Result<Option<Kept>, Error> {
        let _lock = self.lock()?;
        let (Some(chain), Some(bundle)) = (self.read(CERTIFICATE)?, self.read(BUNDLE)?) else {
            return Ok(None);
        };
        let bundle = TrustBundle::from_jwks(trust_domain.clone(), &bundle)?;
        let mut result = Ok(None);
        for name in [KEY, NEXT_KEY] {
            let Some(key) = self.read(name)? else { continue };
            match X509Svid::from_pem(&chain, &key) {
                Ok(svid) => {
                    if name == NEXT_KEY {
                        // A crash came between the certificate and its key: finish what it interrupted.
                        self.rename(NEXT_KEY, KEY)?;
                    }
                    return Ok(Some(Kept { svid, bundle }));
                }
                // The first key's fault is the one to tell of.
                Err(error) => result = result.and(Err(error.into())),
            }
        }
        result
    }

    /// Writes a key that is about to be certified. Done before a join token is spent: a folder that cannot be written
    /// must be noticed while the token is still good.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_next_key(&self, key_pem: &str) -> Result<(), Error> {
        // Another sidecar may be about to rename its own to the key in use.
        let _lock = self.lock()?;
        self.write(NEXT_KEY, key_pem.as_bytes())
    }

    /// Replaces certificate and key.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_svid(&self, svid: &X509Svid) -> Result<(), Error> {
        let _lock = self.lock()?;
        // Again, because another sidecar may have put its own there since.
        self.write(NEXT_KEY, svid.key_pem().as_bytes())?;
        self.write(CERTIFICATE, svid.chain_pem().as_bytes())?;
        self.rename(NEXT_KEY, KEY)
    }

    /// Replaces the bundle.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_bundle(&self, bundle: &TrustBundle) -> Result<(), Error> {
        self.write(BUNDLE, bundle.to_jwks().as_bytes())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Excludes other processes until the file is dropped. They hold it for milliseconds.
    fn lock(&self) -> Result<File, Error> {
        let io = |source| Error::Io { doing: "locking", path: self.folder.clone(), source };
        let folder = File::open(&self.folder).map_err(io)?;
        for _ in 0..LOCK_TRIES {
            match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(folder),
                Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
                Err(error) => return Err(io(error.into())),
            }
        }
        Err(Error::Busy(self.folder.clone()))
    }

    /// What a file of the folder holds; `None` if it is not there.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or others could read it.
    pub(super) fn read(&self, name: &str) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, Error> {
        let path = self.path(name);
        let io = |source| Error::Io { doing: "reading", path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        check_mode(&path, &file.metadata().map_err(io)?)?;
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::TooLarge(path));
        }
        Ok(Some(bytes))
    }

    /// Replaces a file of the folder as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        files::write_atomically(&path, bytes).map_err(|source| Error::Io { doing: "writing", path, source })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let path = self.path(to);
        fs::rename(self.path(from), &path)
            .and_then(|()| files::flush_folder(&self.folder))
            .map_err(|source| Error::Io { doing: "replacing", path, source })
    }
}

/// A key file that others can read is refused. The folder's owner is ours, so is what stands in it.
fn check_mode(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & OTHERS == 0 {
        return Ok(());
    }
    Err(Error::Exposed { path: path.to_path_buf(), mode, wanted: "600" })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::identity::testing::{ORDERS, Root, bundle, domain};

    fn store(folder: &TempDir) -> Store {
        Store::open(&folder.path().join("state")).unwrap()
    }

    #[test]
    fn what_was_kept_is_read_back() {
        let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
        let store = store(&folder);
        assert!(store.load(&domain()).unwrap().is_none());
        let (svid, bundle) = (root.day_svid(ORDERS), bundle(&[&root], 3));
        store.keep_svid(&svid).unwrap();
        assert!(store.load(&domain()).unwrap().is_none(), "a certificate without a bundle is no use");
        store.keep_bundle(&bundle).unwrap();
        let kept = store.load(&domain()).unwrap().unwrap();
        assert_eq!(kept.svid.chain(), svid.chain());
        assert_eq!(kept.svid.key().secret_der(), svid.key().secret_der());
        assert_eq!(kept.bundle, bundle);
    }

    #[test]
    fn a_crash_between_certificate_and_key_loses_neither() {
        let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
        let store = store(&folder);
        store.keep_bundle(&bundle(&[&root], 3)).unwrap();
        store.keep_svid(&root.day_svid(ORDERS)).unwrap();
        // As keep_svid, up to the crash before its last step.
        let next = root.day_svid(ORDERS);
        store.keep_next_key(&next.key_pem()).unwrap();
        store.write(CERTIFICATE, next.chain_pem().as_bytes()).unwrap();

        assert_eq!(store.load(&domain()).unwrap().unwrap().svid.chain(), next.chain());
        assert!(!store.path(NEXT_KEY).exists(), "what was interrupted is finished");
        assert_eq!(store.load(&domain()).unwrap().unwrap().svid.chain(), next.chain());
    }

    #[test]
    fn a_next_key_without_its_certificate_changes_nothing() {
        let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
        let store = store(&folder);
        store.keep_bundle(&bundle(&[&root], 3)).unwrap();
        let svid = root.day_svid(ORDERS);
        store.keep_svid(&svid).unwrap();
        store.keep_next_key(&root.day_svid(ORDERS).key_pem()).unwrap();
        assert_eq!(store.load(&domain()).unwrap().unwrap().svid.chain(), svid.chain());
    }

    #[test]
    fn a_folder_or_key_that_others_can_read_is_refused() {
        let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
        let store = store(&folder);
        store.keep_bundle(&bundle(&[&root], 3)).unwrap();
        store.keep_svid(&root.day_svid(ORDERS)).unwrap();
        let widen = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        widen(&store.path(KEY), 0o640);
        assert!(matches!(store.load(&domain()), Err(Error::Exposed { mode: 0o640, .. })));
        widen(&store.folder, 0o750);
        assert!(matches!(Store::open(&store.folder), Err(Error::Exposed { mode: 0o750, .. })));
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let of_root = Path::new("/proc/1");
        let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(of_root).unwrap());
        if owner == rustix::process::geteuid().as_raw() {
            // As root, anybody else's will do. The only user of a user namespace has nobody to give a folder to; `files`
            // has a test of the rule that needs nobody.
            let folder = TempDir::new().unwrap();
            let store = store(&folder);
            if std::os::unix::fs::chown(&store.folder, Some(65534), None).is_ok() {
                assert!(matches!(Store::open(&store.folder), Err(Error::Foreign { owner: 65534, .. })));
            }
            return;
        }
        assert!(matches!(Store::open(of_root), Err(Error::Foreign { owner: found, .. }) if found == owner));
    }

    #[test]
    fn a_lock_that_is_never_released_is_an_error_not_a_hang() {
        let folder = TempDir::new().unwrap();
        let store = store(&folder);
        let held = store.lock().unwrap();
        assert!(matches!(store.load(&domain()), Err(Error::Busy(_))));
        assert!(matches!(store.keep_next_key("key"), Err(Error::Busy(_))));
        drop(held);
        assert!(store.load(&domain()).unwrap().is_none());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_not_a_panic() {
        let (folder, root) = (TempDir::new().unwrap(), Root::new("root"));
        let store = store(&folder);
        store.keep_bundle(&bundle(&[&root], 3)).unwrap();
        store.keep_svid(&root.day_svid(ORDERS)).unwrap();
        store.write(CERTIFICATE, root.day_svid(ORDERS).chain_pem().as_bytes()).unwrap();
        assert!(matches!(store.load(&domain()), Err(Error::Svid(svid::Error::KeyMismatch(_)))));
        store.write(CERTIFICATE, b"half of a certi").unwrap();
        assert!(matches!(store.load(&domain()), Err(Error::Svid(_))));
        store.write(BUNDLE, b"{").unwrap();
        assert!(matches!(store.load(&domain()), Err(Error::Bundle(_))));
        store.write(BUNDLE, &vec![b' '; 300 * 1024]).unwrap();
        assert!(matches!(store.load(&domain()), Err(Error::TooLarge(_))));
    }
}
