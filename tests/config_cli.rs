//! The configuration and its commands from outside: the built program, a home of
//! its own, an environment with nothing in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "config_cli/support.rs"]
mod support;

#[path = "config_cli/commands.rs"]
mod commands;
#[path = "config_cli/fixtures.rs"]
mod fixtures;
#[path = "config_cli/threats.rs"]
mod threats;
