//! What the demo says while it runs: lines, events with their time, and one live line on a terminal.

use std::{
    convert::Infallible,
    io::{self, IsTerminal, Write},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::termios::tcgetwinsize;

use super::load::Tally;
use crate::{
    effects,
    otlp::waterfall::{MIN_WIDTH, WIDTH},
};

/// Drawings are not wider: an eye has to follow their lines.
const MAX_WIDTH: usize = 132;

/// Standard output. Failing to write to it (a closed pipe) never stops the demo, which has processes to end.
#[derive(Debug)]
pub struct Console {
    is_terminal: bool,
    /// Whether the live line is on the screen, to be wiped before anything else.
    live: Mutex<bool>,
}

impl Console {
    /// The console.
    #[must_use]
    pub fn new() -> Self {
        Self { is_terminal: io::stdout().is_terminal(), live: Mutex::new(false) }
    }

    /// Columns for drawings: the terminal's, within bounds, or [`WIDTH`].
    #[must_use]
    pub fn width(&self) -> usize {
        let size = if self.is_terminal { tcgetwinsize(io::stdout()).ok() } else { None };
        let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
        columns.unwrap_or(WIDTH).clamp(MIN_WIDTH, MAX_WIDTH)
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        self.print(text, false);
    }

    /// Prints an event with the time since the load began.
    pub fn event(&self, since: Instant, text: &str) {
        let at = effects::now().saturating_duration_since(since);
        self.line(&format!("{:>6.1} s  * {text}", at.as_secs_f64()));
    }

    /// Shows a line that the next one replaces; without a terminal, a line like any other.
    pub fn live_line(&self, text: &str) {
        self.print(text, self.is_terminal);
    }

    /// The same, but only on a terminal.
    pub fn show_live(&self, text: &str) {
        if self.is_terminal {
            self.live_line(text);
        }
    }

    fn print(&self, text: &str, live: bool) {
        let mut on_screen = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let wipe = if *on_screen { "\r\x1b[2K" } else { "" };
        let end = if live { "" } else { "\n" };
        *on_screen = live;
        let mut out = io::stdout().lock();
        // Nobody reads any more: go on, and end in order.
        drop(write!(out, "{wipe}{text}{end}").and_then(|()| out.flush()));
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// Shows once per second how the load is doing, for as long as it is awaited.
pub async fn show(tally: &Tally, since: Instant, console: &Console) -> Infallible {
    let second = Duration::from_secs(1);
    let mut tick = tokio::time::interval_at((since + second).into(), second);
    let mut before = 0;
    loop {
        tick.tick().await;
        let now = tally.read();
        let done = now.ok + now.failed;
        let at = effects::now().saturating_duration_since(since);
        let text = format!(
            "{:>6.1} s  {:>5}/s   ok {:<7} failed {:<4} p50 {} ms   p99 {} ms",
            at.as_secs_f64(),
            done - before,
            now.ok,
            now.failed,
            millis(now.latency.quantile_ms(0.5)),
            millis(now.latency.quantile_ms(0.99)),
        );
        console.live_line(&text);
        before = done;
    }
}

/// Milliseconds for people: `-` where nothing was measured.
#[must_use]
pub fn millis(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}
