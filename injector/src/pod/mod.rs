//! A pod gets its sidecar, or is rid of it again: two pure functions from JSON to JSON.
//!
//! ```text
//!   initContainers:  outrider-init ──▶ outrider ═══════════════════════════════▶ (ends last)
//!                    loads the rules   becomes ready, goes on
//!                                          └──▶ the pod's own init containers ──▶ its containers
//! ```
//!
//! What the pod says that nobody here looks at stays as it is: these functions work on JSON and not on a typed pod, which
//! would drop the fields of later versions of Kubernetes.
//!
//! # Invariants
//! - `inject` of what was injected gives the same again; `uninject` of it gives the pod as it was.
//! - Of the pod's own containers nothing changes but the handlers of their probes.
//! - A pod that would be outside the mesh without anybody having said so is denied.

mod checks;
mod config;
mod containers;
mod mark;
mod probes;
mod service;

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};

pub use self::config::inbound_except_ports;
use self::mark::{Grace, Mark};
use crate::{
    denial::{Denial, Faults, quoted},
    installation::Installation,
    json::{items, list_at, name, nothing, object_at},
    names::{CONFIG, INIT, INJECT, INJECTED, SIDECAR, VOLUMES},
    settings::Settings,
};

/// What Kubernetes takes for the grace period of a pod that says nothing, in seconds.
const KUBERNETES_GRACE: u64 = 30;
/// Seconds of grace beyond the drain time: for the app to end, and the sidecar after it.
const GRACE_MARGIN: u64 = 10;

/// What a pod template is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind, as `Deployment`.
    pub kind: String,
    /// Its name.
    pub name: String,
}

/// What becomes of the sidecar of a pod that has one already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// It is made anew, as for a pod that has none: how manifests come to a newer version.
    Replace,
    /// Its containers stay as they are found, with what other webhooks have done to them; what the pod itself got
    /// meanwhile, such as further containers with probes, is taken care of.
    Keep,
}

/// What is known of a pod beside what it says itself.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// What it is a template of, if so.
    pub owner: Option<Owner>,
    /// What becomes of a sidecar that is there.
    pub existing: Existing,
    /// The installation that it is for.
    pub installation: &'a Installation,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It has a sidecar now.
    Injected {
        /// The pod.
        pod: Value,
        /// What its owner should know.
        warnings: Vec<String>,
    },
    /// It is left as it is, for this reason.
    Left(&'static str),
}

/// Gives a pod (or pod template) its sidecar.
///
/// # Errors
/// Everything that forbids it.
pub fn inject(pod: &Value, context: &Context<'_>) -> Result<Outcome, Denial> {
    let mut faults = Faults::default();
    checks::shape(pod, &mut faults);
    faults.into_result()?;
    if let Some(reason) = left_because(pod)? {
        return Ok(Outcome::Left(reason));
    }
    let (plain, found) = match Mark::of(pod)? {
        None => (pod.clone(), Vec::new()),
        Some(mark) => {
            let found = items(pod, "/spec/initContainers").iter();
            let is_ours =
                |container: &&Value| mark.init_containers.iter().any(|ours| ours == name(container));
            let found = found.filter(is_ours).cloned().collect();
            (without(pod, &mark), found)
        }
    };
    let settings = Settings::read(&annotations(&plain), context.installation)?;
    let mut faults = Faults::default();
    checks::check(&plain, &settings, &mut faults);
    let mut warnings = checks::warnings(&plain, &settings);
    let mut injection = Injection { settings: &settings, context, mark: Mark::new(), faults };
    let found = if context.existing == Existing::Keep { found } else { Vec::new() };
    let injected = injection.apply(plain, found, &mut warnings);
    injection.faults.into_result()?;
    Ok(Outcome::Injected { pod: injected, warnings })
}

/// Takes the sidecar out again; a pod without one is returned as it is.
///
/// # Errors
/// The mark cannot be read.
pub fn uninject(pod: &Value) -> Result<Value, Denial> {
    Ok(match Mark::of(pod)? {
        None => pod.clone(),
        Some(mark) => without(pod, &mark),
    })
}

/// Whether a pod carries the mark of an injection.
#[must_use]
pub fn is_injected(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations").is_some_and(|annotations| annotations.get(INJECTED).is_some())
}

/// Why a pod is left alone, if it is.
fn left_because(pod: &Value) -> Result<Option<&'static str>, Denial> {
    let labels = pod.pointer("/metadata/labels");
    let label = |name: &str| labels.and_then(|labels| labels.get(name));
    let annotation = |name: &str| pod.pointer("/metadata/annotations").and_then(|all| all.get(name));
    if annotation("kubernetes.io/config.mirror").is_some() {
        return Ok(Some("it mirrors a pod that the kubelet runs from a file"));
    }
    match label(INJECT) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_str() {
            Some("enabled") => Ok(None),
            Some("disabled") => Ok(Some("its label says so")),
            other => {
                let given = other.map_or_else(|| value.to_string(), quoted);
                Err(Denial::of(&format!("label {INJECT}"), &given, "allowed: enabled, disabled"))
            }
        },
    }
}

/// The annotations that are texts.
fn annotations(pod: &Value) -> BTreeMap<&str, &str> {
    let all = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    all.into_iter().flatten().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))).collect()
}

/// One injection under way.
struct Injection<'a> {
    settings: &'a Settings,
    context: &'a Context<'a>,
    mark: Mark,
    faults: Faults,
}

