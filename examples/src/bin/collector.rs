//! Takes traces over OTLP/gRPC until it is told to stop, then draws one of them.

use std::process::ExitCode;

use clap::Parser;
use outrider_examples::otlp::collector::{self, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match collector::run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => outrider_examples::fail("collector", &error),
    }
}
