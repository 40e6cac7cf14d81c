//! The one task that takes trails in, off the data path, and hands each to whoever wants it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    AccessLog, Insight,
    access_log::RecordCounts,
    anchor::Anchor,
    arriving::Arriving,
    export::{Dialing, Exports, SpanExporter},
    finish::{Finisher, finisher},
    observer::Told,
    spans::Maker,
};
use crate::{
    clock::Clock,
    drain,
    model::{
        snapshot::Snapshots,
        telemetry::{TelemetrySettings, TraceSettings},
    },
};

/// All who want trails.
#[derive(Debug)]
pub struct Consumers {
    spans: Spans,
    access_log: AccessLog,
    insight: Arc<Insight>,
}

impl Consumers {
    /// None has seen anything yet. Nothing runs and nobody is connected to before settings ask for it.
    #[must_use]
    pub fn new(
        dialing: &Dialing,
        clock: &Clock,
        exports: &Arc<Exports>,
        records: &Arc<RecordCounts>,
        insight: &Arc<Insight>,
    ) -> Self {
        Self {
            spans: Spans::new(dialing, clock, exports),
            access_log: AccessLog::new(clock, records),
            insight: Arc::clone(insight),
        }
    }

    /// Goes by these settings from here on.
    fn set(&mut self, settings: &TelemetrySettings) {
        self.spans.set(settings.traces.as_ref());
        self.access_log.set(settings.access_log.as_ref());
    }

    fn take(&mut self, told: Told) {
        self.spans.take(&told);
        if told.trail.is_mirror {
            return;
        }
        self.access_log.take(&told);
        // Last: it keeps some.
        self.insight.take(told.trail);
    }

    /// Sends what waits, for so long at most.
    async fn finish(&mut self, limit: Duration) {
        tokio::join!(self.spans.finish(limit), self.access_log.finish(limit));
    }
}

/// Starts to take trails in, for as long as there is somebody who sends them. Settings are those of the newest snapshot.
pub fn watch(mut arriving: Arriving, mut consumers: Consumers, snapshots: Snapshots) -> Finisher {
    let (finish, mut finishing) = finisher();
    drain::spawn_background(async move {
        let (mut number, mut batch) = (None, Vec::new());
        loop {
            let before = number;
            let newer = snapshots.until(move |snapshot| Some(snapshot.config.number) != before);
            let mut newer = std::pin::pin!(newer);
            let snapshot = loop {
                tokio::select! {
                    biased;
                    snapshot = &mut newer => break snapshot,
                    Some(finish) = finishing.recv() => {
                        arriving.left().for_each(|told| consumers.take(told));
                        consumers.finish(finish.limit()).await;
                        finish.done();
                    }
                    is_open = arriving.next(&mut batch) => {
                        if !is_open {
                            return;
                        }
                        batch.drain(..).for_each(|told| consumers.take(told));
                    }
                }
            };
            number = Some(snapshot.config.number);
            // What came before belongs to those who asked for it.
            arriving.left().for_each(|told| consumers.take(told));
            consumers.set(&snapshot.config.settings.telemetry);
        }
    });
    finish
}

/// Makes spans of trails.
#[derive(Debug)]
struct Spans {
    clock: Clock,
    maker: Maker,
    anchor: Anchor,
    dialing: Dialing,
    exports: Arc<Exports>,
    settings: Option<Arc<TraceSettings>>,
    /// Once spans were asked for.
    exporter: Option<(SpanExporter, fastrand::Rng)>,
    errors: Allowance,
}

impl Spans {
    fn new(dialing: &Dialing, clock: &Clock, exports: &Arc<Exports>) -> Self {
        Self {
            clock: clock.clone(),
            maker: Maker::default(),
            anchor: Anchor::now(clock),
            dialing: dialing.clone(),
            exports: Arc::clone(exports),
            settings: None,
            exporter: None,
            errors: Allowance::new(0, clock.now()),
        }
    }

    fn set(&mut self, settings: Option<&Arc<TraceSettings>>) {
        if self.settings.as_ref() == settings {
            return;
        }
        self.settings = settings.cloned();
        let errors = settings.map_or(0, |settings| settings.errors_per_second);
        if errors != self.errors.per_second {
            self.errors = Allowance::new(errors, self.clock.now());
        }
        if settings.is_some() && self.exporter.is_none() {
            let (exporter, sending) = SpanExporter::new(&self.dialing, &self.clock, &self.exports);
            drain::spawn_background(sending);
            self.exporter = Some((exporter, self.clock.fork_rng()));
        }
        if let Some((exporter, _)) = &self.exporter {
            exporter.set(settings);
        }
    }

    fn take(&mut self, told: &Told) {
        let (Some(_), Some((exporter, rng))) = (&self.settings, &mut self.exporter) else { return };
        let (trail, wanted) = (&told.trail, told.wanted);
        let is_wanted = wanted.is_sampled
            || (wanted.is_traced_on_error && trail.is_failed() && self.errors.take(self.clock.now()));
        if is_wanted {
            self.anchor.refresh(&self.clock);
            exporter.push(self.maker.of(trail, &self.anchor, rng));
        }
    }

    async fn finish(&mut self, limit: Duration) {
        if let Some((exporter, _)) = self.exporter.as_ref().filter(|_| self.settings.is_some()) {
            exporter.flush(limit).await;
        }
    }
}

/// So many a second; what was not used within a second is gone.
#[derive(Debug)]
struct Allowance {
    per_second: u32,
    left: f64,
    at: Instant,
}

impl Allowance {
    fn new(per_second: u32, now: Instant) -> Self {
        Self { per_second, left: f64::from(per_second), at: now }
    }

    fn take(&mut self, now: Instant) -> bool {
        let most = f64::from(self.per_second);
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + passed * most).min(most);
        self.at = now;
        let is_there = self.left >= 1.0;
        if is_there {
            self.left -= 1.0;
        }
        is_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_failures_a_second_and_no_more() {
        let start = Clock::system().now();
        let mut allowance = Allowance::new(2, start);
        let mut took = |after: f64| allowance.take(start + Duration::from_secs_f64(after));
        assert_eq!([took(0.0), took(0.0), took(0.0)], [true, true, false]);
        assert_eq!([took(0.4), took(0.5), took(0.6)], [false, true, false]);
        assert_eq!([took(9.0), took(9.0), took(9.0)], [true, true, false], "nothing is saved up");
        assert!(!Allowance::new(0, start).take(start + Duration::from_secs(9)));
    }
}
