//! A watch: the changes after a version, as lines of JSON, until somebody ends it.

use std::{collections::VecDeque, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::{self, Stream};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    failure::Failure,
    request::{Form, Query, Target},
    selectors::Selector,
    shared::{Controls, Shared},
    store::Change,
};

/// How long a watch lasts if its caller does not say.
const LONGEST: Duration = Duration::from_secs(30 * 60);
/// The annotation of the bookmark that ends a list that was asked for as a watch.
const INITIAL_END: &str = "k8s.io/initial-events-end";

/// One watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    target: Target,
    selector: Selector,
    form: Form,
    wants_bookmarks: bool,
    /// All up to here was told.
    at: u64,
    lines: VecDeque<Bytes>,
    deadline: Instant,
    is_over: bool,
    newest: watch::Receiver<u64>,
    controls: watch::Receiver<Controls>,
    /// Values of the counters of [`Controls`] that were looked at.
    drops: u64,
    bookmarks: u64,
    /// One more is under way as long as this lives.
    _counted: Arc<String>,
}

impl Watch {
    pub(super) fn new(
        shared: Arc<Shared>,
        target: Target,
        query: &Query,
        form: Form,
    ) -> Result<Self, Failure> {
        let seconds = query.number("timeoutSeconds")?.map_or(LONGEST, Duration::from_secs);
        let from = query.number("resourceVersion")?.filter(|from| *from > 0);
        let (controls, now) = (shared.controls.subscribe(), shared.controls.borrow().clone());
        let counted = shared.count_watch(&target.kind.resource());
        let store = shared.store.lock().unwrap();
        let mut watch = Self {
            selector: query.selector()?,
            form,
            wants_bookmarks: query.is_set("allowWatchBookmarks"),
            at: from.unwrap_or_else(|| store.revision()),
            lines: VecDeque::new(),
            deadline: Instant::now() + seconds,
            is_over: false,
            newest: store.subscribe(),
            controls,
            drops: now.drops,
            bookmarks: now.bookmarks,
            _counted: counted,
            target,
            shared: Arc::clone(&shared),
        };
        match from {
            Some(from) if from > store.revision() => {
                return Err(Failure::from_the_future(from, store.revision()));
            }
            // As the real server: an event of a watch that began well.
            Some(from) if from < store.cut() => {
                watch.tell("ERROR", &Failure::gone(from, store.cut()).status());
                watch.is_over = true;
            }
            Some(_) if !query.is_set("sendInitialEvents") => {}
            // From nothing, or explicitly so: what there is comes first.
            _ => {
                watch.at = store.revision();
                let found = store.list(&watch.target.kind.resource(), watch.target.namespace(), watch.at)?;
                let selector = watch.selector.clone();
                for object in found.iter().filter(|object| selector.matches(object)) {
                    watch.tell("ADDED", &watch.form.one(object));
                }
                if query.is_set("sendInitialEvents") && watch.wants_bookmarks {
                    watch.bookmark(&json!({INITIAL_END: "true"}));
                }
            }
        }
        drop(store);
        Ok(watch)
    }

    /// Its events, for a body.
    pub(super) fn frames(self) -> impl Stream<Item = io::Result<Frame<Bytes>>> {
        stream::unfold(self, |mut watch| async move {
            let line = watch.next().await?;
            Some((line.map(Frame::data), watch))
        })
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        loop {
            let controls = self.controls.borrow_and_update().clone();
            if controls.drops != self.drops {
                return Some(Err(io::Error::other("dropped by the test")));
            }
            if !controls.is_stalled {
                self.newest.borrow_and_update();
                self.collect();
                if controls.bookmarks != self.bookmarks {
                    self.bookmarks = controls.bookmarks;
                    self.bookmark(&Value::Null);
                }
                if let Some(line) = self.lines.pop_front() {
                    return Some(Ok(line));
                }
                if self.is_over {
                    return None;
                }
            }
            tokio::select! {
                _ = self.newest.changed(), if !controls.is_stalled => {}
                changed = self.controls.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.deadline) => {
                    // As the real server: a last bookmark, so that the next watch begins here.
                    self.is_over = true;
                    if controls.is_stalled {
                        return None;
                    }
                    self.bookmark(&Value::Null);
                }
            }
        }
    }

    /// Lines for what is new.
    fn collect(&mut self) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store.lock().unwrap();
        if self.is_over || self.at == store.revision() {
            return;
        }
        match store.since(self.at) {
            Ok(changes) => {
                let resource = self.target.kind.resource();
                let namespace = self.target.namespace().map(str::to_owned);
                for change in changes.filter(|change| change.is_of(&resource, namespace.as_deref())) {
                    self.change(change);
                }
            }
            Err(failure) => {
                self.tell("ERROR", &failure.status());
                self.is_over = true;
            }
        }
        self.at = store.revision();
    }

    /// An object that begins or ends to match is added or deleted, for this watch.
    fn change(&mut self, change: &Change) {
        let matching =
            |object: &Option<Arc<Value>>| object.clone().filter(|object| self.selector.matches(object));
        let (kind, object) = match (matching(&change.before), matching(&change.after)) {
            (None, None) => return,
            (None, Some(after)) => ("ADDED", after),
            (Some(_), Some(after)) => ("MODIFIED", after),
            (Some(before), None) => {
                let mut last = change.after.as_deref().unwrap_or(&before).clone();
                last["metadata"]["resourceVersion"] = change.revision.to_string().into();
                ("DELETED", Arc::new(last))
            }
        };
        self.tell(kind, &self.form.one(&object));
    }

    fn bookmark(&mut self, annotations: &Value) {
        if !self.wants_bookmarks {
            return;
        }
        let mut metadata = json!({"resourceVersion": self.at.to_string(), "creationTimestamp": null});
        if !annotations.is_null() {
            metadata["annotations"] = annotations.clone();
        }
        let kind = &self.target.kind;
        let object = json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata});
        self.tell("BOOKMARK", &self.form.one(&object));
    }

    fn tell(&mut self, kind: &str, object: &Value) {
        self.lines.push_back(format!("{}\n", json!({"type": kind, "object": object})).into());
    }
}
