//! The objects with their history, as etcd keeps them for the API server: one counter of versions for all of them, and a
//! history that can be cut.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use super::{
    failure::Failure,
    kinds::{self, Kind},
    replacing::{bytes_of_texts, replacement},
};

/// Most changes that are kept; older ones are cut off.
const MAX_HISTORY: usize = 100_000;

/// Resource without version (`discovery.k8s.io/endpointslices`), namespace (empty: none), name.
type Place = (String, String, String);

/// One change of one object.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) revision: u64,
    place: Place,
    pub(super) before: Option<Arc<Value>>,
    pub(super) after: Option<Arc<Value>>,
}

impl Change {
    /// Whether it is about this resource, in this namespace if there is one.
    pub(super) fn is_of(&self, resource: &str, namespace: Option<&str>) -> bool {
        self.place.0 == resource && namespace.is_none_or(|namespace| self.place.1 == namespace)
    }
}

/// What a delete insists on.
#[derive(Clone, Debug, Default)]
pub(super) struct Preconditions {
    pub(super) uid: Option<String>,
    pub(super) resource_version: Option<String>,
}

/// Which part of an object is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Everything: the tests' own changes.
    All,
    /// All but the status, where that is a subresource.
    Main,
    /// The status.
    Status,
}

/// All objects.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) kinds: Vec<Kind>,
    objects: BTreeMap<Place, Arc<Value>>,
    history: VecDeque<Change>,
    /// Changes up to this one are not known any more.
    cut: u64,
    revision: u64,
    /// Told the newest revision.
    newest: watch::Sender<u64>,
    /// What each field manager applied last, by object.
    pub(super) applied: BTreeMap<(String, String), Value>,
}

