//! `openclaw doctor`: what works, what does not, and what mends it.

use std::path::Path;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{Exit, output};
use crate::app::locate_options;
use crate::app::serve_route::wanted;
use crate::checks::{Finding, Level, examine, gather};
use crate::config::Env;

/// `openclaw doctor`.
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Which findings end in exit code 3
    #[arg(long, value_name = "LEVEL", default_value = "error")]
    fail_on: FailOn,
}

#[derive(Clone, Copy, ValueEnum)]
enum FailOn {
    Warning,
    Error,
}

pub(super) fn run(args: &DoctorArgs, config: Option<&Path>, env: &Env) -> Exit {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::failure(args.json, &error.to_string());
            return Exit::Failure;
        }
    };
    let locate = |config: Option<&crate::config::Config>| {
        config.map(|config| locate_options(&config.gateway)).unwrap_or_default()
    };
    let wanted = |config: &crate::config::Config, public: &_| wanted(&config.gateway, public);
    let seen = runtime.block_on(gather(config, env, locate, wanted));
    let findings = examine(&seen);
    let threshold = match args.fail_on {
        FailOn::Warning => Level::Warning,
        FailOn::Error => Level::Error,
    };
    let failed = findings.iter().any(|finding| finding.level >= threshold);
    print(&findings, !failed, args.json);
    if seen.config.is_none() {
        Exit::Config
    } else if failed {
        Exit::Findings
    } else {
        Exit::Ok
    }
}

fn print(findings: &[Finding], ok: bool, as_json: bool) {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if as_json {
        return output::json(
            &json!({"ok": ok, "errors": errors, "warnings": warnings, "findings": findings}),
        );
    }
    for finding in findings {
        output::line(&format!("{:<8} {}: {}", finding.level.as_str(), finding.code, finding.detail));
        if let Some(fix) = &finding.fix {
            output::line(&format!("         to mend it: {fix}"));
        }
    }
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    output::line(&format!("{errors} error{}, {warnings} warning{}", plural(errors), plural(warnings)));
}
