//! Configuration: one YAML file becomes [`Settings`], or every fault in it is named.
//!
//! ```text
//!   text ──raw──▶ the file as it stands ──validate──▶ Settings
//!                  (shape, lines)          (meaning; collects all faults)
//! ```
//!
//! # Invariants
//! - [`Settings`] that come out need no further check: every reference exists, every number is in its range.
//! - Defaults and ranges are in [`defaults`] and nowhere else; `docs/config.md` is compared with them by a test.
//! - A file that is reloaded goes the same way as one that a process starts with: as a whole, or not at all.
//! - An unknown key is a fault, and so is a key without a value: a slip of the pen never means the default.

mod authorization_rows;
pub mod defaults;
mod edits_rows;
mod environment;
mod fixed;
mod joined;
mod load;
mod otel;
mod raw;
mod route_rows;
mod row;
mod rows;
mod services;
mod taken;
mod telemetry_rows;
mod told;
mod units;
mod url;
mod validate;
mod value;
mod watch;

#[cfg(test)]
mod tests;

pub use environment::Environment;
pub use fixed::fixed_faults;
pub use joined::{Joined, Joiner};
pub use load::{Error, Text, Unreadable, load, parse, parse_in, read};
pub use row::Row;
pub use rows::rows;
pub use told::{faults_of_service, faults_of_workload};
pub use url::endpoint as collector_endpoint;
pub use watch::Watch;

pub use crate::model::{Settings, file::Fault};
