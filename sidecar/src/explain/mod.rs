//! What would become of a call, in words: by the code that carries calls, for whoever describes one.
//!
//! ```text
//!   a configuration file ──preview──▶ ╮
//!                                     ├─▶ what is said of a described call, and whether it passes
//!   what is in force in a sidecar ──▶ ╯
//! ```
//! Nothing is sent, counted or changed by it. Texts are as files, the controller and whoever asks wrote them: escape what is shown.

pub mod policy;
pub mod route;

use crate::model::{Settings, controller::Rejected};

/// Services of which it is told that what the controller says of them is not in force.
const MAX_REJECTED: usize = 5;

/// What is said of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// In words, line by line.
    pub lines: Vec<String>,
    /// It goes somewhere, or may go to the own app.
    pub passes: bool,
}

/// By what calls are explained.
#[derive(Clone, Copy, Debug)]
pub enum By<'a> {
    /// By a configuration alone.
    File,
    /// By all that is in force in a sidecar, what its controller said included; but for these.
    Running(&'a [Rejected]),
}

impl By<'_> {
    /// What a file leaves unsaid.
    fn unsaid(self, settings: &Settings) -> Option<String> {
        let is_told_more = matches!(self, Self::File) && settings.bootstrap.controller.is_some();
        is_told_more.then(|| {
            "by the file alone: its controller says more of services and policies; --running asks a sidecar what is in force"
                .to_owned()
        })
    }

    /// What the controller says of services, or of the own workload, and is not in force.
    fn rejected(self, is_of_workload: bool) -> Vec<String> {
        let Self::Running(rejected) = self else { return Vec::new() };
        let all: Vec<_> = rejected.iter().filter(|it| it.is_of_workload() == is_of_workload).collect();
        if all.is_empty() {
            return Vec::new();
        }
        let mut lines = vec!["said by the controller, and not in force:".to_owned()];
        for Rejected { service, faults, .. } in all.iter().take(MAX_REJECTED) {
            let why = faults.first().map(ToString::to_string).unwrap_or_default();
            lines.push(format!("  {service}: {why}"));
        }
        if let Some(more) = all.len().checked_sub(MAX_REJECTED).filter(|more| *more > 0) {
            lines.push(format!("  and {more} more"));
        }
        lines
    }
}

#[cfg(test)]
mod tests;
