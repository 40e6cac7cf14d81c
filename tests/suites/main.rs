//! Suites.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod generated_code;
mod simulation;
