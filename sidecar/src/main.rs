//! The `outrider` program: flags in, exit code out.
//!
//! Exit codes: 0 done, 1 it did not work (a faulty configuration, a drain that took too long), 2 the command line is
//! wrong.

mod cli;

use std::process::ExitCode;

/// Many small allocations per request, on one thread each: what mimalloc is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::run() {
        Ok(code) => code,
        Err(error) => {
            cli::complain(&error);
            ExitCode::FAILURE
        }
    }
}
