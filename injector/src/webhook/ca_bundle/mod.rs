//! Keeps `caBundle` of the `MutatingWebhookConfiguration` current: the roots by which the API server believes our
//! certificate.
//!
//! Several replicas do so at a time. All write the same roots, so that whoever comes second has nothing to do. While the
//! mesh's roots change, one knows the newer ones first: the sequence of what was written stands in an annotation, and
//! nobody goes back.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use json_patch::{
    AddOperation, Patch, PatchOperation, TestOperation,
    jsonptr::{PointerBuf, Token},
};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{
    Api, Client,
    api::PatchParams,
    runtime::{WatchStreamExt as _, watcher},
};
use outrider::{clock::Clock, drain, identity::rotation::retry_delay};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::{controller::kubernetes::watch::WATCH_SECONDS, roots::have_one_in_common};

use super::{
    certificate::{Newest, Serving},
    metrics::Metrics,
};

/// Annotation of the configuration: the sequence of the roots that were written last.
pub const SEQUENCE: &str = "outrider.io/ca-bundle-sequence";
/// How long one look or one change may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Whose `caBundle` it is.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Name of the configuration.
    pub configuration: String,
    /// Name of the Service that it leads to.
    pub service: String,
    /// The Service's namespace.
    pub namespace: String,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing: it has our roots, or newer ones.
    None,
    /// No webhook of it leads to us.
    NotOurs,
    /// This change.
    Change(Patch),
}

/// What there is to do so that every webhook of ours has these roots. Pure.
fn step(found: &MutatingWebhookConfiguration, registration: &Registration, serving: &Serving) -> Step {
    let metadata = &found.metadata;
    let annotation = metadata.annotations.as_ref().and_then(|all| all.get(SEQUENCE));
    let written: u64 = annotation.and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut is_ours = false;
    let mut changes = Vec::new();
    for (index, webhook) in found.webhooks.iter().flatten().enumerate() {
        let config = &webhook.client_config;
        let leads_to_us = config.service.as_ref().is_some_and(|service| {
            service.name == registration.service && service.namespace == registration.namespace
        });
        is_ours |= leads_to_us;
        let bundle = config.ca_bundle.as_ref().map(|bundle| String::from_utf8_lossy(&bundle.0));
        let has_ours = bundle.as_deref() == Some(&*serving.roots);
        // Newer roots of another replica's: ours are on their way. A CA that was made anew counts anew.
        let is_of_the_same = |bundle: &str| have_one_in_common(&serving.roots, bundle);
        let is_newer = written > serving.sequence && bundle.as_deref().is_some_and(is_of_the_same);
        if leads_to_us && !has_ours && !is_newer {
            let place =
                ["webhooks".to_owned(), index.to_string(), "clientConfig".to_owned(), "caBundle".to_owned()];
            let roots = json!(k8s_openapi::ByteString(serving.roots.clone().into_bytes()));
            changes.push(add(&place, roots));
        }
    }
    if !is_ours {
        return Step::NotOurs;
    }
    if changes.is_empty() {
        return Step::None;
    }
    let annotations = ["metadata".to_owned(), "annotations".to_owned()];
    if serving.sequence > 0 {
        if metadata.annotations.is_none() {
            changes.push(add(&annotations, json!({})));
        }
        let [metadata, annotations] = annotations;
        changes.push(add(&[metadata, annotations, SEQUENCE.to_owned()], json!(serving.sequence.to_string())));
    }
    // What was looked at is what is changed: places in lists are worth nothing otherwise.
    let version = json!(metadata.resource_version.clone().unwrap_or_default());
    let place = pointer(&["metadata".to_owned(), "resourceVersion".to_owned()]);
    changes.insert(0, PatchOperation::Test(TestOperation { path: place, value: version }));
    Step::Change(Patch(changes))
}

fn pointer(place: &[String]) -> PointerBuf {
    PointerBuf::from_tokens(place.iter().map(|part| Token::new(part.as_str())))
}

fn add(place: &[String], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(place), value })
}

