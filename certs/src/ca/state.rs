//! The CA's state, and the folder it is kept in.
//!
//! ```text
//! DIR/                0700
//!   ca.json           0600  trust domain, bundle sequence, roots with keys
//!   tokens/           0700  one file per join token, see `tokens`
//!   issued.jsonl      0600  every certificate signed, see `log`
//! ```
//!
//! One file holds all that a change of roots changes, so each change is one
//! rename. The first root signs; the others are only published.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use super::issue::{self, SigningRoot};
use super::log::IssuanceLog;
use super::tokens::TokenStore;
use super::tokens::folder::FolderTokens;
use crate::certificate::{LeafError, Validity, parse, spki_sha256};
use crate::files::{self, NotPrivate};
use crate::spiffe_id::TrustDomain;
use crate::trust_bundle::{self, TrustBundle};

pub(super) const STATE_FILE: &str = "ca.json";
const TOKEN_FOLDER: &str = "tokens";
const LOG_FILE: &str = "issued.jsonl";
/// Version of the layout that is written.
const VERSION: u32 = 1;
/// Largest state file that is read: [`trust_bundle::MAX_ROOTS`] roots fit.
pub(super) const MAX_STATE_BYTES: u64 = 256 * 1024;
/// What holders of the bundle are told about looking for a newer one, and what
/// bounds the time a removed root stays trusted (Trust Domain and Bundle §6.1
/// proposes five minutes).
const REFRESH_HINT: Duration = Duration::from_secs(5 * 60);

/// Why the state folder cannot be used. Each names the place and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("{place}: {source}")]
    Io {
        /// The file or folder.
        place: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Others than the owner have rights on the folder.
    #[error(
        "{place} can be used by others (mode {mode:04o}), but keys are kept there; run: chmod 700 {place}"
    )]
    OpenToOthers {
        /// The folder.
        place: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Another user owns the folder.
    #[error(
        "{place} belongs to user {owner}, not to the one running this; run as that user or choose another folder"
    )]
    ForeignFolder {
        /// The folder.
        place: PathBuf,
        /// The owner's number.
        owner: u32,
    },
    /// The path is not a folder.
    #[error("{place} is not a folder; choose another --dir")]
    NotAFolder {
        /// The path.
        place: PathBuf,
    },
    /// `init` found a CA there.
    #[error("{place} exists: there is a CA in this folder already; choose another --dir, or go on using it")]
    AlreadyInitialised {
        /// The state file.
        place: PathBuf,
    },
    /// There is no CA in the folder.
    #[error(
        "{place} does not exist: there is no CA in this folder; make one with: outrider-ca init --dir DIR --trust-domain NAME"
    )]
    NotInitialised {
        /// The state file.
        place: PathBuf,
    },
    /// The state file is damaged or of a newer program.
    #[error("{place} cannot be used: {reason}; restore it from a backup")]
    Damaged {
        /// The state file.
        place: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The API server did not do what was asked of it.
    #[cfg(feature = "kubernetes")]
    #[error("{place}: {reason}")]
    Api {
        /// The object.
        place: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// The state is that of another trust domain.
    #[cfg(feature = "kubernetes")]
    #[error(
        "{place} holds a CA for spiffe://{found}, not for spiffe://{wanted}; give another --trust-domain, or another place"
    )]
    OtherTrustDomain {
        /// The object.
        place: PathBuf,
        /// What it is for.
        found: TrustDomain,
        /// What was asked for.
        wanted: TrustDomain,
    },
    /// No root could be made.
    #[error("making the root: {0}")]
    Root(String),
}

/// What to make a new CA from.
#[derive(Clone, Debug)]
pub struct NewCa {
    /// The domain it signs for.
    pub trust_domain: TrustDomain,
    /// How long its root is valid.
    pub root_lifetime: Duration,
}

/// A CA's state: its roots in memory, its tokens and log where they are kept.
///
/// It never changes; other roots make another state, with the same stores.
pub struct CaState {
    bundle: TrustBundle,
    root: SigningRoot,
    root_der: CertificateDer<'static>,
    root_spki_sha256: [u8; 32],
    stores: Stores,
}

