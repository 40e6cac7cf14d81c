//! `outrider-ca`: the CA as a program. All it does is in the library.

use std::process::ExitCode;

use clap::Parser as _;
use outrider_certs::cli::Cli;
use rustix::fs::Mode;

fn main() -> ExitCode {
    // Keys are made with their mode given; this is for whatever else is made.
    rustix::process::umask(Mode::from_raw_mode(0o077));
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
    eprintln!("outrider-ca: {error:#}");
}
