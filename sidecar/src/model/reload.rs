//! How reloading the configuration goes: facts for operators, written by the one who reloads.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use super::file::Fault;

/// What became of one reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// What the file says is in force.
    Applied,
    /// The file says what is in force already.
    Unchanged,
    /// The file cannot be read, or is faulty. What was in force stays.
    Invalid,
    /// The file is sound, but cannot come into force in this process or at this time. What was in force stays.
    Refused,
}

impl Outcome {
    /// Every outcome, in the order of their discriminants.
    pub const ALL: [Self; 4] = [Self::Applied, Self::Unchanged, Self::Invalid, Self::Refused];

    /// The outcome as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Invalid => "invalid",
            Self::Refused => "refused",
        }
    }

    /// Whether what the file says is in force now.
    #[must_use]
    pub fn is_good(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged)
    }
}

/// What became of one reload, with the reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What became of it.
    pub outcome: Outcome,
    /// The generation in force after it.
    pub generation: u64,
    /// SHA-256 of the file, in hexadecimal; `None` if it could not be read.
    pub sha256: Option<String>,
    /// Why it is not in force; empty if it is.
    pub faults: Vec<Fault>,
}

/// A file that did not come into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// When, in wall time.
    pub at: SystemTime,
    /// What happened.
    pub report: Report,
}

/// The configuration in force, and what became of newer ones.
#[derive(Debug)]
pub struct ConfigStatus {
    counts: [AtomicU64; Outcome::ALL.len()],
    file: Mutex<FileStatus>,
}

/// What is known of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileStatus {
    /// SHA-256 of the text that is in force, in hexadecimal.
    pub sha256: String,
    /// When the file was last seen to be in force, in wall time.
    pub succeeded_at: SystemTime,
    /// Why what the file says now is not in force; `None` if it is.
    pub rejected: Option<Rejection>,
}

impl ConfigStatus {
    /// The process starts with the text of that SHA-256 at wall time `now`.
    #[must_use]
    pub fn new(sha256: &str, now: SystemTime) -> Self {
        let file = FileStatus { sha256: sha256.to_owned(), succeeded_at: now, rejected: None };
        Self { counts: Default::default(), file: Mutex::new(file) }
    }

    /// Notes what became of a reload at wall time `now`. Returns whether it is news: `false` for a file that was
    /// rejected before for the same reasons.
    pub fn note(&self, report: &Report, now: SystemTime) -> bool {
        if let Some(count) = self.counts.get(report.outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if report.outcome.is_good() {
            file.succeeded_at = now;
            file.rejected = None;
            if let Some(sha256) = &report.sha256 {
                file.sha256.clone_from(sha256);
            }
            return true;
        }
        let is_news = file.rejected.as_ref().is_none_or(|before| before.report != *report);
        file.rejected = Some(Rejection { at: now, report: report.clone() });
        is_news
    }

    /// Reloads so far with that outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> u64 {
        self.counts.get(outcome as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// What is known of the file.
    #[must_use]
    pub fn file(&self) -> FileStatus {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(outcome: Outcome, sha256: &str, problem: &str) -> Report {
        let fault =
            Fault { path: "service".into(), line: None, problem: problem.into(), remedy: String::new() };
        let faults = if outcome.is_good() { Vec::new() } else { vec![fault] };
        Report { outcome, generation: 1, sha256: Some(sha256.to_owned()), faults }
    }

    #[test]
    fn a_bad_file_is_news_once_and_forgotten_when_a_good_one_comes() {
        let (epoch, status) = (SystemTime::UNIX_EPOCH, ConfigStatus::new("a", SystemTime::UNIX_EPOCH));
        let bad = report(Outcome::Invalid, "b", "is missing");
        assert!(status.note(&bad, epoch));
        assert!(!status.note(&bad, epoch), "the same again");
        assert!(status.note(&report(Outcome::Invalid, "c", "is missing"), epoch), "another file");
        assert_eq!(status.file().sha256, "a", "the last good one is in force");
        assert!(status.file().rejected.is_some());
        assert!(status.note(&report(Outcome::Applied, "d", ""), epoch));
        assert_eq!((status.file().sha256.as_str(), status.file().rejected), ("d", None));
        assert!(status.note(&bad, epoch), "news again");
        assert_eq!((status.count(Outcome::Invalid), status.count(Outcome::Applied)), (4, 1));
    }
}
