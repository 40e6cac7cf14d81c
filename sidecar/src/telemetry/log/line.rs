//! One event as one line, whatever is in it: values that a peer or an app may have chosen are escaped and bounded.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
};

use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context};

use super::{Format, limit::Limiter};
use crate::{
    clock::Clock,
    telemetry::escape::{Escaped, Style},
};

/// Longest value, escaped, in bytes; the rest is cut.
const MAX_VALUE_BYTES: usize = 2048;
/// The field that counts what was held back before.
const SUPPRESSED: &str = "suppressed";
/// The field that tracing's macros put the message in.
const MESSAGE: &str = "message";

const TIME: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");

/// Writes events to `W`, as often as they may be.
#[derive(Debug)]
pub(super) struct Lines<W> {
    pub(super) format: Format,
    pub(super) is_coloured: bool,
    pub(super) clock: Clock,
    pub(super) limiter: Limiter,
    pub(super) to: W,
}

impl<S: Subscriber, W> Layer<S> for Lines<W>
where
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let Some(suppressed) = self.limiter.admit(event.metadata(), self.clock.now()) else { return };
        let mut line = Vec::with_capacity(256);
        let time = OffsetDateTime::from(self.clock.wall());
        match self.format {
            Format::Text => text(&mut line, event, (time, suppressed), self.is_coloured),
            Format::Json => json(&mut line, event, (time, suppressed)),
        }
        // Nobody is left to tell if the log cannot be written.
        self.to.make_writer_for(event.metadata()).write_all(&line).ok();
    }
}

/// `time LEVEL module: message key=value …`.
fn text(line: &mut Vec<u8>, event: &Event<'_>, (time, suppressed): (OffsetDateTime, u64), is_coloured: bool) {
    let metadata = event.metadata();
    let paint = |line: &mut Vec<u8>, codes: &str, piece: fmt::Arguments<'_>| {
        let written =
            if is_coloured { write!(line, "\x1b[{codes}m{piece}\x1b[0m") } else { line.write_fmt(piece) };
        // Writing to a `Vec` does not fail.
        written.ok();
    };
    let time = time.format(TIME).unwrap_or_default();
    paint(line, "2", format_args!("{time}"));
    line.push(b' ');
    paint(line, colour(*metadata.level()), format_args!("{:>5}", metadata.level()));
    line.push(b' ');
    paint(line, "2", format_args!("{}:", metadata.target()));
    let mut fields = TextFields(line);
    event.record(&mut fields);
    if suppressed > 0 {
        fields.value(SUPPRESSED, format_args!("{suppressed}"));
    }
    line.push(b'\n');
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        Level::INFO => "32",
        Level::DEBUG => "34",
        Level::TRACE => "35",
    }
}

struct TextFields<'a>(&'a mut Vec<u8>);

impl TextFields<'_> {
    fn value(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.0.push(b' ');
        if name != MESSAGE {
            self.0.extend_from_slice(name.as_bytes());
            self.0.push(b'=');
        }
        // It never fails, but a value's own `Debug` may.
        Escaped::new(self.0, Style::Text, MAX_VALUE_BYTES).write_fmt(value).ok();
    }
}

impl Visit for TextFields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.value(field.name(), format_args!("{value:?}"));
    }
}

/// `{"timestamp":…,"level":…,"message":…,key:value,…,"target":…}`.
fn json(line: &mut Vec<u8>, event: &Event<'_>, (time, suppressed): (OffsetDateTime, u64)) {
    let metadata = event.metadata();
    let time = time.format(TIME).unwrap_or_default();
    line.push(b'{');
    let mut fields = JsonFields(line);
    fields.text("timestamp", format_args!("{time}"));
    fields.text("level", format_args!("{}", metadata.level()));
    event.record(&mut fields);
    if suppressed > 0 {
        fields.plain(SUPPRESSED, format_args!("{suppressed}"));
    }
    fields.text("target", format_args!("{}", metadata.target()));
    line.extend_from_slice(b"}\n");
}

struct JsonFields<'a>(&'a mut Vec<u8>);

impl JsonFields<'_> {
    fn key(&mut self, name: &str) {
        if !self.0.ends_with(b"{") {
            self.0.push(b',');
        }
        self.0.push(b'"');
        Escaped::new(self.0, Style::Json, MAX_VALUE_BYTES).bytes(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.key(name);
        self.0.push(b'"');
        Escaped::new(self.0, Style::Json, MAX_VALUE_BYTES).write_fmt(value).ok();
        self.0.push(b'"');
    }

    /// A number, or what looks like one.
    fn plain(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.key(name);
        self.0.write_fmt(value).ok();
    }
}

impl Visit for JsonFields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field.name(), format_args!("{value}"));
        } else {
            self.text(field.name(), format_args!("{value}"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), format_args!("{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field.name(), format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field.name(), format_args!("{value:?}"));
    }
}
