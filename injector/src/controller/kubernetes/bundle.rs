//! The ConfigMap `outrider-trust-bundle` in every namespace with the mesh: by it a new pod's sidecar believes the CA.
//!
//! All replicas watch it; the leader writes, and only what differs. Nobody removes one: a pod that still runs may need it.
//! While the roots change, one who leads may know the newer ones later than one who led before: the sequence of what was written
//! stands in an annotation, and nobody goes back.

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
    roots::have_one_in_common,
};

/// Pause after something could not be written.
const RETRY: Duration = Duration::from_secs(5);
/// Time for one call.
const CALL: Duration = Duration::from_secs(10);

/// Annotation: the sequence of the roots that were written.
pub const SEQUENCE: &str = "outrider.io/bundle-sequence";

/// The roots that are to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// As the file has them.
    pub pem: String,
    /// Which ones: grows with each change; 0 where they are of a file, which does not say.
    pub sequence: u64,
}

/// What a ConfigMap says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Its roots, if the key is there.
    pub pem: Option<String>,
    /// Their sequence, as the annotation has it; 0 without one.
    pub sequence: u64,
}

impl Said {
    /// Whether there are newer roots than ours, of the same CA: one that was made anew begins to count anew, and has no root in
    /// common with the former.
    fn is_newer(&self, roots: &Roots) -> bool {
        let is_of_the_same = |pem: &str| have_one_in_common(&roots.pem, pem);
        self.sequence > roots.sequence && self.pem.as_deref().is_some_and(is_of_the_same)
    }
}

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
    there: &BTreeMap<Name, Said>,
    roots: &Roots,
) -> Vec<(Name, Write)> {
    let write = |namespace: &Name| match there.get(namespace) {
        None => Some((Name::clone(namespace), Write::Create)),
        Some(said) if said.pem.as_deref() == Some(&*roots.pem) || said.is_newer(roots) => None,
        Some(_) => Some((Name::clone(namespace), Write::Update)),
    };
    namespaces.iter().filter_map(write).collect()
}

/// What the writer goes by.
pub struct Inputs {
    /// Whether we are the one who writes.
    pub leads: watch::Receiver<bool>,
    /// The roots; `None`: not known yet.
    pub roots: watch::Receiver<Option<Arc<Roots>>>,
    /// The namespaces with the mesh; `None`: not known yet.
    pub namespaces: watch::Receiver<Option<Arc<BTreeSet<Name>>>>,
    /// Counts what is written.
    pub metrics: Arc<Metrics>,
}

