//! Whole-mesh tests, and the guards that keep the layout true: one binary, so that it links once.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod architecture;
mod generated_code;
mod processes;
mod request_path_docs;
mod simulation;
