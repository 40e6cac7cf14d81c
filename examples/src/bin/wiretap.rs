//! Listens on every wire of its network namespace until standard input ends, then says what went over them.

use std::process::ExitCode;

use clap::Parser;
use outrider_examples::wiretap::{self, Options};

fn main() -> ExitCode {
    match wiretap::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => outrider_examples::fail("wiretap", &error),
    }
}
