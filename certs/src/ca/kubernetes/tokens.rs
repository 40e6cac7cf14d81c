//! Join tokens as Secrets: one each, used up by deleting just what was read.
//!
//! The API server lets one of two deletes with the same UID and version
//! succeed, whichever replica they come from.

use std::collections::BTreeMap;
use std::time::SystemTime;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use tokio::runtime::Handle;

use super::{Failed, call};
use crate::ca::tokens::{Error, Grant, MAX_TOKENS, StoredToken, TokenStore};
use crate::join_token::{Credential, TokenId};

/// How their Secrets are found.
const LABEL: (&str, &str) = ("outrider.io/secret", "join-token");
/// The key that the token is under.
const KEY: &str = "token.json";
/// The type of their Secrets.
const TYPE: &str = "outrider.io/join-token";
/// Secrets in one answer.
const PAGE: u32 = 500;

/// The Secrets of one namespace. Its functions block, and must not be called
/// on a thread of the runtime.
pub(super) struct SecretTokens {
    secrets: Api<Secret>,
    runtime: Handle,
}

impl SecretTokens {
    pub(super) fn new(secrets: Api<Secret>, runtime: Handle) -> Self {
        Self { secrets, runtime }
    }

    async fn swept(&self, now: SystemTime) -> Result<usize, Error> {
        let (mut left, mut params) =
            (0, ListParams::default().labels(&[LABEL.0, LABEL.1].join("=")).limit(PAGE));
        loop {
            let found = call(self.secrets.list(&params)).await.map_err(failed)?;
            for secret in &found.items {
                // What cannot be read is not ours to judge; it counts, so that somebody looks.
                if stored(secret).is_ok_and(|token| token.is_old(now)) {
                    let name = secret.metadata.name.as_deref().unwrap_or_default();
                    match call(self.secrets.delete(name, &exactly(version(secret)))).await {
                        Ok(_) | Err(Failed::NotFound | Failed::Conflict) => {}
                        Err(other) => return Err(failed(other)),
                    }
                } else {
                    left += 1;
                }
            }
            match found.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) if left <= MAX_TOKENS => params = params.continue_token(&next),
                _ => return Ok(left),
            }
        }
    }
}

impl TokenStore for SecretTokens {
    fn add(&self, credential: &Credential, token: &StoredToken, now: SystemTime) -> Result<(), Error> {
        let text = serde_json::to_vec(token).map_err(|e| Error::Api(e.to_string()))?;
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name(credential.id())),
                labels: Some(BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some(TYPE.to_owned()),
            immutable: Some(true),
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(text))])),
            ..Secret::default()
        };
        self.runtime.block_on(async {
            if self.swept(now).await? >= MAX_TOKENS {
                return Err(Error::TooMany);
            }
            call(self.secrets.create(&PostParams::default(), &secret)).await.map(drop).map_err(failed)
        })
    }

    fn check(&self, credential: &Credential, now: SystemTime) -> Result<Grant, Error> {
        let secret = self.runtime.block_on(call(self.secrets.get(&name(credential.id()))));
        let secret = match secret {
            Ok(secret) => secret,
            // Used up, most likely; that cannot be told from never made.
            Err(Failed::NotFound) => return Err(Error::Unknown),
            Err(other) => return Err(failed(other)),
        };
        let grant = stored(&secret)?.grant(credential, false, now)?;
        Ok(Grant { version: version(&secret), ..grant })
    }

    fn use_up(&self, grant: &Grant) -> Result<(), Error> {
        let params = exactly(grant.version.clone());
        match self.runtime.block_on(call(self.secrets.delete(&name(grant.id), &params))) {
            Ok(_) => Ok(()),
            // Another request with the same token was faster.
            Err(Failed::NotFound | Failed::Conflict) => Err(Error::Used),
            // It may have been deleted all the same; then it is lost, never used twice.
            Err(other) => Err(failed(other)),
        }
    }

    fn sweep(&self, now: SystemTime) -> Result<usize, Error> {
        self.runtime.block_on(self.swept(now))
    }
}

fn name(id: TokenId) -> String {
    // An ID prints as hexadecimal digits: a good name.
    format!("outrider-join-token-{id}")
}

fn stored(secret: &Secret) -> Result<StoredToken, Error> {
    let data = secret.data.as_ref().and_then(|data| data.get(KEY));
    let text = data.ok_or_else(|| Error::Api(format!("a join token's Secret has no {KEY}")))?;
    serde_json::from_slice(&text.0).map_err(|_| Error::Api("a join token's Secret is damaged".to_owned()))
}

/// UID and version of what was read.
fn version(secret: &Secret) -> Option<(String, String)> {
    secret.metadata.uid.clone().zip(secret.metadata.resource_version.clone())
}

/// Deletes only what was read.
fn exactly(version: Option<(String, String)>) -> DeleteParams {
    let (uid, resource_version) = version.unzip();
    DeleteParams::default().preconditions(Preconditions { uid, resource_version })
}

fn failed(failed: Failed) -> Error {
    Error::Api(failed.to_string())
}
