//! `outrider-injector check`: whether a cluster can have the mesh, and whether the one that it has is well.
//!
//! ```text
//!   cluster ──gather──▶ Facts ──findings──▶ [Finding] ──▶ lines, exit code
//!           (effects)           (pure)
//! ```

mod census;
mod facts;
mod findings;
mod gather;
mod trial;

use std::fmt;

pub use self::{
    facts::{Facts, Part, PodFact, Right, Seen, Trial, Webhook},
    findings::findings,
    gather::gather,
};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Fine,
    /// It works; somebody should know.
    Warning,
    /// It does not work, or will not for long.
    Fault,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do about it; empty where there is nothing to do.
    pub remedy: String,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self { severity: Severity::Fine, what: what.into(), remedy: String::new() }
    }

    fn warning(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, what: what.into(), remedy: remedy.into() }
    }

    fn fault(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Fault, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.severity {
            Severity::Fine => "ok     ",
            Severity::Warning => "warning",
            Severity::Fault => "FAULT  ",
        };
        write!(f, "{sign}  {}", self.what)?;
        if !self.remedy.is_empty() {
            write!(f, "\n         {}", self.remedy)?;
        }
        Ok(())
    }
}
