//! One trail as one line: JSON with its keys in a fixed order, or a template with its places filled.

use std::{fmt::Write as _, io::Write as _, time::Duration};

use http::{HeaderName, HeaderValue};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    field::{self, FIELDS, Field, Value},
    secrets,
    template::{Fact, Piece, Template},
};
use crate::{
    model::telemetry::AccessLogSettings,
    telemetry::{
        escape::{Escaped, Style},
        trail::Trail,
    },
};

/// Longest text of a record, escaped, in bytes; the rest is cut.
const MAX_TEXT_BYTES: usize = 1024;
/// All texts of a record together, escaped, in bytes; the rest is cut.
const MAX_TEXTS_BYTES: usize = 8 * 1024;
/// What stands in a template for what there is not.
const ABSENT: &[u8] = b"-";

const RFC_3339: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
const COMMON_LOG: &[BorrowedFormatItem<'_>] =
    format_description!(version = 2, "[day]/[month repr:short]/[year]:[hour]:[minute]:[second] +0000");

/// A line being written, and how much of it texts may still take.
struct Line<'a> {
    out: &'a mut Vec<u8>,
    left: usize,
}

/// Appends a record as a JSON object and a line end. A key without a value is not there.
pub(super) fn json(out: &mut Vec<u8>, trail: &Trail, arrived: OffsetDateTime, settings: &AccessLogSettings) {
    let mut line = Line { out, left: MAX_TEXTS_BYTES };
    line.raw(b"{");
    for (key, field) in FIELDS {
        if field != Field::Attempts {
            line.member(key, &field::value(field, trail, arrived));
        }
    }
    // One attempt is told by `endpoint` and what follows; why it failed, only by itself.
    if trail.attempts.len() > 1 || trail.attempts.iter().any(|attempt| attempt.failure.is_some()) {
        line.key("attempts");
        for (index, attempt) in trail.attempts.iter().enumerate() {
            line.raw(if index == 0 { b"[{" } else { b",{" });
            field::of_attempt(attempt).iter().for_each(|(key, value)| line.member(key, value));
            line.raw(b"}");
        }
        line.raw(b"]");
    }
    line.headers("request_headers", &settings.request_headers, &trail.fields);
    line.headers("response_headers", &settings.response_headers, &trail.answer_fields);
    line.raw(b"}\n");
}

/// Appends a record as the template says, and a line end.
pub(super) fn template(out: &mut Vec<u8>, template: &Template, trail: &Trail, arrived: OffsetDateTime) {
    let mut line = Line { out, left: MAX_TEXTS_BYTES };
    for piece in &template.0 {
        let (fact, style) = match piece {
            Piece::Literal(text) => {
                line.raw(text.as_bytes());
                continue;
            }
            Piece::Fact(fact, style) => (fact, *style),
        };
        let before = line.out.len();
        match fact {
            Fact::Field(field) => line.value(&field::value(*field, trail, arrived), style),
            Fact::RequestHeader(name) => line.joined(name, &trail.fields, style),
            Fact::ResponseHeader(name) => line.joined(name, &trail.answer_fields, style),
        }
        if line.out.len() == before {
            line.raw(ABSENT);
        }
    }
    line.raw(b"\n");
}

impl Line<'_> {
    fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// A key of the object that is being written. The names of keys need no escape.
    fn key(&mut self, key: &str) {
        if !self.out.ends_with(b"{") {
            self.raw(b",");
        }
        self.raw(b"\"");
        self.raw(key.as_bytes());
        self.raw(b"\":");
    }

    fn member(&mut self, key: &str, value: &Value<'_>) {
        match value {
            Value::Absent => {}
            Value::Number(_) | Value::Millis(_) | Value::Is(_) => {
                self.key(key);
                self.value(value, Style::Json);
            }
            Value::Word(_) | Value::Text(_) | Value::Shown(_) | Value::Time(_) | Value::TimeClf(_) => {
                self.key(key);
                self.raw(b"\"");
                self.value(value, Style::Json);
                self.raw(b"\"");
            }
        }
    }

    fn headers(&mut self, key: &str, listed: &[HeaderName], fields: &[(HeaderName, HeaderValue)]) {
        let mut names = listed.iter().filter(|name| field::of_name(fields, name).next().is_some()).peekable();
        if names.peek().is_none() {
            return;
        }
        self.key(key);
        self.raw(b"{");
        for name in names {
            self.key(name.as_str());
            self.raw(b"\"");
            self.joined(name, fields, Style::Json);
            self.raw(b"\"");
        }
        self.raw(b"}");
    }

    /// All values of a field, as HTTP joins them (RFC 9110 §5.3).
    fn joined(&mut self, name: &HeaderName, fields: &[(HeaderName, HeaderValue)], style: Style) {
        for (index, value) in field::of_name(fields, name).enumerate() {
            if index > 0 {
                self.text(style, |text| text.bytes(b", "));
            }
            self.text(style, |text| text.bytes(secrets::shown(name, value)));
        }
    }

    fn value(&mut self, value: &Value<'_>, style: Style) {
        match value {
            Value::Absent => {}
            Value::Word(word) => self.raw(word.as_bytes()),
            Value::Text(bytes) => self.text(style, |text| text.bytes(bytes)),
            Value::Shown(shown) => self.text(style, |text| {
                // It never fails.
                write!(text, "{shown}").ok();
            }),
            Value::Number(number) => self.plain(format_args!("{number}")),
            Value::Millis(duration) => {
                let Millis { whole, micros } = Millis::of(*duration);
                self.plain(format_args!("{whole}.{micros:03}"));
            }
            Value::Is(is) => self.raw(if *is { b"true" } else { b"false" }),
            Value::Time(time) => self.time(*time, RFC_3339),
            Value::TimeClf(time) => self.time(*time, COMMON_LOG),
        }
    }

    /// Writing to a `Vec` does not fail.
    fn plain(&mut self, text: std::fmt::Arguments<'_>) {
        self.out.write_fmt(text).ok();
    }

    fn time(&mut self, time: OffsetDateTime, format: &[BorrowedFormatItem<'_>]) {
        // It fails for years that these formats have no room for: no clock shows one.
        time.format_into(&mut *self.out, format).ok();
    }

    fn text(&mut self, style: Style, write: impl FnOnce(&mut Escaped<'_>)) {
        let before = self.out.len();
        write(&mut Escaped::new(self.out, style, self.left.min(MAX_TEXT_BYTES)));
        self.left = self.left.saturating_sub(self.out.len() - before);
    }
}

/// Milliseconds with three decimals.
struct Millis {
    whole: u128,
    micros: u128,
}

impl Millis {
    fn of(duration: Duration) -> Self {
        let micros = duration.as_micros();
        Self { whole: micros / 1000, micros: micros % 1000 }
    }
}
