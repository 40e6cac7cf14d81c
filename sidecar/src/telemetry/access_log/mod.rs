//! The access log: one record of each request or stream, also of one that was cancelled, as a line of JSON or as a
//! template says.
//!
//! ```text
//!   trail ─▶ take: one line ─▶ bounded buffer ─▶ a thread of its own ─▶ standard output | file
//! ```
//! # Invariants
//! - Nothing of it runs where requests are served: the task that takes trails in formats, a thread writes.
//! - A record is exactly one line, whatever bytes apps and peers sent; it has a bounded length.
//! - Nobody waits for the log: what does not fit into the buffer is dropped and counted.
//! - Of header fields there are only the listed ones, and never those that carry secrets. Of a target, the path; the
//!   query only where a template asks for it.

mod field;
mod file;
mod record;
mod secrets;
mod sink;
mod template;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, SystemTime},
};

use http::HeaderName;
use time::OffsetDateTime;

pub use secrets::is_redacted;

use self::{sink::Sink, template::Template};
use super::{observer::Told, trail::Trail};
use crate::{
    clock::Clock,
    model::telemetry::{AccessLogSettings, LogFormat},
};

/// Whether a template is sound.
///
/// # Errors
/// What is wrong with it, in words for an operator: the placeholder, and those that there are.
pub fn check_template(template: &str) -> Result<(), String> {
    Template::parse(template).map(drop)
}

/// The fields of request and answer that a template names; none of one that is not sound.
#[must_use]
pub fn template_headers(template: &str) -> (Vec<HeaderName>, Vec<HeaderName>) {
    Template::parse(template).map(|template| template.headers()).unwrap_or_default()
}

/// What became of records.
#[derive(Debug, Default)]
pub struct RecordCounts {
    /// Records that were written.
    pub written: AtomicU64,
    /// Records that were dropped: more came than could be written.
    pub dropped: AtomicU64,
}

/// Writes records. For one task, which takes all trails in.
#[derive(Debug)]
pub struct AccessLog {
    clock: Clock,
    counts: Arc<RecordCounts>,
    active: Option<Active>,
    line: Vec<u8>,
}

/// What is in force.
#[derive(Debug)]
struct Active {
    settings: Arc<AccessLogSettings>,
    /// `None`: JSON.
    template: Option<Template>,
    sink: Sink,
}

impl AccessLog {
    /// One that writes nothing yet.
    #[must_use]
    pub fn new(clock: &Clock, counts: &Arc<RecordCounts>) -> Self {
        Self { clock: clock.clone(), counts: Arc::clone(counts), active: None, line: Vec::new() }
    }

    /// Goes by these settings from here on. What was taken in before is written to where it was to go; a file is opened
    /// anew if it is not there any more.
    pub fn set(&mut self, settings: Option<&Arc<AccessLogSettings>>) {
        let Some(settings) = settings else {
            self.active = None;
            return;
        };
        let template = match &settings.format {
            LogFormat::Json => None,
            LogFormat::Template(text) => match Template::parse(text) {
                Ok(template) => Some(template),
                Err(problem) => {
                    tracing::error!(problem, "the access log's template is none: records are JSON");
                    None
                }
            },
        };
        let kept = self.active.take().map(|active| active.sink);
        let sink = match kept.filter(|sink| sink.path() == settings.path.as_deref()) {
            Some(sink) => {
                sink.look_again();
                Ok(sink)
            }
            None => Sink::start(settings.path.clone(), &self.clock, &self.counts),
        };
        match sink {
            Ok(sink) => self.active = Some(Active { settings: Arc::clone(settings), template, sink }),
            Err(error) => tracing::error!(%error, "no thread for the access log: there is none"),
        }
    }

    /// Takes a trail in, and writes its record if one is wanted.
    pub fn take(&mut self, told: &Told) {
        let Some(active) = &self.active else { return };
        let (trail, wanted) = (&*told.trail, told.wanted);
        if !(wanted.is_logged || (wanted.is_logged_on_error && trail.is_error())) {
            return;
        }
        let arrived = arrived(&self.clock, trail);
        self.line.clear();
        match &active.template {
            None => record::json(&mut self.line, trail, arrived, &active.settings),
            Some(template) => record::template(&mut self.line, template, trail, arrived),
        }
        active.sink.push(&self.line);
    }

    /// Writes what was taken in, for so long at most, and ends.
    pub async fn finish(&mut self, limit: Duration) {
        if let Some(active) = self.active.take() {
            active.sink.finish(limit).await;
        }
    }
}

/// When a request came, by the wall clock as it goes now.
fn arrived(clock: &Clock, trail: &Trail) -> OffsetDateTime {
    let ago = clock.now().saturating_duration_since(trail.started);
    let since = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    let nanos = i128::try_from(since.as_nanos()).unwrap_or_default();
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
