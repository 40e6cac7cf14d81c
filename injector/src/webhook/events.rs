//! Events about pods that were denied, where their owners look for the reason: at what owns the pod, or in its namespace.
//!
//! Never more than a few, and never in anybody's way: what is over the rate is dropped and counted.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use outrider::{clock::Clock, drain};
use tokio::sync::mpsc;

use super::{metrics::Metrics, review::Subject};
use crate::denial::cut;

/// Events that wait to be written.
const MAX_WAITING: usize = 64;
/// Events at once after a quiet time.
const BURST: u32 = 20;
/// From then on one in this time.
const EVERY: Duration = Duration::from_secs(2);
/// Longest note of an event, in bytes (events.k8s.io/v1).
const MAX_NOTE: usize = 1024;
/// How long writing one may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Takes denials and has events written of them.
#[derive(Debug)]
pub(super) struct Events {
    to: mpsc::Sender<(Subject, String)>,
    bucket: Mutex<Bucket>,
    clock: Clock,
    metrics: Arc<Metrics>,
}

/// How many events may still be written now.
#[derive(Debug)]
struct Bucket {
    left: u32,
    since: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let new = u32::try_from(passed.as_millis() / EVERY.as_millis()).unwrap_or(u32::MAX);
        if new > 0 {
            self.left = self.left.saturating_add(new).min(BURST);
            self.since = now;
        }
        let is_left = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_left
    }
}

impl Events {
    /// `instance` is who writes them: the pod's name.
    pub(super) fn start(
        client: kube::Client,
        instance: String,
        clock: &Clock,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (to, mut from) = mpsc::channel::<(Subject, String)>(MAX_WAITING);
        let reporter = Reporter { controller: "outrider-injector".to_owned(), instance: Some(instance) };
        let recorder = Recorder::new(client, reporter);
        drain::spawn_background(async move {
            while let Some((subject, note)) = from.recv().await {
                let event = Event {
                    type_: EventType::Warning,
                    reason: "SidecarRefused".to_owned(),
                    note: Some(note),
                    action: "Inject".to_owned(),
                    secondary: None,
                };
                let reference = reference(&subject);
                let written = tokio::time::timeout(DEADLINE, recorder.publish(&event, &reference)).await;
                match written {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::warn!(%error, "an event was not written"),
                    Err(_) => tracing::warn!("an event was not written in time"),
                }
            }
        });
        let bucket = Mutex::new(Bucket { left: BURST, since: clock.now() });
        Self { to, bucket, clock: clock.clone(), metrics }
    }

    /// Tells of a denial, if the rate allows it.
    pub(super) fn denied(&self, subject: &Subject, reasons: &[String]) {
        let may = self.bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now());
        let note = cut(&reasons.join("; "), MAX_NOTE);
        if !may || self.to.try_send((subject.clone(), note)).is_err() {
            self.metrics.events_dropped.inc();
        }
    }
}

/// What the event is about: the pod's owner, which exists, or else the pod, which does not.
fn reference(subject: &Subject) -> ObjectReference {
    let namespace = Some(subject.namespace.clone());
    match &subject.owner {
        Some([version, kind, name, uid]) => ObjectReference {
            api_version: Some(version.clone()),
            kind: Some(kind.clone()),
            name: Some(name.clone()),
            uid: Some(uid.clone()),
            namespace,
            ..ObjectReference::default()
        },
        None => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(subject.name.trim_end_matches('-').to_owned()),
            namespace,
            ..ObjectReference::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_one_every_two_seconds() {
        let start = Instant::now();
        let mut bucket = Bucket { left: BURST, since: start };
        let taken = (0..100).filter(|_| bucket.take(start)).count();
        assert_eq!(taken, 20);
        assert!(!bucket.take(start + Duration::from_millis(1999)));
        assert!(bucket.take(start + EVERY));
        assert!(!bucket.take(start + EVERY));
        let later = start + Duration::from_secs(3600);
        assert_eq!((0..100).filter(|_| bucket.take(later)).count(), 20);
    }
}
