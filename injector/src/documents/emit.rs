//! Writes YAML that every reader reads alike: those of YAML 1.1 (`kubectl`), of 1.2, and the sidecar's.
//!
//! A text stands without quotes only if no reader could take it for anything else; everything else is quoted as JSON
//! does, or is a literal block if it has several plain lines, as the sidecar's configuration.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A value as one YAML document, with a line's end behind it.
#[must_use]
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(object) if !object.is_empty() => mapping(&mut out, object, 0),
        Value::Array(list) if !list.is_empty() => sequence(&mut out, list, 0),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => {
            inline(&mut out, value, 0);
            out.push('\n');
        }
    }
    out
}

fn indent(out: &mut String, depth: usize) {
    out.extend(std::iter::repeat_n("  ", depth));
}

fn mapping(out: &mut String, object: &Map<String, Value>, depth: usize) {
    for (number, (key, value)) in object.iter().enumerate() {
        // The first key stands where its `- ` or the document begins.
        if number > 0 || out.ends_with('\n') {
            indent(out, depth);
        }
        text(out, key);
        out.push(':');
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                out.push('\n');
                mapping(out, inner, depth + 1);
            }
            Value::Array(inner) if !inner.is_empty() => {
                out.push('\n');
                sequence(out, inner, depth + 1);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                out.push(' ');
                inline(out, value, depth + 1);
                out.push('\n');
            }
        }
    }
}

fn sequence(out: &mut String, list: &[Value], depth: usize) {
    for item in list {
        indent(out, depth);
        out.push_str("- ");
        match item {
            Value::Object(inner) if !inner.is_empty() => mapping(out, inner, depth + 1),
            Value::Array(inner) if !inner.is_empty() => {
                // A list in a list, on lines of its own.
                out.pop();
                out.push('\n');
                sequence(out, inner, depth + 1);
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {
                inline(out, item, depth + 1);
                out.push('\n');
            }
        }
    }
}

/// What fits on a line, or is a literal block.
fn inline(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        Value::String(string) if is_block(string) => block(out, string, depth),
        Value::String(string) => text(out, string),
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            write!(out, "{value}").expect("a string takes whatever is written");
        }
    }
}

fn text(out: &mut String, string: &str) {
    if is_plain(string) {
        out.push_str(string);
        return;
    }
    // A JSON string is a double-quoted one of YAML, but for what YAML takes for a line's end or does not print.
    for c in Value::String(string.to_owned()).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("a string takes whatever is written");
            }
            c => out.push(c),
        }
    }
}

/// Whether no reader can take it for anything but this text.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 13] =
        ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "nan", "inf", "infinity", "undefined"];
    let first = string.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'/');
    let rest = string.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
    first && rest && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(string))
}

/// Whether it has several lines that a literal block holds as they are.
fn is_block(string: &str) -> bool {
    let body = string.strip_suffix('\n').unwrap_or(string);
    let is_line = |line: &str| {
        !line.ends_with(' ') && line.chars().all(|c| (' '..='~').contains(&c)) && !line.starts_with("---")
    };
    body.contains('\n')
        && !body.starts_with([' ', '\n'])
        && !body.ends_with('\n')
        && body.split('\n').all(is_line)
}

fn block(out: &mut String, string: &str, depth: usize) {
    let (mark, body) = match string.strip_suffix('\n') {
        Some(body) => ("|", body),
        None => ("|-", string),
    };
    out.push_str(mark);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            indent(out, depth);
            out.push_str(line);
        }
    }
}
