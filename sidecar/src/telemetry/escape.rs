//! Texts that somebody else chose, made fit for one line, of a log or before a person: no line end, no terminal escape, no
//! broken UTF-8, no more than so many bytes.

use std::fmt;

/// The text in [`Style::Ascii`], at most `max` bytes of it and three dots.
#[must_use]
pub fn shown(text: &str, max: usize) -> String {
    shown_bytes(text.as_bytes(), max)
}

/// The same of bytes that need not be text.
#[must_use]
pub fn shown_bytes(bytes: &[u8], max: usize) -> String {
    let mut out = Vec::with_capacity(bytes.len().min(max));
    Escaped::new(&mut out, Style::Ascii, max).bytes(bytes);
    String::from_utf8_lossy(&out).into_owned()
}

/// What the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    /// For people: what is not printed has its escape, as in Rust.
    Text,
    /// For people, wherever they read it: ASCII that is printed, the rest by its number, as in Rust.
    Ascii,
    /// The inside of a JSON string.
    Json,
    /// A place in a line that programs take apart.
    Place {
        /// Whether it is between quotation marks: spaces stay.
        is_quoted: bool,
        /// The character that ends it.
        until: Option<char>,
    },
}

/// Appends what is written to it, escaped, up to a limit. Never fails.
#[derive(Debug)]
pub(super) struct Escaped<'a> {
    out: &'a mut Vec<u8>,
    style: Style,
    /// Bytes that may still come; `None` after the cut.
    left: Option<usize>,
}

impl<'a> Escaped<'a> {
    /// Appends to `out` at most `limit` bytes, and the sign of the cut.
    pub(super) fn new(out: &'a mut Vec<u8>, style: Style, limit: usize) -> Self {
        Self { out, style, left: Some(limit) }
    }

    /// Appends bytes that may be no UTF-8. A character that is cut in two by the end of `bytes` is none.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            self.text(chunk.valid());
            if chunk.invalid().is_empty() {
                continue;
            }
            match self.style {
                Style::Text | Style::Ascii | Style::Json => self.character(char::REPLACEMENT_CHARACTER),
                Style::Place { .. } => self.hexadecimal(chunk.invalid()),
            }
        }
    }

    fn text(&mut self, text: &str) {
        for c in text.chars() {
            if self.left.is_none() {
                return;
            }
            self.character(c);
        }
    }

    fn character(&mut self, c: char) {
        let mut buffer = [0; 4];
        let utf8 = c.encode_utf8(&mut buffer).as_bytes();
        match self.style {
            Style::Text if is_printed(c) => self.push(utf8),
            Style::Text => {
                let escaped: String = c.escape_default().collect();
                self.push(escaped.as_bytes());
            }
            // Its escape would be read as one that we made.
            Style::Ascii if c == '\\' => self.push(b"\\\\"),
            Style::Ascii if matches!(c, ' '..='~') => self.push(utf8),
            Style::Ascii => self.push(format!("\\u{{{:x}}}", u32::from(c)).as_bytes()),
            Style::Json if matches!(c, '"' | '\\') => self.push(&[b'\\', c as u8]),
            Style::Json if is_printed(c) => self.push(utf8),
            // What is not printed is in the basic plane: one unit of UTF-16.
            Style::Json => self.push(format!("\\u{:04x}", u32::from(c)).as_bytes()),
            Style::Place { is_quoted, until } => {
                let is_special = matches!(c, '"' | '\\') || (c == ' ' && !is_quoted) || until == Some(c);
                if is_special || !is_printed(c) {
                    self.hexadecimal(utf8);
                } else {
                    self.push(utf8);
                }
            }
        }
    }

    fn hexadecimal(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(format!("\\x{byte:02x}").as_bytes());
        }
    }

    /// Appends what belongs together: all or nothing.
    fn push(&mut self, piece: &[u8]) {
        let Some(left) = self.left else { return };
        self.left = left.checked_sub(piece.len());
        let cut = if self.style == Style::Ascii { "..." } else { "…" };
        self.out.extend_from_slice(if self.left.is_some() { piece } else { cut.as_bytes() });
    }
}

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.text(text);
        Ok(())
    }
}

/// Whether a character is shown as it is: neither a control (C0, DEL, C1), nor one that ends a line or turns the
/// direction of what follows.
#[must_use]
pub fn is_printed(c: char) -> bool {
    let is_format = matches!(
        c,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    !c.is_control() && !is_format
}

#[cfg(test)]
mod tests {
    use super::*;

    fn escaped(bytes: &[u8], style: Style, limit: usize) -> String {
        let mut out = Vec::new();
        Escaped::new(&mut out, style, limit).bytes(bytes);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_style_takes_the_meaning_from_what_has_one() {
        let hostile = b"a b\"\\\n\x1b[31m\x9b \xc3\xa9|";
        let place = |is_quoted, until| Style::Place { is_quoted, until };
        assert_eq!(escaped(hostile, Style::Text, 99), "a b\"\\\\n\\u{1b}[31m\u{fffd} é|");
        assert_eq!(escaped(hostile, Style::Ascii, 99), "a b\"\\\\\\u{a}\\u{1b}[31m\\u{fffd} \\u{e9}|");
        assert_eq!(escaped(hostile, Style::Json, 99), "a b\\\"\\\\\\u000a\\u001b[31m\u{fffd} é|");
        assert_eq!(
            escaped(hostile, place(false, Some('|')), 99),
            "a\\x20b\\x22\\x5c\\x0a\\x1b[31m\\x9b\\x20é\\x7c"
        );
        assert_eq!(escaped(hostile, place(true, None), 99), "a b\\x22\\x5c\\x0a\\x1b[31m\\x9b é|");
        for style in [Style::Text, Style::Ascii, Style::Json, place(true, None)] {
            let turned = escaped("\u{202e}\u{2028}\u{85}".as_bytes(), style, 99);
            assert!(turned.is_ascii(), "{turned:?}");
        }
    }

    #[test]
    fn a_cut_leaves_no_half_of_anything() {
        assert_eq!(escaped(b"abcdef", Style::Json, 4), "abcd…");
        assert_eq!(escaped(b"abcd", Style::Json, 4), "abcd");
        assert_eq!(escaped(b"abc\ndef", Style::Json, 5), "abc…");
        assert_eq!(escaped("aéé".as_bytes(), Style::Json, 4), "aé…");
        assert_eq!((shown("abcd", 4), shown("ab\u{1b}", 7)), ("abcd".to_owned(), "ab...".to_owned()));
        assert_eq!(escaped(b"ab\"cd", Style::Place { is_quoted: true, until: None }, 4), "ab…");
    }
}