impl Injection<'_> {
    /// The pod with its sidecar. `found` are containers of ours that stay as they are.
    fn apply(&mut self, mut pod: Value, found: Vec<Value>, warnings: &mut Vec<String>) -> Value {
        let service = self.settings.service.clone();
        let service = service.unwrap_or_else(|| service::name(&pod, self.context.owner.as_ref()));
        let Some(whole) = pod.as_object_mut() else { return pod };
        let performed = match whole.get_mut("spec").and_then(Value::as_object_mut) {
            Some(spec) => {
                let performed = self.probes(spec);
                self.containers(spec, found);
                self.volumes(spec);
                self.grace(spec, warnings);
                performed
            }
            None => Vec::new(),
        };
        let config = config::text(&service, self.settings, self.context.installation, performed);
        self.metadata(whole, config);
        pod
    }

    fn probes(&mut self, spec: &mut Map<String, Value>) -> probes::Performed {
        let mut performed = Vec::new();
        if self.settings.are_probes_rewritten {
            for key in ["initContainers", "containers"] {
                if let Some(containers) = spec.get_mut(key).and_then(Value::as_array_mut) {
                    performed.extend(probes::rewrite(containers, &mut self.mark, &mut self.faults));
                }
            }
        }
        performed
    }

    fn containers(&mut self, spec: &mut Map<String, Value>, found: Vec<Value>) {
        let mut ours = vec![containers::init(self.settings), containers::sidecar(self.settings)];
        for container in &mut ours {
            if let Some(kept) = found.iter().find(|kept| name(kept) == name(container)) {
                *container = kept.clone();
            }
        }
        let Some((list, made)) = list_at(spec, "initContainers") else { return };
        self.mark.note("/spec/initContainers", made);
        self.mark.init_containers = vec![INIT.to_owned(), SIDECAR.to_owned()];
        list.splice(0..0, ours);
    }

    fn volumes(&mut self, spec: &mut Map<String, Value>) {
        let Some((list, made)) = list_at(spec, "volumes") else { return };
        self.mark.note("/spec/volumes", made);
        self.mark.volumes = VOLUMES.map(str::to_owned).into();
        list.extend(containers::volumes());
    }

    /// A pod must not be killed while it drains.
    fn grace(&mut self, spec: &mut Map<String, Value>, warnings: &mut Vec<String>) {
        const KEY: &str = "terminationGracePeriodSeconds";
        let least = self.settings.drain_time.saturating_add(Duration::from_secs(GRACE_MARGIN));
        let least = least.as_secs() + u64::from(least.subsec_nanos() > 0);
        let given = spec.get(KEY).and_then(Value::as_u64);
        if given.unwrap_or(KUBERNETES_GRACE) >= least {
            return;
        }
        if let Some(given) = given {
            warnings.push(format!(
                "spec.{KEY} is {least} instead of {given}: the drain time (outrider.io/drain-time) and {GRACE_MARGIN} s"
            ));
        }
        let made = nothing(spec, KEY);
        self.mark.note(&format!("/spec/{KEY}"), made);
        let was = spec.insert(KEY.to_owned(), json!(least)).unwrap_or(Value::Null);
        self.mark.grace = Some(Grace { was, is: json!(least) });
    }

    /// Labels and annotations; last, since the mark is one of them.
    fn metadata(&mut self, pod: &mut Map<String, Value>, config: String) {
        let Some((metadata, made)) = object_at(pod, "metadata") else { return };
        self.mark.note("/metadata", made);
        if let Some((labels, made)) = object_at(metadata, "labels") {
            self.mark.note("/metadata/labels", made);
            labels.insert(INJECTED.to_owned(), json!("true"));
            self.mark.labels = vec![INJECTED.to_owned()];
        }
        if let Some((annotations, made)) = object_at(metadata, "annotations") {
            self.mark.note("/metadata/annotations", made);
            annotations.insert(CONFIG.to_owned(), Value::String(config));
            self.mark.annotations = vec![CONFIG.to_owned(), INJECTED.to_owned()];
            annotations.insert(INJECTED.to_owned(), Value::String(self.mark.text()));
        }
    }
}

/// A pod without what its mark says was added, and with what was replaced.
fn without(pod: &Value, mark: &Mark) -> Value {
    let mut pod = pod.clone();
    let Some(whole) = pod.as_object_mut() else { return pod };
    if let Some(spec) = whole.get_mut("spec").and_then(Value::as_object_mut) {
        for (key, added) in [("initContainers", &mark.init_containers), ("volumes", &mark.volumes)] {
            if let Some(list) = spec.get_mut(key).and_then(Value::as_array_mut) {
                list.retain(|item| !added.iter().any(|ours| ours == name(item)));
            }
            mark.unmake(spec, key, &format!("/spec/{key}"));
        }
        for key in ["initContainers", "containers"] {
            if let Some(containers) = spec.get_mut(key).and_then(Value::as_array_mut) {
                probes::restore(containers, mark);
            }
        }
        restore_grace(spec, mark);
    }
    if let Some(metadata) = whole.get_mut("metadata").and_then(Value::as_object_mut) {
        for (key, added) in [("labels", &mark.labels), ("annotations", &mark.annotations)] {
            if let Some(all) = metadata.get_mut(key).and_then(Value::as_object_mut) {
                all.retain(|name, _| !added.contains(name));
            }
            mark.unmake(metadata, key, &format!("/metadata/{key}"));
        }
    }
    mark.unmake(whole, "metadata", "/metadata");
    pod
}

/// The grace period as it was, unless somebody has changed it since.
fn restore_grace(spec: &mut Map<String, Value>, mark: &Mark) {
    const KEY: &str = "terminationGracePeriodSeconds";
    let Some(grace) = mark.grace.as_ref().filter(|grace| spec.get(KEY) == Some(&grace.is)) else { return };
    if grace.was.is_null() {
        mark.put_back(spec, KEY, &format!("/spec/{KEY}"));
    } else {
        spec.insert(KEY.to_owned(), grace.was.clone());
    }
}

#[cfg(test)]
mod tests;
