//! Bundles of other trust domains that outlive a restart: `federation/<trust domain>.json` in the state folder.
//!
//! A restart while an endpoint is away goes on with what it gave last. What a file of ours says needs no copy: only what
//! endpoints gave is kept, with which endpoint it was.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use outrider_certs::{
    spiffe_id::TrustDomain,
    trust_bundle::{self, TrustBundle},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::store::{self, Store};

/// The folder in the state folder.
const FOLDER: &str = "federation";
/// How names of files end.
const SUFFIX: &str = ".json";

/// Why a bundle cannot be kept or read back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The folder or file.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The file is not one that we wrote.
    #[error("the kept bundle of {0}: {1}")]
    Json(TrustDomain, serde_json::Error),
    /// The bundle in it cannot be used.
    #[error("the kept bundle of {0}: {1}")]
    Bundle(TrustDomain, trust_bundle::Error),
}

/// A bundle with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) bundle: TrustBundle,
    /// The endpoint that gave it, as [`FederatedDomain::source`](crate::model::federation::FederatedDomain::source).
    pub(super) source: String,
    /// Of the domain's `bundle_file` as it was then.
    pub(super) file_sha256: Option<String>,
    /// When the endpoint last said so, in whole seconds.
    pub(super) confirmed_at: SystemTime,
}

#[derive(Serialize, Deserialize)]
struct Document {
    source: String,
    file_sha256: Option<String>,
    confirmed_at: u64,
    bundle: Value,
}

/// The folder; nothing is made before something is kept.
#[derive(Clone, Debug)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// That of a state folder.
    pub(super) fn of(state_dir: &Path) -> Self {
        Self(state_dir.to_owned())
    }

    /// What was kept of that domain.
    ///
    /// # Errors
    /// When something is there that cannot be used.
    pub(super) fn load(&self, trust_domain: &TrustDomain) -> Result<Option<Kept>, Error> {
        if !self.path().is_dir() {
            return Ok(None);
        }
        let Some(text) = self.open()?.read(&file_name(trust_domain))? else { return Ok(None) };
        let json = |error| Error::Json(trust_domain.clone(), error);
        let document: Document = serde_json::from_slice(&text).map_err(json)?;
        let bundle = TrustBundle::from_jwks(trust_domain.clone(), document.bundle.to_string().as_bytes())
            .map_err(|error| Error::Bundle(trust_domain.clone(), error))?;
        // A time that no clock has shown is none.
        let confirmed_at = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(document.confirmed_at));
        Ok(Some(Kept {
            bundle,
            source: document.source,
            file_sha256: document.file_sha256,
            confirmed_at: confirmed_at.unwrap_or(SystemTime::UNIX_EPOCH),
        }))
    }

    /// Replaces what is kept of a bundle's domain.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn keep(&self, kept: &Kept) -> Result<(), Error> {
        let trust_domain = kept.bundle.trust_domain();
        let json = |error| Error::Json(trust_domain.clone(), error);
        let since_epoch = kept.confirmed_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let document = Document {
            source: kept.source.clone(),
            file_sha256: kept.file_sha256.clone(),
            confirmed_at: since_epoch.as_secs(),
            bundle: serde_json::from_str(&kept.bundle.to_jwks()).map_err(json)?,
        };
        let text = serde_json::to_vec(&document).map_err(json)?;
        Ok(self.open()?.write(&file_name(trust_domain), &text)?)
    }

    /// Removes what is kept of domains that are not listed any more (SPIFFE Federation §6.3).
    ///
    /// # Errors
    /// When the folder cannot be read, or a file not be removed.
    pub(super) fn retain(&self, is_listed: impl Fn(&str) -> bool) -> io::Result<()> {
        let entries = match fs::read_dir(self.path()) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let domain = name.to_str().and_then(|name| name.strip_suffix(SUFFIX));
            if domain.is_some_and(|domain| !is_listed(domain)) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.0.join(FOLDER)
    }

    fn open(&self) -> Result<Store, Error> {
        Store::open(&self.0)?;
        Ok(Store::open(&self.path())?)
    }
}

/// Trust domains are of lower-case letters, digits, `.`, `-` and `_` (SPIFFE-ID §2.1), so that none leads elsewhere.
fn file_name(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}{SUFFIX}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;
    use crate::identity::testing::{Root, bundle, domain, epoch};

    fn kept(root: &Root) -> Kept {
        Kept {
            bundle: bundle(&[root], 7),
            source: "https://a/ (https_web)".to_owned(),
            file_sha256: Some("00ff".to_owned()),
            confirmed_at: epoch(),
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_is_ours_alone() {
        let (dir, root) = (TempDir::new().unwrap(), Root::new("root"));
        let state = dir.path().join("state");
        let folder = Folder::of(&state);
        assert_eq!(folder.load(&domain()).unwrap(), None);
        assert!(!state.exists(), "a look makes nothing");
        folder.keep(&kept(&root)).unwrap();
        assert_eq!(folder.load(&domain()).unwrap(), Some(kept(&root)));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let file = state.join("federation/test.mesh.json");
        assert_eq!((mode(&state), mode(&state.join("federation")), mode(&file)), (0o700, 0o700, 0o600));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(folder.load(&domain()), Err(Error::Store(store::Error::Exposed { .. }))));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let (dir, root) = (TempDir::new().unwrap(), Root::new("root"));
        let folder = Folder::of(dir.path());
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        folder.keep(&kept(&root)).unwrap();
        let file = dir.path().join("federation/test.mesh.json");
        fs::write(&file, "{").unwrap();
        assert!(matches!(folder.load(&domain()), Err(Error::Json(..))));
        fs::write(&file, r#"{"source":"","confirmed_at":18446744073709551615,"bundle":{}}"#).unwrap();
        assert!(matches!(folder.load(&domain()), Err(Error::Bundle(..))));
        fs::write(&file, r#"{"source":"","confirmed_at":18446744073709551615,"bundle":{"keys":[]}}"#)
            .unwrap();
        assert!(folder.load(&domain()).unwrap().is_some());
    }

    #[test]
    fn what_is_not_listed_any_more_is_removed() {
        let (dir, root) = (TempDir::new().unwrap(), Root::new("root"));
        let folder = Folder::of(&dir.path().join("state"));
        folder.retain(|_| false).unwrap();
        folder.keep(&kept(&root)).unwrap();
        folder.retain(|domain| domain == "test.mesh").unwrap();
        assert!(folder.load(&domain()).unwrap().is_some());
        folder.retain(|_| false).unwrap();
        assert!(folder.load(&domain()).unwrap().is_none());
    }
}
