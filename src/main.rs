//! The `openclaw` program: parse, run, exit code.

use std::process::ExitCode;

use openclaw::cli;
use openclaw::config::Env;

fn main() -> ExitCode {
    cli::run(std::env::args_os(), &Env::from_process()).into()
}
