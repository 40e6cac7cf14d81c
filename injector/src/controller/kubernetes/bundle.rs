//! The ConfigMap `outrider-trust-bundle` in every namespace with the mesh: by it a new pod's sidecar believes the CA.
//!
//! All replicas watch it; the leader writes, and only what differs. Nobody removes one: a pod that still runs may need it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures_util::{Stream, StreamExt as _};
use kube::{
    Api, Client,
    api::{ObjectMeta, Patch, PatchParams, PostParams, TypeMeta},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::{api::ApiConfigMap, watch::WATCH_SECONDS};
use crate::{
    controller::{metrics::Metrics, model::objects::Name},
    names::{BUNDLE_CONFIG_MAP, BUNDLE_FILE},
};

/// Pause after something could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// Time for one call.
const CALL: Duration = Duration::from_secs(10);

/// What is written where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// There is none.
    Create,
    /// It says something else.
    Update,
}

/// What differs: which namespaces need the bundle written.
#[must_use]
pub fn needed(
    namespaces: &BTreeSet<Name>,
    there: &BTreeMap<Name, Option<String>>,
    bundle: &str,
) -> Vec<(Name, Write)> {
    let write = |namespace: &Name| match there.get(namespace) {
        None => Some((Name::clone(namespace), Write::Create)),
        Some(text) if text.as_deref() != Some(bundle) => Some((Name::clone(namespace), Write::Update)),
        Some(_) => None,
    };
    namespaces.iter().filter_map(write).collect()
}

/// What the writer goes by.
pub struct Inputs {
    /// Whether we are the one who writes.
    pub leads: watch::Receiver<bool>,
    /// The roots, in PEM; `None`: not known yet.
    pub bundle: watch::Receiver<Option<Arc<str>>>,
    /// The namespaces with the mesh; `None`: not known yet.
    pub namespaces: watch::Receiver<Option<Arc<BTreeSet<Name>>>>,
    /// Counts what is written.
    pub metrics: Arc<Metrics>,
}

/// Keeps the ConfigMaps current for ever.
pub async fn run(client: Client, mut inputs: Inputs) {
    let mut there: BTreeMap<Name, Option<String>> = BTreeMap::new();
    let (mut listed, mut is_known) = (BTreeSet::new(), false);
    let mut events = Box::pin(events(client.clone()));
    let again = Notify::new();
    loop {
        let is_due = tokio::select! {
            event = events.next() => event.map(|event| take(event, &mut there, &mut listed, &mut is_known)),
            changed = inputs.leads.changed() => changed.ok().map(|()| true),
            changed = inputs.bundle.changed() => changed.ok().map(|()| true),
            changed = inputs.namespaces.changed() => changed.ok().map(|()| true),
            () = again.notified() => {
                tokio::time::sleep(RETRY).await;
                Some(true)
            }
        };
        // Whoever told us is gone.
        let Some(is_due) = is_due else { return };
        let leads = *inputs.leads.borrow_and_update();
        let bundle = inputs.bundle.borrow_and_update().clone();
        let namespaces = inputs.namespaces.borrow_and_update().clone();
        let (Some(bundle), Some(namespaces)) = (bundle, namespaces) else { continue };
        if !(is_due && is_known && leads) {
            continue;
        }
        for (namespace, write) in needed(&namespaces, &there, &bundle) {
            if !*inputs.leads.borrow() {
                break;
            }
            if write_one(&client, &namespace, write, &bundle, &inputs.metrics).await {
                there.insert(namespace, Some(bundle.to_string()));
            } else {
                again.notify_one();
            }
        }
    }
}

fn events(client: Client) -> impl Stream<Item = watcher::Result<watcher::Event<ApiConfigMap>>> {
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={BUNDLE_CONFIG_MAP}"))
        .timeout(WATCH_SECONDS);
    watcher(Api::<ApiConfigMap>::all(client), config).default_backoff()
}

/// Notes an event. Whether it is time to look at what differs.
fn take(
    event: watcher::Result<watcher::Event<ApiConfigMap>>,
    there: &mut BTreeMap<Name, Option<String>>,
    listed: &mut BTreeSet<Name>,
    is_known: &mut bool,
) -> bool {
    let namespace =
        |object: &ApiConfigMap| Name::from(object.metadata.namespace.as_deref().unwrap_or_default());
    let text = |mut object: ApiConfigMap| object.data.remove(BUNDLE_FILE);
    match event {
        Ok(watcher::Event::Init) => {
            listed.clear();
            return false;
        }
        Ok(watcher::Event::InitApply(object)) => {
            listed.insert(namespace(&object));
            there.insert(namespace(&object), text(object));
            return false;
        }
        Ok(watcher::Event::InitDone) => {
            there.retain(|namespace, _| listed.contains(namespace));
            *is_known = true;
        }
        Ok(watcher::Event::Apply(object)) => drop(there.insert(namespace(&object), text(object))),
        Ok(watcher::Event::Delete(object)) => drop(there.remove(&namespace(&object))),
        Err(error) => {
            tracing::debug!(%error, "watching the trust bundle's ConfigMaps failed");
            return false;
        }
    }
    true
}

/// Whether it was written, or somebody else did.
async fn write_one(client: &Client, namespace: &str, write: Write, bundle: &str, metrics: &Metrics) -> bool {
    let api: Api<ApiConfigMap> = Api::namespaced(client.clone(), namespace);
    let wrote = tokio::time::timeout(CALL, async {
        match write {
            Write::Create => {
                let types = Some(TypeMeta::resource::<ApiConfigMap>());
                let name = Some(BUNDLE_CONFIG_MAP.to_owned());
                let metadata = ObjectMeta { name, ..ObjectMeta::default() };
                let data = BTreeMap::from([(BUNDLE_FILE.to_owned(), bundle.to_owned())]);
                api.create(&PostParams::default(), &ApiConfigMap { types, metadata, data }).await
            }
            Write::Update => {
                let patch = Patch::Merge(json!({"data": {BUNDLE_FILE: bundle}}));
                api.patch(BUNDLE_CONFIG_MAP, &PatchParams::default(), &patch).await
            }
        }
    });
    match wrote.await {
        Ok(Ok(_)) => {
            metrics.bundles_written.inc();
            tracing::info!(namespace, ?write, "the trust bundle was written");
            true
        }
        // Somebody was first; the watch tells what it says now.
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => false,
        Ok(Err(error)) => {
            metrics.bundle_errors.inc();
            tracing::warn!(namespace, %error, "the trust bundle could not be written");
            false
        }
        Err(_elapsed) => {
            metrics.bundle_errors.inc();
            tracing::warn!(namespace, "the trust bundle could not be written in time");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_written() {
        let namespaces = ["new", "old", "same", "keyless"].map(Name::from).into();
        let there = [
            ("old", Some("before")),
            ("same", Some("now")),
            ("keyless", None),
            ("elsewhere", Some("before")),
        ];
        let there = there.map(|(name, text)| (Name::from(name), text.map(str::to_owned))).into();
        let needed = needed(&namespaces, &there, "now");
        let shown: Vec<_> = needed.iter().map(|(name, write)| (&**name, *write)).collect();
        assert_eq!(shown, [("keyless", Write::Update), ("new", Write::Create), ("old", Write::Update)]);
    }
}