/// Keeps it current. True as long as the configuration has roots that our certificate is of.
pub(super) fn start(
    client: Client,
    registration: Registration,
    newest: Newest,
    clock: &Clock,
    metrics: Arc<Metrics>,
) -> watch::Receiver<bool> {
    let (to, in_place) = watch::channel(false);
    let keeper = Keeper {
        api: Api::all(client),
        registration,
        newest,
        metrics,
        rng: clock.fork_rng(),
        in_place: to,
        told: String::new(),
    };
    drain::spawn_background(keeper.run());
    in_place
}

struct Keeper {
    api: Api<MutatingWebhookConfiguration>,
    registration: Registration,
    newest: Newest,
    metrics: Arc<Metrics>,
    rng: fastrand::Rng,
    in_place: watch::Sender<bool>,
    /// What was wrong last, so that it is told once.
    told: String,
}

impl Keeper {
    async fn run(mut self) {
        let config = watcher::Config::default()
            .fields(&format!("metadata.name={}", self.registration.configuration))
            .timeout(WATCH_SECONDS);
        let mut objects = pin!(watcher(self.api.clone(), config).default_backoff());
        let mut found: Option<MutatingWebhookConfiguration> = None;
        let mut failures = 0_u32;
        loop {
            let again = match self.look(found.as_ref()).await {
                Ok(()) => None,
                Err(problem) => {
                    failures = failures.saturating_add(1);
                    self.metrics.ca_bundle_failed.inc();
                    self.tell(problem);
                    Some(retry_delay(failures, None, &mut self.rng))
                }
            };
            if again.is_none() {
                failures = 0;
            }
            tokio::select! {
                event = objects.next() => match event {
                    Some(Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object))) => found = Some(object),
                    Some(Ok(watcher::Event::Delete(_))) => found = None,
                    Some(Ok(watcher::Event::Init | watcher::Event::InitDone)) => {}
                    Some(Err(error)) => self.tell(format!("the API server was not heard: {error}")),
                    None => return,
                },
                changed = self.newest.changed() => if changed.is_err() { return },
                () = pause(again) => {
                    // Perhaps what was seen last is not what there is.
                    let look = self.api.get_opt(&self.registration.configuration);
                    let seen = tokio::time::timeout(DEADLINE, look).await;
                    found = seen.ok().and_then(Result::ok).flatten().or(found);
                }
                () = self.in_place.closed() => return,
            }
        }
    }

    /// Does what is to be done.
    async fn look(&mut self, found: Option<&MutatingWebhookConfiguration>) -> Result<(), String> {
        let newest = self.newest.borrow_and_update().clone();
        let (Some(found), Some(serving)) = (found, newest) else { return Ok(()) };
        let name = &self.registration.configuration;
        match step(found, &self.registration, &serving) {
            Step::None => {
                self.in_place.send_replace(true);
                self.told.clear();
                Ok(())
            }
            Step::NotOurs => {
                self.in_place.send_replace(false);
                let (service, namespace) = (&self.registration.service, &self.registration.namespace);
                Err(format!("no webhook of {name} leads to the Service {namespace}/{service}"))
            }
            Step::Change(patch) => {
                self.in_place.send_replace(false);
                let patch = kube::api::Patch::Json::<()>(patch);
                let parameters = PatchParams::default();
                let change = self.api.patch(name, &parameters, &patch);
                match tokio::time::timeout(DEADLINE, change).await {
                    Ok(Ok(_)) => {
                        self.metrics.ca_bundle_written.inc();
                        tracing::info!(
                            configuration = name,
                            sequence = serving.sequence,
                            "caBundle was changed"
                        );
                        self.in_place.send_replace(true);
                        Ok(())
                    }
                    Ok(Err(error)) => Err(format!("caBundle of {name} was not changed: {error}")),
                    Err(_) => Err(format!("caBundle of {name} was not changed within {DEADLINE:?}")),
                }
            }
        }
    }

    fn tell(&mut self, problem: String) {
        if self.told != problem {
            tracing::warn!("{problem}");
            self.told = problem;
        }
    }
}

async fn pause(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
