//! The process's own log: one line per event to stderr, as text or JSON, with a level that can change while it runs.
//!
//! # Invariants
//! - An event is one line and no terminal escape, whatever a peer or an app chose of it; every value has a bound.
//! - No message floods the log: each is limited, and says how often it was held back.

mod limit;
mod line;

use std::io::{self, IsTerminal};

use tracing::Level;
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt::MakeWriter,
    layer::SubscriberExt,
    reload,
    util::{SubscriberInitExt, TryInitError},
};

use self::{limit::Limiter, line::Lines};
use crate::clock::Clock;

/// Longest filter that is taken, in bytes.
const MAX_FILTER_BYTES: usize = 256;

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; coloured on a terminal.
    Text,
    /// For machines: one JSON object per line.
    Json,
}

/// Why the log is not as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is no level and no list of `module=level`.
    #[error("{0:?} is not a log filter: use off, error, warn, info, debug, or a list of module=level")]
    Filter(String),
    /// The log's subscriber is gone.
    #[error("the log is shut down")]
    Gone,
    /// There is a log already.
    #[error("the log is already set up")]
    Taken(#[from] TryInitError),
}

/// Changes the level while the process runs. Clones change the same log.
#[derive(Clone, Debug)]
pub struct Control {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Control {
    /// Logs by this filter from here on: a level, or a list such as `warn,outrider::pipeline=debug`. Release builds
    /// have no TRACE. Returns the filter that was in force before.
    ///
    /// # Errors
    /// [`Error::Filter`] if it is none; the log stays as it is.
    pub fn set(&self, filter: &str) -> Result<String, Error> {
        let (filter, mut was) = (parse(filter)?, String::new());
        let change = |current: &mut EnvFilter| was = std::mem::replace(current, filter).to_string();
        self.filter.modify(change).map_err(|_gone| Error::Gone)?;
        Ok(was)
    }

    /// The filter in force.
    #[must_use]
    pub fn filter(&self) -> String {
        self.filter.with_current(ToString::to_string).unwrap_or_default()
    }
}

/// Sets up the log of this process. Once, before anything is logged.
///
/// # Errors
/// The filter is none, or there is a log already.
pub fn init(filter: &str, format: Format) -> Result<Control, Error> {
    let (layer, control) = layer(filter, format)?;
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(control)
}

/// The log as a layer that is not yet in force, for tests.
///
/// # Errors
/// The filter is none.
pub fn layer(filter: &str, format: Format) -> Result<(impl Layer<Registry> + Send + Sync, Control), Error> {
    let lines = Lines {
        format,
        is_coloured: io::stderr().is_terminal(),
        clock: Clock::system(),
        limiter: Limiter::default(),
        to: io::stderr,
    };
    filtered(filter, lines)
}

fn filtered<W>(filter: &str, lines: Lines<W>) -> Result<(impl Layer<Registry> + Send + Sync, Control), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    // It warns of every stray datagram, which anybody on the network can send; what matters of it, discovery says.
    let own = filter_fn(|event| !(event.target().starts_with("hickory") && *event.level() < Level::DEBUG));
    Ok((lines.with_filter(filter.and(own)), Control { filter: handle }))
}

fn parse(filter: &str) -> Result<EnvFilter, Error> {
    let fault = || Error::Filter(filter.chars().take(MAX_FILTER_BYTES).collect());
    // `EnvFilter` reads any single word as a module's name, so that `inof` would silence all.
    let is_level = |word: &str| matches!(word, "off" | "error" | "warn" | "info" | "debug" | "trace");
    let has_levels =
        filter.split(',').all(|part| is_level(part.trim().rsplit('=').next().unwrap_or_default()));
    if filter.len() > MAX_FILTER_BYTES || !has_levels {
        return Err(fault());
    }
    EnvFilter::try_new(filter).map_err(|_syntax| fault())
}

#[cfg(test)]
mod tests;
