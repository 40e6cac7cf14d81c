//! Whole-mesh tests, and the guards that keep the layout true: one binary, so that it links once.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::large_futures,
    clippy::type_complexity,
    clippy::let_underscore_must_use,
    reason = "tests fail by panicking, print what a reader needs to replay them, and read clocks"
)]

mod architecture;
mod bounds;
mod discovery;
mod dns;
mod foreign;
mod frames;
mod generated_code;
mod harness;
mod intercept;
mod intercepted;
mod pools;
mod processes;
mod protocols;
mod reload;
mod request_path_docs;
mod retries;
mod simulation;
mod transports;
mod trust;
mod wrong_peers;
