//! Why something gets no sidecar: everything that is wrong, each with its place and what to do about it.

use std::fmt;

/// What is wrong with a pod, completely. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    reasons: Vec<String>,
}

impl Denial {
    /// A denial for one reason.
    #[must_use]
    pub fn of(place: &str, problem: &str, remedy: &str) -> Self {
        let mut faults = Faults::default();
        faults.add(place, problem, remedy);
        Self { reasons: faults.reasons }
    }

    /// Each reason is a sentence: place, problem, remedy.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reasons.join("\n"))
    }
}

impl std::error::Error for Denial {}

/// Reasons that are still being collected.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    reasons: Vec<String>,
}

impl Faults {
    /// Longest text of a pod that a reason quotes, in characters.
    const MAX_QUOTED: usize = 120;
    /// Most reasons that are kept; who mends these sees the others.
    const MAX_REASONS: usize = 32;

    /// Notes what is wrong, and what to do about it.
    pub(crate) fn add(&mut self, place: &str, problem: impl fmt::Display, remedy: impl fmt::Display) {
        if self.reasons.len() < Self::MAX_REASONS {
            self.reasons.push(format!("{place}: {problem}; {remedy}"));
        }
    }

    /// Notes all of another denial.
    pub(crate) fn take(&mut self, denial: Denial) {
        let room = Self::MAX_REASONS.saturating_sub(self.reasons.len());
        self.reasons.extend(denial.reasons.into_iter().take(room));
    }

    /// Nothing, or the denial.
    ///
    /// # Errors
    /// Something was noted.
    pub(crate) fn into_result(self) -> Result<(), Denial> {
        if self.reasons.is_empty() { Ok(()) } else { Err(Denial { reasons: self.reasons }) }
    }
}

/// A text off a pod, in quotes, on one line and not too long.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(Faults::MAX_QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

/// A text of at most so many bytes, which are more than three; `…` stands for what was cut off.
pub(crate) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let room = max.saturating_sub('…'.len_utf8());
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last().unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_one_line_and_short() {
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        assert!(quoted(&"x".repeat(10_000)).chars().count() < 130);
    }

    #[test]
    fn reasons_have_a_bound() {
        let mut faults = Faults::default();
        (0..100).for_each(|_| faults.add("a", "b", "c"));
        assert_eq!(faults.into_result().unwrap_err().reasons().len(), Faults::MAX_REASONS);
    }
}
