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
mod ask;
mod authorization;
mod balancing;
mod bounds;
mod deadlines;
mod decisions;
mod differential;
mod discovery;
mod dns;
mod edits;
mod ejection;
mod federation;
mod foreign;
mod forwarded;
mod frames;
mod fuzz_corpus;
mod generated_code;
mod harness;
mod health;
mod intercept;
mod intercepted;
mod kubernetes;
mod limits;
mod logs;
mod metrics;
mod otlp;
mod pools;
mod processes;
mod protocols;
mod proxy_protocol;
mod rejudged;
mod reload;
mod request_path_docs;
mod retries;
mod routes;
mod simulation;
mod tcp_routes;
mod traces;
mod transports;
mod trust;
mod wrong_peers;
