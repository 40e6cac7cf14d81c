//! A service of three replicas, broken in every way we know, under constant load.

use std::process::ExitCode;

use clap::Parser;
use outrider_examples::chaos::{self, options::Options};

fn main() -> ExitCode {
    chaos::run(&Options::parse()).unwrap_or_else(|error| outrider_examples::fail("chaos", &error))
}
