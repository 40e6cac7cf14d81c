//! The log of decisions: what a run did, in order, in words that a second run of the same seed must repeat.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    subscriber::DefaultGuard,
};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    layer::{Context, SubscriberExt},
    util::SubscriberInitExt,
};

/// The lines of one run. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    now: Duration,
    is_printed: bool,
    lines: Vec<String>,
}

impl Log {
    /// A log whose lines are printed as they come, if somebody wants to see them: a run may not come to its end.
    pub(super) fn new(is_printed: bool) -> Self {
        Self(Arc::new(Mutex::new(Lines { is_printed, ..Lines::default() })))
    }

    /// Sets the time of the lines to come. Not read from the host's clock: there is none while a host crashes, and
    /// what is dropped then writes lines too.
    pub(super) fn set_time(&self, now: Duration) {
        self.0.lock().unwrap().now = now;
    }

    /// Adds a line.
    pub(super) fn write(&self, line: impl fmt::Display) {
        let mut lines = self.0.lock().unwrap();
        let line = format!("{:>6} ms {line}", lines.now.as_millis());
        if lines.is_printed {
            println!("{line}");
        }
        lines.lines.push(line);
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.clone()
    }

    /// Takes in what the sidecars on this thread log, until the guard is dropped.
    pub(super) fn listen(&self) -> DefaultGuard {
        let ours = Targets::new().with_target("outrider", Level::DEBUG);
        tracing_subscriber::registry().with(self.clone().with_filter(ours)).set_default()
    }
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut words = Words(String::new());
        event.record(&mut words);
        self.write(format_args!("{}:{}", event.metadata().target(), words.0));
    }
}

struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}
