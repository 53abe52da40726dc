//! The `openclaw` program: parse, run, exit code.

use std::process::ExitCode;

use openclaw::cli;
use openclaw::config::Env;

/// A request allocates a few dozen small pieces and frees them on the same thread,
/// which this allocator does faster than most systems' own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Env::from_process()).into()
}
