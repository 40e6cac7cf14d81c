//! How many values a JSON text has, before memory is taken for them.
//!
//! A value takes a hundred bytes and more however short its text is, `0` or `{}`: a text of a few megabytes could become
//! hundreds. So they are counted in the text, where a value follows each `[`, `{` and `,`.

use super::review::MAX_REVIEW_BYTES;

/// Most values of a review. A large pod has a few thousand.
pub(super) const MAX_REVIEW_NODES: usize = 50_000;
/// Memory that a value takes at most while a review is worked on, in bytes: in the review, the pod that is made of it,
/// and what is compared. Measured: 280 for a number, 1370 for objects of one field, one in the other.
const BYTES_OF_NODE: usize = 1536;
/// Copies of a review's text at that time.
const COPIES_OF_TEXT: usize = 4;
/// KiB of memory for all reviews that are worked on at a time: the largest fits, or many of a usual size.
pub(super) const MAX_MEMORY_KIB: usize =
    (MAX_REVIEW_BYTES * COPIES_OF_TEXT + MAX_REVIEW_NODES * BYTES_OF_NODE).div_ceil(1024);

/// KiB of memory that working on a review takes at most. One with more than [`MAX_REVIEW_NODES`] is not taken apart.
pub(super) fn memory_kib(bytes: usize, nodes: usize) -> u32 {
    let nodes = if nodes > MAX_REVIEW_NODES { 0 } else { nodes };
    let kib = (bytes * COPIES_OF_TEXT + nodes * BYTES_OF_NODE).div_ceil(1024);
    u32::try_from(kib.min(MAX_MEMORY_KIB)).unwrap_or(u32::MAX)
}

/// Counts values of a text that comes in pieces: never fewer than there are.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    count: usize,
    is_in_string: bool,
    is_escaped: bool,
}

impl Nodes {
    pub(super) fn feed(&mut self, text: &[u8]) {
        for byte in text {
            match byte {
                _ if self.is_escaped => self.is_escaped = false,
                b'\\' if self.is_in_string => self.is_escaped = true,
                b'"' => self.is_in_string = !self.is_in_string,
                b'[' | b'{' | b',' if !self.is_in_string => self.count += 1,
                _ => {}
            }
        }
    }

    pub(super) fn count(&self) -> usize {
        self.count + 1
    }

    pub(super) fn of(text: &[u8]) -> usize {
        let mut nodes = Self::default();
        nodes.feed(text);
        nodes.count()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn values(value: &Value) -> usize {
        1 + match value {
            Value::Array(items) => items.iter().map(values).sum(),
            Value::Object(fields) => fields.values().map(values).sum(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        }
    }

    #[test]
    fn no_value_is_missed_and_texts_are_none() {
        let value = json!({"a": [1, "[,{", {"\\\"": [null, true]}], "b\\": "x\"[[["});
        let text = value.to_string();
        assert_eq!(values(&value), 9);
        assert_eq!(Nodes::of(text.as_bytes()), 9);
        for at in 0..text.len() {
            let (mut nodes, (one, other)) = (Nodes::default(), text.as_bytes().split_at(at));
            nodes.feed(one);
            nodes.feed(other);
            assert_eq!(nodes.count(), 9);
        }
        assert!(Nodes::of(b"[]") >= 1 && Nodes::of(b"0") == 1);
    }

    #[test]
    fn a_review_costs_memory_by_its_values_and_never_more_than_there_is() {
        assert_eq!(memory_kib(20 * 1024, 800), 80 + 1200);
        assert_eq!(memory_kib(1024, MAX_REVIEW_NODES + 1), 4);
        assert_eq!(memory_kib(MAX_REVIEW_BYTES, MAX_REVIEW_NODES) as usize, MAX_MEMORY_KIB);
    }
}
