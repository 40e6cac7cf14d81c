//! `outrider-injector`: the injector as a program. All it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use outrider_injector::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the one place where the program tells why it failed")]
fn report(error: &anyhow::Error) {
    eprintln!("outrider-injector: {error:#}");
}