/// Where a CA keeps its join tokens and tells what it issued.
#[derive(Clone)]
pub(super) struct Stores {
    pub(super) tokens: Arc<dyn TokenStore>,
    pub(super) log: Arc<IssuanceLog>,
    /// Whether service accounts prove themselves by their own tokens, and by nothing else.
    pub(super) has_service_accounts: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateFile {
    version: u32,
    trust_domain: TrustDomain,
    /// Grows with every change of the roots.
    sequence: u64,
    /// The first signs.
    roots: Vec<RootFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RootFile {
    certificate: String,
    key: String,
}

impl Drop for RootFile {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl CaState {
    /// Makes a CA in a folder, which is made if it is missing.
    ///
    /// # Errors
    /// When there is a CA already, when the folder is not private to this
    /// user, or when it cannot be written.
    pub fn init(dir: &Path, new: &NewCa, now: SystemTime) -> Result<Self, Error> {
        files::make_folder(dir).map_err(|source| at(dir, source))?;
        check_private(dir)?;
        let tokens = dir.join(TOKEN_FOLDER);
        let place = dir.join(STATE_FILE);
        if place.exists() {
            return Err(Error::AlreadyInitialised { place });
        }
        files::make_folder(&tokens).map_err(|source| at(&tokens, source))?;
        let text = new_state(new, now)?;
        files::write_new(&place, &text).map_err(|source| {
            // Another `init` was faster.
            let is_taken = source.kind() == io::ErrorKind::AlreadyExists;
            if is_taken { Error::AlreadyInitialised { place: place.clone() } } else { at(&place, source) }
        })?;
        Self::open(dir)
    }

    /// Opens the CA in a folder.
    ///
    /// # Errors
    /// When there is none, when the folder is not private to this user, or
    /// when its content is damaged.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let place = dir.join(STATE_FILE);
        if !place.exists() {
            return Err(Error::NotInitialised { place });
        }
        check_private(dir)?;
        let size = std::fs::metadata(&place).map_err(|source| at(&place, source))?.len();
        if size > MAX_STATE_BYTES {
            return Err(damaged(&place, format!("it has {size} bytes")));
        }
        let text = Zeroizing::new(std::fs::read(&place).map_err(|source| at(&place, source))?);
        let stores = Stores {
            tokens: Arc::new(FolderTokens::new(dir.join(TOKEN_FOLDER))),
            log: Arc::new(IssuanceLog::in_file(dir.join(LOG_FILE))),
            has_service_accounts: false,
        };
        Self::read(&text, &place, stores)
    }

    /// Reads what [`new_state`] wrote, from wherever it was kept.
    pub(super) fn read(text: &[u8], place: &Path, stores: Stores) -> Result<Self, Error> {
        let file: StateFile = serde_json::from_slice(text).map_err(|e| damaged(place, e))?;
        if file.version != VERSION {
            return Err(damaged(place, format!("version {} is not {VERSION}", file.version)));
        }
        let parsed = |root: &RootFile| CertificateDer::from_pem_slice(root.certificate.as_bytes());
        let roots: Vec<_> =
            file.roots.iter().map(parsed).collect::<Result<_, _>>().map_err(|e| damaged(place, e))?;
        let first = file.roots.first().zip(roots.first()).ok_or_else(|| damaged(place, "no root"))?;
        let (root, root_der) =
            (signing_root(first.0, first.1).map_err(|e| damaged(place, e))?, first.1.clone());
        let root_spki_sha256 = spki_sha256(&root_der).map_err(|e: LeafError| damaged(place, e))?;
        let bundle = TrustBundle::new(file.trust_domain.clone(), roots, file.sequence, Some(REFRESH_HINT))
            .map_err(|e: trust_bundle::Error| damaged(place, e))?;
        Ok(Self { bundle, root, root_der, root_spki_sha256, stores })
    }

    /// The domain this CA signs for.
    pub fn trust_domain(&self) -> &TrustDomain {
        self.bundle.trust_domain()
    }

    /// The roots of the domain.
    pub fn bundle(&self) -> &TrustBundle {
        &self.bundle
    }

    /// The root that signs.
    pub fn root(&self) -> &CertificateDer<'static> {
        &self.root_der
    }

    /// SHA-256 of that root's SubjectPublicKeyInfo, as join tokens carry it.
    pub fn root_spki_sha256(&self) -> [u8; 32] {
        self.root_spki_sha256
    }

    /// When that root runs out.
    pub fn root_not_after(&self) -> SystemTime {
        self.root.not_after
    }

    pub(super) fn signing_root(&self) -> &SigningRoot {
        &self.root
    }

    pub(super) fn tokens(&self) -> &dyn TokenStore {
        &*self.stores.tokens
    }

    pub(super) fn has_service_accounts(&self) -> bool {
        self.stores.has_service_accounts
    }

    pub(super) fn log(&self) -> &IssuanceLog {
        &self.stores.log
    }
}

/// The content of `ca.json` for a new CA: one root, just made.
pub(super) fn new_state(new: &NewCa, now: SystemTime) -> Result<Zeroizing<Vec<u8>>, Error> {
    let root =
        issue::root(&new.trust_domain, now, new.root_lifetime).map_err(|e| Error::Root(e.to_string()))?;
    let file = StateFile {
        version: VERSION,
        trust_domain: new.trust_domain.clone(),
        sequence: 1,
        roots: vec![RootFile { certificate: root.certificate_pem, key: root.key.serialize_pem() }],
    };
    serde_json::to_vec_pretty(&file).map(Zeroizing::new).map_err(|e| Error::Root(e.to_string()))
}

impl std::fmt::Debug for CaState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaState").field("bundle", &self.bundle).finish_non_exhaustive()
    }
}

fn check_private(dir: &Path) -> Result<(), Error> {
    let place = dir.to_owned();
    match files::check_private(dir).map_err(|source| at(dir, source))? {
        None => Ok(()),
        Some(NotPrivate::Mode(mode)) => Err(Error::OpenToOthers { place, mode }),
        Some(NotPrivate::Owner(owner)) => Err(Error::ForeignFolder { place, owner }),
        Some(NotPrivate::NotAFolder) => Err(Error::NotAFolder { place }),
    }
}

fn signing_root(file: &RootFile, der: &CertificateDer<'_>) -> Result<SigningRoot, String> {
    let key = KeyPair::from_pem(&file.key).map_err(|e| e.to_string())?;
    let certificate = parse(der).map_err(|e| e.to_string())?;
    if rcgen::PublicKeyData::subject_public_key_info(&key) != certificate.public_key().raw {
        return Err("the root's key does not belong to its certificate".to_owned());
    }
    let Validity { not_before, not_after } = Validity::of(&certificate);
    let issuer = Issuer::from_ca_cert_der(der, key).map_err(|e| e.to_string())?;
    Ok(SigningRoot { issuer, not_before, not_after })
}

fn at(place: &Path, source: io::Error) -> Error {
    Error::Io { place: place.to_owned(), source }
}

pub(super) fn damaged(place: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Damaged { place: place.to_owned(), reason: reason.to_string() }
}
