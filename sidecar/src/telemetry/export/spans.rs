//! Spans on their way: a bounded queue, and the one task that empties it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use opentelemetry_sdk::trace::SpanData;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::{
    connect::Dialing,
    counts::{ExportCounts, Exports},
    courier::Courier,
    failure::Failed,
};
use crate::{clock::Clock, model::telemetry::TraceSettings};

/// Between two warnings about one collector.
const QUIET: Duration = Duration::from_secs(60);
/// For what waits when spans are switched off.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Spans of one message then.
const LAST_BATCH: usize = 512;

/// Spans that wait to be sent.
#[derive(Debug, Default)]
pub struct SpanQueue {
    waiting: Mutex<VecDeque<SpanData>>,
    limit: AtomicUsize,
    news: Notify,
    /// Spans of the message that is under way.
    under_way: AtomicUsize,
    exports: Arc<Exports>,
}

impl SpanQueue {
    /// Appends spans; what is over the limit is dropped and counted.
    pub fn push(&self, spans: Vec<SpanData>) {
        let limit = self.limit.load(Ordering::Relaxed);
        let mut waiting = self.waiting();
        for span in spans {
            if waiting.len() < limit {
                waiting.push_back(span);
            } else {
                self.counts().dropped_queue.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.counts().waiting.store(waiting.len() as u64, Ordering::Relaxed);
        drop(waiting);
        self.news.notify_one();
    }

    fn counts(&self) -> &ExportCounts {
        &self.exports.spans
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<SpanData>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, most: usize) -> Vec<SpanData> {
        let mut waiting = self.waiting();
        let count = most.min(waiting.len());
        let taken = waiting.drain(..count).collect();
        self.counts().waiting.store(waiting.len() as u64, Ordering::Relaxed);
        taken
    }

    /// Resolves when at least so many wait. Cancel-safe.
    async fn has(&self, count: usize) {
        while self.waiting().len() < count {
            self.news.notified().await;
        }
    }
}

/// What the task that takes trails in has of it.
#[derive(Debug)]
pub struct SpanExporter {
    queue: Arc<SpanQueue>,
    settings: watch::Sender<Option<Arc<TraceSettings>>>,
    flushes: mpsc::Sender<oneshot::Sender<()>>,
}

impl SpanExporter {
    /// The exporter, and what its task does: to be run on the control side.
    pub fn new(
        dialing: &Dialing,
        clock: &Clock,
        exports: &Arc<Exports>,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let queue = Arc::new(SpanQueue { exports: Arc::clone(exports), ..SpanQueue::default() });
        let (settings, changes) = watch::channel(None);
        let (flushes, asked) = mpsc::channel(1);
        let sending = Sending {
            queue: Arc::clone(&queue),
            dialing: dialing.clone(),
            clock: clock.clone(),
            courier: None,
            not_before: None,
            warned: None,
        };
        (Self { queue, settings, flushes }, sending.run(changes, asked))
    }

    /// Goes by these settings from here on. What waits is kept, and goes to the new collector.
    pub fn set(&self, settings: Option<&Arc<TraceSettings>>) {
        self.queue.limit.store(settings.map_or(0, |settings| settings.queue), Ordering::Relaxed);
        self.settings.send_replace(settings.cloned());
    }

    /// Takes spans; never waits.
    pub fn push(&self, spans: Vec<SpanData>) {
        self.queue.push(spans);
    }

    /// Sends what waits, for so long at most.
    pub async fn flush(&self, limit: Duration) {
        let (done, flushed) = oneshot::channel();
        let flush = async {
            if self.flushes.send(done).await.is_ok() {
                drop(flushed.await);
            }
        };
        if tokio::time::timeout(limit, flush).await.is_err() {
            let under_way = self.queue.under_way.load(Ordering::Relaxed);
            tracing::warn!(
                spans = self.queue.waiting().len() + under_way,
                "spans are left unsent: no collector took them in time"
            );
        }
    }
}

/// The task.
struct Sending {
    queue: Arc<SpanQueue>,
    dialing: Dialing,
    clock: Clock,
    courier: Option<Courier>,
    /// The collector asked to be left alone until then.
    not_before: Option<Instant>,
    /// When a failure was warned of; `None` after a success.
    warned: Option<Instant>,
}

impl Sending {
    async fn run(
        mut self,
        mut changes: watch::Receiver<Option<Arc<TraceSettings>>>,
        mut flushes: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        loop {
            let settings = changes.borrow_and_update().clone();
            self.follow(settings.as_deref()).await;
            let queue = Arc::clone(&self.queue);
            tokio::select! {
                biased;
                flush = flushes.recv() => {
                    let Some(done) = flush else { return };
                    self.send_all(settings.as_deref()).await;
                    // Whoever asked may have given up.
                    let _given_up = done.send(());
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = due(&queue, settings.as_deref(), self.not_before) => {
                    if let Some(settings) = &settings {
                        self.send_batch(settings.batch).await;
                    }
                }
            }
        }
    }

    /// Makes the way to the collector that the settings name, if it is another one.
    async fn follow(&mut self, settings: Option<&TraceSettings>) {
        let Some(settings) = settings else {
            if self.courier.is_some() {
                let all = self.send_all_in(LAST_BATCH);
                drop(tokio::time::timeout(LAST_WORDS, all).await);
                let under_way = self.queue.under_way.swap(0, Ordering::Relaxed);
                let left = (self.queue.take(usize::MAX).len() + under_way) as u64;
                self.queue.counts().dropped_queue.fetch_add(left, Ordering::Relaxed);
                self.courier = None;
            }
            return;
        };
        if self.courier.as_ref().is_none_or(|courier| *courier.export() != settings.export) {
            self.courier = Some(Courier::new(&settings.export, &self.dialing, &self.clock));
            (self.not_before, self.warned) = (None, None);
        }
    }

    async fn send_all(&mut self, settings: Option<&TraceSettings>) {
        if let Some(settings) = settings {
            self.send_all_in(settings.batch).await;
        }
    }

    async fn send_all_in(&mut self, batch: usize) {
        while !self.queue.waiting().is_empty() {
            self.send_batch(batch).await;
        }
    }

    async fn send_batch(&mut self, most: usize) {
        let Some(courier) = &self.courier else { return };
        let spans = self.queue.take(most);
        let count = spans.len() as u64;
        if count == 0 {
            return;
        }
        self.queue.under_way.store(spans.len(), Ordering::Relaxed);
        let result = courier.send(spans).await;
        self.queue.under_way.store(0, Ordering::Relaxed);
        let endpoint = courier.export().endpoint.to_string();
        let (counts, wall) = (self.queue.counts(), self.clock.wall());
        match result {
            Ok(accepted) => {
                let rejected = accepted.rejected.min(count);
                counts.took(count - rejected, rejected, wall);
                self.not_before = None;
                if rejected > 0 || !accepted.said.is_empty() {
                    let said = accepted.said;
                    self.warn(|| {
                        tracing::warn!(
                            endpoint,
                            rejected,
                            said,
                            "a collector does not take all spans: see what it says"
                        )
                    });
                } else if self.warned.take().is_some() {
                    tracing::info!(endpoint, "the collector takes spans");
                }
            }
            Err(Failed { is_refused, why, rest }) => {
                counts.lost(count, is_refused, &why, wall);
                self.not_before = rest.map(|rest| self.clock.now() + rest);
                self.warn(|| {
                    if is_refused {
                        tracing::warn!(endpoint, why, "a collector refuses spans, they are dropped: check telemetry.traces (endpoint, protocol, headers)");
                    } else {
                        tracing::warn!(endpoint, why, "no collector takes spans, they are dropped: see that it runs there, or change telemetry.traces");
                    }
                });
            }
        }
    }

    /// Warns, at most so often.
    fn warn(&mut self, warn: impl FnOnce()) {
        let now = self.clock.now();
        if self.warned.is_none_or(|before| now.saturating_duration_since(before) >= QUIET) {
            self.warned = Some(now);
            warn();
        }
    }
}

/// Resolves when something is to be sent: a full batch, or what has waited for long enough. Cancel-safe.
async fn due(queue: &SpanQueue, settings: Option<&TraceSettings>, not_before: Option<Instant>) {
    let Some(settings) = settings else { return std::future::pending().await };
    queue.has(1).await;
    if let Some(at) = not_before {
        tokio::time::sleep_until(at.into()).await;
    }
    drop(tokio::time::timeout(settings.interval, queue.has(settings.batch)).await);
}