impl Store {
    pub(super) fn new() -> Self {
        // Not 0 or 1: whoever confuses a version with "none" should notice.
        let revision = 1000;
        let mut store = Self {
            kinds: kinds::built_in(),
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            cut: revision,
            revision,
            newest: watch::channel(revision).0,
            applied: BTreeMap::new(),
        };
        for name in ["default", "kube-system"] {
            store.ensure_namespace(name);
        }
        store
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn cut(&self) -> u64 {
        self.cut
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// Forgets the history so far.
    pub(super) fn forget_history(&mut self) {
        self.history.clear();
        self.cut = self.revision;
    }

    pub(super) fn kind(&self, group: &str, version: &str, plural: &str) -> Option<Kind> {
        let is_it = |kind: &&Kind| kind.group == group && kind.version == version && kind.plural == plural;
        self.kinds.iter().find(is_it).cloned()
    }

    /// The kind of an object.
    pub(super) fn kind_of(&self, object: &Value) -> Option<Kind> {
        let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
        self.kinds.iter().find(|one| one.kind == kind && one.api_version() == version).cloned()
    }

    pub(super) fn get(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, Failure> {
        let found = self.objects.get(&place(kind, namespace, name));
        found.cloned().ok_or_else(|| Failure::not_found(kind, name))
    }

    /// As [`Store::get`], by the resource's name.
    pub(super) fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.objects.get(&(resource.to_owned(), namespace.to_owned(), name.to_owned())).cloned()
    }

    /// All objects of a resource as they were at a revision, with namespace and name as the order.
    pub(super) fn list(
        &self,
        resource: &str,
        namespace: Option<&str>,
        at: u64,
    ) -> Result<Vec<Arc<Value>>, Failure> {
        if at < self.cut && at != self.revision {
            return Err(Failure::gone(at, self.cut));
        }
        let is_here =
            |place: &Place| place.0 == resource && namespace.is_none_or(|namespace| place.1 == namespace);
        let from = (resource.to_owned(), String::new(), String::new());
        let mut found: BTreeMap<_, _> = self
            .objects
            .range(from..)
            .take_while(|(place, _)| place.0 == resource)
            .filter(|(place, _)| is_here(place))
            .map(|(place, object)| (place.clone(), Arc::clone(object)))
            .collect();
        for change in self.history.iter().rev().take_while(|change| change.revision > at) {
            if is_here(&change.place) {
                match &change.before {
                    Some(before) => found.insert(change.place.clone(), Arc::clone(before)),
                    None => found.remove(&change.place),
                };
            }
        }
        Ok(found.into_values().collect())
    }

    /// Changes after a revision.
    pub(super) fn since(&self, revision: u64) -> Result<impl Iterator<Item = &Change>, Failure> {
        if revision < self.cut {
            return Err(Failure::gone(revision, self.cut));
        }
        let start = self.history.partition_point(|change| change.revision <= revision);
        Ok(self.history.range(start..))
    }

    pub(super) fn ensure_namespace(&mut self, name: &str) {
        let kind = self.kind("", "v1", "namespaces").expect("built in");
        if !name.is_empty() && self.get(&kind, "", name).is_err() {
            let object = json!({
                "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "status": {"phase": "Active"},
            });
            self.create(&kind, "", object).expect("a new one");
        }
    }

    pub(super) fn create(
        &mut self,
        kind: &Kind,
        namespace: &str,
        object: Value,
    ) -> Result<Arc<Value>, Failure> {
        let object = self.prepared(kind, namespace, object)?;
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let place = place(kind, namespace, &name);
        if self.objects.contains_key(&place) {
            return Err(Failure::already_exists(kind, &name));
        }
        if kind.is_namespaced {
            let namespaces = self.kind("", "v1", "namespaces").expect("built in");
            self.get(&namespaces, "", namespace)?;
        }
        if kind.kind == "CustomResourceDefinition" {
            let kinds = Kind::defined_by(&object);
            self.kinds.retain(|one| !kinds.contains(one));
            self.kinds.extend(kinds);
        }
        Ok(self.change(place, Some(object)).expect("it is stored"))
    }

    /// The object with what the server gives to every new one.
    pub(super) fn prepared(&self, kind: &Kind, namespace: &str, mut object: Value) -> Result<Value, Failure> {
        if !object.is_object() {
            return Err(Failure::bad_request("the body of the request is no object"));
        }
        object["apiVersion"] = kind.api_version().into();
        object["kind"] = kind.kind.as_str().into();
        let metadata = &mut object["metadata"];
        if !metadata["resourceVersion"].as_str().unwrap_or_default().is_empty() {
            return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if metadata["name"].as_str().unwrap_or_default().is_empty() {
            let Some(prefix) = metadata["generateName"].as_str() else {
                return Err(Failure::invalid(
                    kind,
                    "",
                    "metadata.name: Required value: name or generateName is required",
                ));
            };
            let suffix: String = std::iter::repeat_with(fastrand::alphanumeric).take(5).collect();
            metadata["name"] = format!("{prefix}{}", suffix.to_lowercase()).into();
        }
        if kind.is_namespaced {
            metadata["namespace"] = namespace.into();
        }
        metadata["uid"] = uid().into();
        metadata["creationTimestamp"] = now().into();
        metadata["generation"] = 1.into();
        label_namespace(kind, &mut object);
        if kind.kind == "Secret" {
            bytes_of_texts(&mut object);
        }
        Ok(object)
    }

    /// Replaces an object, if the version in `object` is the newest, or there is none in it.
    pub(super) fn replace(
        &mut self,
        kind: &Kind,
        (namespace, name): (&str, &str),
        object: Value,
        part: Part,
    ) -> Result<Arc<Value>, Failure> {
        let old = self.get(kind, namespace, name)?;
        let mut new = replacement(kind, &old, object, part)?;
        label_namespace(kind, &mut new);
        if without_version(&new) == without_version(&old) {
            return Ok(old);
        }
        let metadata = &new["metadata"];
        let is_finished = metadata["deletionTimestamp"].is_string()
            && metadata["finalizers"].as_array().is_none_or(Vec::is_empty);
        let place = place(kind, namespace, name);
        if is_finished && part != Part::All {
            self.change(place, None);
            return Ok(Arc::new(new));
        }
        Ok(self.change(place, Some(new)).expect("it is stored"))
    }

    /// Deletes an object; one with finalizers is only marked. Returns what was deleted.
    pub(super) fn delete(
        &mut self,
        kind: &Kind,
        (namespace, name): (&str, &str),
        wanted: &Preconditions,
    ) -> Result<Arc<Value>, Failure> {
        let old = self.get(kind, namespace, name)?;
        let metadata = &old["metadata"];
        for (field, wanted) in [("uid", &wanted.uid), ("resourceVersion", &wanted.resource_version)] {
            if let Some(wanted) = wanted
                && metadata[field] != **wanted
            {
                let found = metadata[field].as_str().unwrap_or_default();
                let why = format!(
                    "the {field} in the precondition ({wanted}) does not match the one in the record ({found})"
                );
                return Err(Failure::conflict(kind, name, &why));
            }
        }
        if metadata["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
            let mut marked = (*old).clone();
            if !metadata["deletionTimestamp"].is_string() {
                marked["metadata"]["deletionTimestamp"] = now().into();
            }
            return Ok(self.change(place(kind, namespace, name), Some(marked)).expect("it is stored"));
        }
        self.change(place(kind, namespace, name), None);
        if kind.kind == "Namespace" {
            let inside: Vec<_> = self.objects.keys().filter(|place| place.1 == name).cloned().collect();
            for place in inside {
                self.change(place, None);
            }
        }
        Ok(old)
    }

    /// Stores or removes, with the next revision.
    fn change(&mut self, place: Place, object: Option<Value>) -> Option<Arc<Value>> {
        self.revision += 1;
        let revision = self.revision;
        let after = object.map(|mut object| {
            object["metadata"]["resourceVersion"] = revision.to_string().into();
            Arc::new(object)
        });
        let before = match &after {
            Some(object) => self.objects.insert(place.clone(), Arc::clone(object)),
            None => self.objects.remove(&place),
        };
        self.history.push_back(Change { revision, place, before, after: after.clone() });
        if self.history.len() > MAX_HISTORY
            && let Some(oldest) = self.history.pop_front()
        {
            self.cut = oldest.revision;
        }
        self.newest.send_replace(revision);
        after
    }
}

/// Namespaces have their names as a label, whatever is written.
fn label_namespace(kind: &Kind, object: &mut Value) {
    if kind.kind == "Namespace" {
        let metadata = &mut object["metadata"];
        let name = metadata["name"].clone();
        metadata["labels"]["kubernetes.io/metadata.name"] = name;
    }
}

fn without_version(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = Value::Null;
    object
}

fn place(kind: &Kind, namespace: &str, name: &str) -> Place {
    let namespace = if kind.is_namespaced { namespace } else { "" };
    (kind.resource(), namespace.to_owned(), name.to_owned())
}

/// A random UUID.
pub(super) fn uid() -> String {
    let digits = format!("{:032x}", fastrand::u128(..));
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]].join("-")
}

fn now() -> String {
    let now = OffsetDateTime::now_utc().replace_nanosecond(0).expect("zero is good");
    now.format(&Rfc3339).expect("a time")
}
