//! Manifests as text: streams of YAML or JSON documents, read and written.
//!
//! Comments do not survive. Values do, as `kubectl` reads them: `0644` is 420, `yes` is true, what is in quotes is text.

mod emit;

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Options, budget, options};

pub use self::emit::yaml;

/// Largest stream that is read, in bytes: some ten thousand manifests.
pub const MAX_BYTES: usize = 64 * 1024 * 1024;
/// Nodes of one stream; what repeats itself by aliases is stopped here.
const MAX_NODES: usize = 8_000_000;
/// Nodes of a small document.
const MAX_SMALL_NODES: usize = 10_000;
/// How deep a manifest may be nested; schemas inside of CRDs are at about 40.
const MAX_DEPTH: usize = 128;
/// Documents of one stream.
const MAX_DOCUMENTS: usize = 100_000;

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// YAML, documents separated by `---`.
    Yaml,
    /// JSON, one document after the other.
    Json,
}

/// Why a stream cannot be read, in words for its author.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no YAML.
    #[error("is no YAML: {0}")]
    Yaml(String),
    /// It begins like JSON and is none.
    #[error("is no JSON: {0}")]
    Json(String),
    /// It is too long.
    #[error("has more than {MAX_BYTES} bytes")]
    TooLong,
}

/// Reads all documents of a stream; empty ones are left out. What begins with `{` or `[` is JSON if it can be read as
/// that.
///
/// # Errors
/// [`Error`].
pub fn read(text: &str) -> Result<(Vec<Value>, Format), Error> {
    if text.len() > MAX_BYTES {
        return Err(Error::TooLong);
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        let documents: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(text).into_iter().collect();
        match documents {
            Ok(documents) => return Ok((documents, Format::Json)),
            // A flow mapping of YAML begins like this, too. That JSON which is broken is told as JSON is for its author.
            Err(error) if error.is_eof() => return Err(Error::Json(error.to_string())),
            Err(_) => {}
        }
    }
    let documents = serde_saphyr::from_multiple_with_options::<Value>(text, bounds());
    let documents = documents.map_err(|error| Error::Yaml(error.render().trim_end().to_owned()))?;
    Ok((documents.into_iter().filter(|document| !document.is_null()).collect(), Format::Yaml))
}

/// Reads one document of a few hundred lines, of somebody who may mean harm; `None`: it is no such thing.
#[must_use]
pub fn small(text: &str) -> Option<Value> {
    let budget = budget! {
        max_depth: 32,
        max_nodes: MAX_SMALL_NODES,
        max_events: 2 * MAX_SMALL_NODES,
        max_documents: 1,
    };
    let options = options! { budget: budget, legacy_octal_numbers: true };
    serde_saphyr::from_str_with_options(text, options).ok()
}

/// Writes documents as a stream.
#[must_use]
pub fn write(documents: &[Value], format: Format) -> String {
    let one = |document: &Value| match format {
        Format::Yaml => yaml(document),
        Format::Json => format!("{document:#}\n"),
    };
    let separator = match format {
        Format::Yaml => "---\n",
        Format::Json => "",
    };
    documents.iter().map(one).collect::<Vec<_>>().join(separator)
}

fn bounds() -> Options {
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
            max_total_scalar_bytes: MAX_BYTES,
            max_documents: MAX_DOCUMENTS,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
        // As kubectl has it: 0644 is a mode and not six hundred and forty-four.
        legacy_octal_numbers: true,
    }
}

#[cfg(test)]
mod tests;
