//! One small HTTP service: answers with its name, and with what the service behind it said.

use std::process::ExitCode;

use clap::Parser;
use outrider_examples::service::{self, Options};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match service::run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => outrider_examples::fail("service", &error),
    }
}
