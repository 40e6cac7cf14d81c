//! The Secret with the CA's roots and keys: the content of the folder's
//! `ca.json` under that key.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::StreamExt as _;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch;
use zeroize::Zeroize as _;

use super::{Cluster, Failed, WATCH_SECONDS, call};
use crate::ca::state::{self, CaState, Error, MAX_STATE_BYTES, NewCa, STATE_FILE};

/// How often a place is looked at that others write to at the same time.
const ATTEMPTS: usize = 5;

/// The CA in the Secret; `None` where there is no Secret, or nothing in it.
pub(super) async fn read(cluster: &Cluster) -> Result<Option<CaState>, Error> {
    match call(cluster.secrets().get(&cluster.secret)).await {
        Ok(mut secret) => parse(cluster, &mut secret),
        Err(Failed::NotFound) => Ok(None),
        Err(failed) => Err(unread(cluster, &failed)),
    }
}

/// The CA in the Secret. Where there is none, one is made and written, unless
/// somebody else was faster: then theirs counts.
pub(super) async fn read_or_create(
    cluster: &Cluster,
    new: &NewCa,
    now: SystemTime,
) -> Result<CaState, Error> {
    let mut failed = Failed::Conflict;
    for _ in 0..ATTEMPTS {
        let empty = match call(cluster.secrets().get(&cluster.secret)).await {
            Ok(mut secret) => match parse(cluster, &mut secret)? {
                Some(state) => return Ok(state),
                None => Some(secret),
            },
            Err(Failed::NotFound) => None,
            Err(failed) => return Err(unread(cluster, &failed)),
        };
        let is_first = empty.is_none();
        match Box::pin(write(cluster, empty, new, now)).await? {
            Ok(()) => {
                tracing::info!(trust_domain = %new.trust_domain, place = %cluster.place().display(), "made a new CA");
            }
            Err(Failed::NotFound) if is_first => {
                let reason =
                    format!("there is no namespace {}: make it first, or name another", cluster.namespace);
                return Err(Error::Api { place: cluster.place(), reason });
            }
            // Read what is there now.
            Err(Failed::Conflict | Failed::NotFound) => {}
            Err(other) => failed = other,
        }
    }
    Err(unread(cluster, &failed))
}

/// Makes a CA and writes it: into `empty` if that is still as it was read,
/// else as a new Secret.
async fn write(
    cluster: &Cluster,
    empty: Option<Secret>,
    new: &NewCa,
    now: SystemTime,
) -> Result<Result<(), Failed>, Error> {
    let text = state::new_state(new, now)?;
    let data = BTreeMap::from([(STATE_FILE.to_owned(), ByteString(text.to_vec()))]);
    let secrets = cluster.secrets();
    let post = PostParams::default();
    let mut secret = empty.clone().unwrap_or_default();
    secret.data.get_or_insert_default().extend(data);
    let written = if empty.is_some() {
        // With the version that was read: another replica's keys are never overwritten.
        call(secrets.replace(&cluster.secret, &post, &secret)).await
    } else {
        secret.metadata = ObjectMeta { name: Some(cluster.secret.clone()), ..ObjectMeta::default() };
        call(secrets.create(&post, &secret)).await
    };
    forget(&mut secret);
    Ok(written.map(|mut secret| forget(&mut secret)))
}

/// Follows the Secret for ever.
pub(super) async fn follow(cluster: &Cluster, to: &watch::Sender<Arc<CaState>>) {
    let only = watcher::Config::default()
        .fields(&format!("metadata.name={}", cluster.secret))
        .timeout(WATCH_SECONDS);
    let events = watcher(cluster.secrets(), only).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) => {
                take(cluster, secret, to)
            }
            Ok(watcher::Event::Delete(mut secret)) => {
                forget(&mut secret);
                let place = cluster.place();
                tracing::error!(
                    place = %place.display(),
                    "the CA's keys were deleted; this replica goes on with those it has, and a restart will make others"
                );
            }
            Ok(watcher::Event::Init | watcher::Event::InitDone) => {}
            Err(error) => {
                tracing::warn!(place = %cluster.place().display(), %error, "cannot be followed; what was read stays in use");
            }
        }
    }
}

/// Takes over what the Secret holds, if it is another CA state than the one in
/// use.
fn take(cluster: &Cluster, mut secret: Secret, to: &watch::Sender<Arc<CaState>>) {
    let place = cluster.place();
    match parse(cluster, &mut secret) {
        Ok(Some(new)) => {
            let old = Arc::clone(&to.borrow());
            if new.trust_domain() != old.trust_domain() {
                tracing::error!(place = %place.display(), domain = %new.trust_domain(), "is of another trust domain; it is not taken");
            } else if new.bundle() != old.bundle() || new.root() != old.root() {
                let (from, sequence) = (old.bundle().sequence(), new.bundle().sequence());
                if sequence <= from {
                    tracing::warn!(
                        from,
                        to = sequence,
                        "the CA's roots were replaced by others that are not newer"
                    );
                }
                tracing::info!(sequence, roots = new.bundle().roots().len(), "the CA's roots have changed");
                to.send_replace(Arc::new(new));
            }
        }
        Ok(None) => {
            tracing::error!(place = %place.display(), "is empty; this replica goes on with the keys it has");
        }
        Err(error) => tracing::error!(%error, "this replica goes on with the keys it has"),
    }
}

/// Reads and forgets what a Secret holds.
fn parse(cluster: &Cluster, secret: &mut Secret) -> Result<Option<CaState>, Error> {
    let place = cluster.place();
    let text = secret.data.as_mut().and_then(|data| data.remove(STATE_FILE));
    let Some(mut text) = text.filter(|text| !text.0.is_empty()) else { return Ok(None) };
    let size = text.0.len();
    let parsed = if u64::try_from(size).is_ok_and(|size| size <= MAX_STATE_BYTES) {
        CaState::read(&text.0, &place, cluster.stores.clone())
    } else {
        Err(state::damaged(&place, format!("{STATE_FILE} has {size} bytes")))
    };
    text.0.zeroize();
    parsed.map(Some)
}

fn forget(secret: &mut Secret) {
    for text in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        text.0.zeroize();
    }
}

fn unread(cluster: &Cluster, failed: &Failed) -> Error {
    Error::Api { place: cluster.place(), reason: failed.to_string() }
}
