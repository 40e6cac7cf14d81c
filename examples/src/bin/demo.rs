//! A whole mesh on one machine, under load, with parts of it failing: `cargo demo`.

use std::process::ExitCode;

use clap::Parser;
use outrider_examples::demo::{self, options::Options};

fn main() -> ExitCode {
    demo::run(&Options::parse()).unwrap_or_else(|error| outrider_examples::fail("demo", &error))
}
