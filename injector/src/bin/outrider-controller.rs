//! `outrider-controller` as a program. All it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use outrider_injector::controller::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program tells why it failed")]
fn report(error: &anyhow::Error) {
    eprintln!("outrider-controller: {error:#}");
}
