//! The `outrider` program: flags in, exit code out.
//!
//! Exit codes: 0 done, 1 it did not work (a faulty configuration, a drain that took too long), 2 the command line is
//! wrong.

mod allocator;
mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    allocator::tune();
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