/// Keeps the ConfigMaps current for ever.
pub async fn run(client: Client, mut inputs: Inputs) {
    let mut there: BTreeMap<Name, Said> = BTreeMap::new();
    let (mut listed, mut is_known) = (BTreeSet::new(), false);
    let mut events = Box::pin(events(client.clone()));
    let again = Notify::new();
    loop {
        let is_due = tokio::select! {
            event = events.next() => event.map(|event| take(event, &mut there, &mut listed, &mut is_known)),
            changed = inputs.leads.changed() => changed.ok().map(|()| true),
            changed = inputs.roots.changed() => changed.ok().map(|()| true),
            changed = inputs.namespaces.changed() => changed.ok().map(|()| true),
            () = again.notified() => {
                tokio::time::sleep(RETRY).await;
                Some(true)
            }
        };
        // Whoever told us is gone.
        let Some(is_due) = is_due else { return };
        let leads = *inputs.leads.borrow_and_update();
        let roots = inputs.roots.borrow_and_update().clone();
        let namespaces = inputs.namespaces.borrow_and_update().clone();
        let (Some(roots), Some(namespaces)) = (roots, namespaces) else { continue };
        if !(is_due && is_known && leads) {
            continue;
        }
        for (namespace, write) in needed(&namespaces, &there, &roots) {
            if !*inputs.leads.borrow() {
                break;
            }
            if write_one(&client, &namespace, write, &roots, &inputs.metrics).await {
                there.insert(namespace, Said { pem: Some(roots.pem.clone()), sequence: roots.sequence });
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
    there: &mut BTreeMap<Name, Said>,
    listed: &mut BTreeSet<Name>,
    is_known: &mut bool,
) -> bool {
    let namespace =
        |object: &ApiConfigMap| Name::from(object.metadata.namespace.as_deref().unwrap_or_default());
    let said = |mut object: ApiConfigMap| {
        let annotation = object.metadata.annotations.as_ref().and_then(|all| all.get(SEQUENCE));
        let sequence = annotation.and_then(|text| text.parse().ok()).unwrap_or(0);
        Said { pem: object.data.remove(BUNDLE_FILE), sequence }
    };
    match event {
        Ok(watcher::Event::Init) => {
            listed.clear();
            return false;
        }
        Ok(watcher::Event::InitApply(object)) => {
            listed.insert(namespace(&object));
            there.insert(namespace(&object), said(object));
            return false;
        }
        Ok(watcher::Event::InitDone) => {
            there.retain(|namespace, _| listed.contains(namespace));
            *is_known = true;
        }
        Ok(watcher::Event::Apply(object)) => drop(there.insert(namespace(&object), said(object))),
        Ok(watcher::Event::Delete(object)) => drop(there.remove(&namespace(&object))),
        Err(error) => {
            tracing::debug!(%error, "watching the trust bundle's ConfigMaps failed");
            return false;
        }
    }
    true
}

/// Whether it was written, or somebody else did.
async fn write_one(client: &Client, namespace: &str, write: Write, roots: &Roots, metrics: &Metrics) -> bool {
    let api: Api<ApiConfigMap> = Api::namespaced(client.clone(), namespace);
    let sequence = (roots.sequence > 0).then(|| (SEQUENCE.to_owned(), roots.sequence.to_string()));
    let wrote = tokio::time::timeout(CALL, async {
        match write {
            Write::Create => {
                let types = Some(TypeMeta::resource::<ApiConfigMap>());
                let name = Some(BUNDLE_CONFIG_MAP.to_owned());
                let metadata = ObjectMeta {
                    name,
                    annotations: sequence.map(|one| [one].into()),
                    ..ObjectMeta::default()
                };
                let data = BTreeMap::from([(BUNDLE_FILE.to_owned(), roots.pem.clone())]);
                api.create(&PostParams::default(), &ApiConfigMap { types, metadata, data }).await
            }
            Write::Update => {
                // `null` takes one out that would be of other roots.
                let sequence = sequence.map(|(_, sequence)| sequence);
                let patch = Patch::Merge(json!({
                    "metadata": {"annotations": {SEQUENCE: sequence}}, "data": {BUNDLE_FILE: roots.pem},
                }));
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
    use crate::roots::pem;

    #[test]
    fn only_what_differs_is_written() {
        let namespaces = ["new", "old", "same", "keyless"].map(Name::from).into();
        let there = [
            ("old", Some("before")),
            ("same", Some("now")),
            ("keyless", None),
            ("elsewhere", Some("before")),
        ];
        let said = |text: Option<&str>| Said { pem: text.map(str::to_owned), sequence: 1 };
        let there = there.map(|(name, text)| (Name::from(name), said(text))).into();
        let needed = needed(&namespaces, &there, &Roots { pem: "now".to_owned(), sequence: 2 });
        let shown: Vec<_> = needed.iter().map(|(name, write)| (&**name, *write)).collect();
        assert_eq!(shown, [("keyless", Write::Update), ("new", Write::Create), ("old", Write::Update)]);
    }

    #[test]
    fn nobody_goes_back_to_older_roots() {
        let is_written = |there: (&[&str], u64), roots: (&[&str], u64)| {
            let said = Said { pem: Some(pem(there.0)), sequence: there.1 };
            let there = [(Name::from("shop"), said)].into();
            let roots = Roots { pem: pem(roots.0), sequence: roots.1 };
            !needed(&[Name::from("shop")].into(), &there, &roots).is_empty()
        };
        assert!(is_written((&["MIIA1"], 1), (&["MIIA1", "MIIB2"], 2)), "newer ones");
        assert!(!is_written((&["MIIA1", "MIIB2"], 2), (&["MIIA1"], 1)), "older ones");
        assert!(!is_written((&["MIIA1", "MIIB2"], 2), (&["MIIA1"], 0)), "of a file, which may be old");
        assert!(is_written((&["MIIA1", "MIIB2"], 0), (&["MIIA1"], 1)), "nobody has said how old those are");
        assert!(is_written((&["MIIA1", "MIIB2"], 7), (&["MIIC3"], 1)), "another CA: it counts anew");
        assert!(is_written((&["spoilt"], 2), (&["MIIA1"], 2)));
    }
}
