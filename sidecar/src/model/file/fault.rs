//! Faults: what is wrong in a file, where, and what would be right.

use std::fmt;

use serde_saphyr::Spanned;

/// Faults kept of one file; the rest are only counted, so that a hostile file cannot fill the memory with messages.
const MAX_FAULTS: usize = 200;

/// Characters of a value that are repeated in a message.
const MAX_QUOTED_CHARS: usize = 80;

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The key, as `clusters[2].endpoints[0].spiffe_id`; empty for the file as a whole.
    pub path: String,
    /// Its line, counted from 1, where it is known.
    pub line: Option<u64>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.problem)?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        write!(f, "; remedy: {}", self.remedy)
    }
}

/// Several faults for people: one per line (a fault in the YAML itself with the lines around it).
#[must_use]
pub fn lines(faults: &[Fault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Faults of one file, in the order in which they were found. At most 200 are kept.
#[derive(Debug, Default)]
pub struct Faults {
    kept: Vec<Fault>,
    dropped: usize,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, place: &Place, problem: impl Into<String>, remedy: impl Into<String>) {
        let fault = Fault {
            path: place.path.clone(),
            line: place.line,
            problem: problem.into(),
            remedy: remedy.into(),
        };
        self.push(fault);
    }

    /// Adds one that is ready-made.
    pub fn push(&mut self, fault: Fault) {
        if self.kept.len() < MAX_FAULTS {
            self.kept.push(fault);
        } else {
            self.dropped += 1;
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// All that were kept; a last one counts the rest, if there is a rest.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<Fault> {
        if self.dropped > 0 {
            self.kept.push(Fault {
                path: String::new(),
                line: None,
                problem: format!("{} more faults", self.dropped),
                remedy: "mend those above first".to_owned(),
            });
        }
        self.kept
    }
}

/// A place in a file.
#[derive(Clone, Debug, Default)]
pub struct Place {
    path: String,
    line: Option<u64>,
}

impl Place {
    /// The file as a whole.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A key below this place. Its line is this place's until [`Place::at`] gives a better one.
    #[must_use]
    pub fn key(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        Self { path, line: self.line }
    }

    /// An item of the list at this place.
    #[must_use]
    pub fn item(&self, index: usize) -> Self {
        Self { path: format!("{}[{index}]", self.path), line: self.line }
    }

    /// This place, with the line of `value`.
    #[must_use]
    pub fn at<T>(&self, value: &Spanned<T>) -> Self {
        self.on_line(value.referenced.line())
    }

    /// This place, with that line; 0 stands for unknown.
    #[must_use]
    pub fn on_line(&self, line: u64) -> Self {
        Self { path: self.path.clone(), line: if line == 0 { self.line } else { Some(line) } }
    }

    /// The path, as in messages.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A value in quotes for a message: control characters escaped, cut after 80 characters.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut cut: String = text.chars().take(MAX_QUOTED_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

/// The word among `known` that `word` was probably meant to be: at most two letters differ.
#[must_use]
pub fn similar<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const MAX_DISTANCE: usize = 2;
    // The distance takes quadratic time, and no key or name is longer than this.
    if word.len() > 128 {
        return None;
    }
    known
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= MAX_DISTANCE && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The edit distance of two words (Levenshtein), by bytes.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((b, above_left), above) in right.bytes().zip(&row).zip(row.iter().skip(1)) {
            let before = next.last().copied().unwrap_or_default();
            next.push((above_left + usize::from(a != b)).min(above + 1).min(before + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_the_word() {
        assert_eq!(similar("retyr", ["retry", "balance"]), Some("retry"));
        assert_eq!(similar("max_request", ["max_requests", "max_retries"]), Some("max_requests"));
        assert_eq!(similar("x", ["retry", "ca"]), None);
    }

    #[test]
    fn a_hostile_value_is_escaped_and_cut() {
        let message = quoted(&"\u{1b}[31m\n".repeat(1000));
        assert!(message.len() < 1000, "{}", message.len());
        assert!(!message.contains('\n') && !message.contains('\u{1b}'));
    }

    #[test]
    fn faults_are_bounded_and_the_rest_is_counted() {
        let mut faults = Faults::default();
        for _ in 0..MAX_FAULTS + 5 {
            faults.add(&Place::root().key("a"), "wrong", "right");
        }
        let faults = faults.into_vec();
        assert_eq!(faults.len(), MAX_FAULTS + 1);
        assert_eq!(faults.last().unwrap().problem, "5 more faults");
    }
}
