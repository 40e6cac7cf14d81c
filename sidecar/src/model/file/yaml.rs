//! YAML, read with bounds.

use serde::de::DeserializeOwned;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options, budget, options};

use super::fault::Fault;

/// Largest file that is read, in bytes. 10,000 endpoints take about one megabyte.
pub const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Characters kept of one line of a snippet.
const MAX_LINE_CHARS: usize = 200;

/// Reads a file's text into its mirror.
///
/// # Errors
/// One fault, with its line and the lines around it: what breaks YAML's grammar or the file's shape (a list where
/// text belongs, a key given twice) leaves nothing to look at further. More than [`MAX_FILE_BYTES`] is refused too.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    if text.len() > MAX_FILE_BYTES {
        return Err(Fault {
            path: String::new(),
            line: None,
            problem: format!("the file is larger than {MAX_FILE_BYTES} bytes"),
            remedy: "move long endpoint lists to files of their own (endpoints_file)".to_owned(),
        });
    }
    serde_saphyr::from_str_with_options(text, bounds()).map_err(|error| fault(&error))
}

fn bounds() -> Options {
    options! {
        budget: budget! {
            max_depth: 16,
            max_nodes: 500_000,
            max_events: 1_000_000,
            max_total_scalar_bytes: MAX_FILE_BYTES,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
        },
        duplicate_keys: DuplicateKeyPolicy::Error,
    }
}

fn fault(error: &Error) -> Fault {
    let location = error.location();
    let line = location.map(|location| location.line()).filter(|line| *line > 0);
    // The rendering is one line with the message, then several with a snippet of the file.
    let rendered = error.render();
    let mut lines = rendered.lines().map(escaped);
    let message = lines.next().unwrap_or_default();
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let problem = match location {
        Some(at) => {
            let prefix = format!("line {} column {}: ", at.line(), at.column());
            message.strip_prefix(prefix.as_str()).unwrap_or(message)
        }
        None => message,
    };
    let snippet: String = lines.map(|line| format!("\n  {line}")).collect();
    let remedy = format!("mend the YAML at this place{snippet}");
    Fault { path: String::new(), line, problem: problem.to_owned(), remedy }
}

/// One line for a message: control characters escaped, cut after [`MAX_LINE_CHARS`].
fn escaped(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars().take(MAX_LINE_CHARS) {
        if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
    }
    text
}
