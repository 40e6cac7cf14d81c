//! `outrider-injector`: will put a sidecar next to each container in Kubernetes.
//!
//! This version has the command line and nothing behind it: every command says so, says what works instead, and exits
//! with code 3, so that a script that calls it stops here and not later.

#![allow(clippy::print_stderr, reason = "a program speaks to whoever called it")]

mod options;

use std::process::ExitCode;

use clap::Parser;

use crate::options::Options;

/// Exit code of a command that is not there yet: neither success, nor a wrong call (2), nor a failure of work (1).
const NOT_YET: u8 = 3;

fn main() -> ExitCode {
    let options = Options::parse();
    eprintln!(
        "outrider-injector {}: not yet: this version of Outrider does not run in Kubernetes.\n\
         What works: a sidecar beside each service, from one file, on any host:\n\
         \x20   outrider run --config outrider.yaml\n\
         Two hosts, step by step: examples/vm/README.md",
        options.command.name()
    );
    ExitCode::from(NOT_YET)
}
