//! Whether the gateway would start with the configuration.

use std::path::PathBuf;

use super::{Finding, Level};
use crate::config::Problem;

/// What was seen of the configuration.
pub struct Configuration {
    /// The file.
    pub path: PathBuf,
    /// Whether it exists.
    pub exists: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// What should be known.
    pub warnings: Vec<String>,
}

pub(super) fn findings(seen: &Configuration) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = seen.path.display();
    for problem in &seen.problems {
        let file = problem.file.as_ref().map(|file| format!(" ({})", file.display())).unwrap_or_default();
        let mut finding =
            Finding::new(Level::Error, "configuration", format!("{}{file}", problem.headline()));
        finding.fix = problem.fix.clone();
        findings.push(finding);
    }
    for warning in &seen.warnings {
        findings.push(Finding::new(Level::Warning, "configuration", warning));
    }
    if seen.problems.is_empty() {
        let detail = if seen.exists {
            format!("{path} is one the gateway starts with")
        } else {
            format!("there is no {path}: the gateway starts with the defaults")
        };
        findings.insert(0, Finding::new(Level::Ok, "configuration", detail));
    }
    findings
}
