//! What comes of a case: what the server saw, what the caller was answered, and whether the connection stayed.
//!
//! ```text
//! METHOD TARGET HOST BYTES    the server saw such a request and answered it
//! NNN                         an answer to something that the server did not see
//! reset REASON                over HTTP/2: the stream was reset, and nothing was seen as a whole
//! refused                     no request was seen as a whole, and the caller got an error, a reset or nothing
//! broken                      no request was seen as a whole, and the connection was closed, with or without an answer
//! closed                      the request that followed was not seen; also behind an answer, as `400 closed`
//! ```
//! Where there is no `closed`, the request that followed was seen and answered.

use std::fmt;

use super::frames::End;

/// The target of the request that follows each case.
pub(super) const LAST: &str = "/last";

/// A request as a server saw it, as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) method: String,
    pub(super) target: String,
    pub(super) host: String,
    /// Bytes of the body.
    pub(super) bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Seen(Seen),
    /// An answer without a request that was seen.
    Answer(u16),
    /// A reset of the stream.
    Reset(String),
    /// None of these, and the connection ended.
    Broken,
    /// Only expected: any of the three, with an answer that is an error.
    Refused,
    /// Seen, and the caller was not answered.
    Unanswered(Seen),
}

/// What came, or must come, of a case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcome {
    items: Vec<Item>,
    is_closed: bool,
}

impl Outcome {
    /// What came of a case: the server's requests and the caller's answers, each in order.
    pub(super) fn of(seen: Vec<Seen>, answers: &[u16]) -> Self {
        let mut seen = seen.into_iter();
        let mut items: Vec<_> = answers
            .iter()
            .map(|status| match status {
                200 => seen.next().map_or(Item::Answer(200), Item::Seen),
                _ => Item::Answer(*status),
            })
            .collect();
        items.extend(seen.map(Item::Unanswered));
        let is_last =
            |item: &Item| matches!(item, Item::Seen(seen) if seen.method == "GET" && seen.target == LAST);
        let is_closed = !items.last().is_some_and(is_last);
        if !is_closed {
            items.pop();
        }
        if items.is_empty() && is_closed {
            items.push(Item::Broken);
        }
        Self { items, is_closed }
    }

    /// What came of a case over HTTP/2: the server's requests, and how the case's stream and that of the request which
    /// followed ended.
    pub(super) fn of_streams(seen: Vec<Seen>, [case, last]: &[End; 2]) -> Self {
        let mut seen = seen;
        let is_last = *last == End::Answer(200)
            && seen.pop_if(|seen| seen.method == "GET" && seen.target == LAST).is_some();
        let mut seen = seen.into_iter();
        let first = match case {
            End::Answer(200) => seen.next().map_or(Item::Answer(200), Item::Seen),
            End::Answer(status) => Item::Answer(*status),
            End::Reset(reason) => Item::Reset(format!("{reason:?}")),
            End::Closed => Item::Broken,
        };
        let items = std::iter::once(first).chain(seen.map(Item::Unanswered)).collect();
        Self { items, is_closed: !is_last }
    }

    pub(super) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut outcome = Self::default();
        for line in lines {
            let words: Vec<_> = line.split(' ').collect();
            let words = match words[..] {
                [ref words @ .., "closed"] => {
                    outcome.is_closed = true;
                    words
                }
                ref words => words,
            };
            match *words {
                [] => {}
                ["reset", reason] => outcome.items.push(Item::Reset(reason.to_owned())),
                ["refused"] => outcome.items.push(Item::Refused),
                ["broken"] => outcome.items.push(Item::Broken),
                [status] => outcome.items.push(Item::Answer(status.parse().unwrap())),
                [method, target, host, bytes] => outcome.items.push(Item::Seen(Seen {
                    method: method.to_owned(),
                    target: target.to_owned(),
                    host: host.to_owned(),
                    bytes: bytes.parse().unwrap(),
                })),
                _ => panic!("no outcome: {line}"),
            }
        }
        outcome
    }

    /// As a file of cases says it.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines: Vec<_> = self.items.iter().map(Item::to_string).collect();
        if self.is_closed {
            match lines.last_mut() {
                Some(last) => last.push_str(" closed"),
                None => lines.push("closed".to_owned()),
            }
        }
        lines
    }

    /// Whether what came is what must come.
    pub(super) fn fits(&self, expected: &Self) -> bool {
        let is_broken = |outcome: &Self| outcome.items == [Item::Broken] && outcome.is_closed;
        let is_refused = self.is_closed && matches!(self.items[..], [Item::Broken] | [Item::Answer(400..)]);
        let is_error = matches!(self.items[..], [Item::Broken | Item::Reset(_) | Item::Answer(400..)]);
        self == expected
            || (is_broken(expected) && is_refused)
            || (expected.items == [Item::Refused] && is_error)
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(seen) => seen.fmt(f),
            Self::Answer(status) => status.fmt(f),
            Self::Reset(reason) => write!(f, "reset {reason}"),
            Self::Broken => f.write_str("broken"),
            Self::Refused => f.write_str("refused"),
            Self::Unanswered(seen) => write!(f, "unanswered {seen}"),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} {} {}",
            self.method,
            self.target.escape_debug(),
            self.host.escape_debug(),
            self.bytes
        )
    }
}
