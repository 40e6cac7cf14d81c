//! The log of decisions: what a run did, in order, in words that a second run of the same seed must repeat.

use std::{
    fmt::{self, Write},
    sync::{Arc, Mutex},
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
pub(super) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Adds a line at the present virtual time.
    pub(super) fn write(&self, line: impl fmt::Display) {
        let now = turmoil::sim_elapsed().unwrap_or_default().as_millis();
        self.0.lock().unwrap().push(format!("{now:>6} ms {line}"));
    }

    /// All lines so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
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
