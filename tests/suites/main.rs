//! Suites.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod discovery;
mod generated_code;
mod harness;
mod protocols;
mod retries;
mod wrong_peers;
