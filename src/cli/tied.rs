//! The hidden helper that runs `tailscale` for as long as the gateway lives.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use openclaw_tailscale::exec_tied;

use super::{Exit, output};

/// `openclaw __tied`: the parent's pid, the program, its arguments.
#[derive(Args)]
pub(super) struct TiedArgs {
    parent: u32,
    program: PathBuf,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

pub(super) fn run(args: &TiedArgs) -> Exit {
    let (error, code) = exec_tied(args.parent, &args.program, &args.args);
    output::error(&format!("openclaw: {} cannot be run: {error}", args.program.display()));
    Exit::Other(code)
}
