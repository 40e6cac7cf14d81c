//! How keys are shown in `docs/config.md`.

use super::{
    defaults::{Choice, Key},
    units::Unit,
};

/// A key's row in `docs/config.md`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The section: `limits`, `clusters[].retry`; empty for the top.
    pub section: &'static str,
    /// The key.
    pub name: &'static str,
    /// What may stand there.
    pub kind: String,
    /// What holds if nothing stands there; `required` if something must.
    pub default: String,
    /// The smallest and largest value; empty if there is no such thing.
    pub range: String,
}

/// The row of a key that is neither a quantity nor a choice.
pub(super) fn plain(section: &'static str, name: &'static str, kind: &str, default: &str) -> Row {
    Row { section, name, kind: kind.to_owned(), default: default.to_owned(), range: String::new() }
}

/// A list of names as a default.
pub(super) fn names<T>(named: &[(&'static str, T)]) -> String {
    named.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

impl<T: Unit> Key<T> {
    /// Its row in that section.
    pub(super) fn row(&self, section: &'static str) -> Row {
        let or_none = if self.may_be_none { " or `none`" } else { "" };
        Row {
            section,
            name: self.name,
            kind: format!("{}{or_none}", T::WHAT),
            default: self.default.map_or_else(|| "none".to_owned(), T::show),
            range: format!("{}..={}", self.min.show(), self.max.show()),
        }
    }
}

impl<T: Copy> Choice<T> {
    /// All words, the default first.
    #[must_use]
    pub fn words(&self) -> Vec<(&'static str, T)> {
        [&[self.default], self.others].concat()
    }

    /// Its row in that section.
    pub(super) fn row(&self, section: &'static str) -> Row {
        let words: Vec<String> = self.words().iter().map(|(word, _)| format!("`{word}`")).collect();
        let default = self.default.0.to_owned();
        Row { section, name: self.name, kind: words.join(" or "), default, range: String::new() }
    }
}
