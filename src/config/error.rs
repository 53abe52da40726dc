//! What is wrong with a configuration, said so that it can be mended.

use std::fmt;
use std::path::{Path, PathBuf};

/// When a problem refuses something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Both when it is set and when the gateway starts: no later command would
    /// make it right.
    Always,
    /// Only when the gateway starts: half of a change that takes two commands,
    /// such as `gateway.bind lan` before its token. `config set` warns.
    Start,
}

/// One thing that is wrong: where, which key, what would be right.
///
/// `what` never holds a secret's value (threat rule 54).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file it is in, where it is in one.
    pub file: Option<PathBuf>,
    /// The full dotted key; empty where it concerns the file as a whole.
    pub key: String,
    /// What is wrong and what would be right.
    pub what: String,
    /// The command that mends it.
    pub fix: Option<String>,
    /// Whether `config set` refuses too.
    pub when: When,
}

impl Problem {
    /// A problem with one key that refuses both `config set` and the start.
    pub(crate) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        Self { file: None, key: key.into(), what: what.into(), fix: None, when: When::Always }
    }

    /// A problem with a file as a whole.
    pub(crate) fn of_file(file: &Path, what: impl Into<String>) -> Self {
        Self { file: Some(file.to_owned()), ..Self::new("", what) }
    }

    /// Adds the command that mends it.
    pub(crate) fn fix(mut self, command: impl Into<String>) -> Self {
        self.fix = Some(command.into());
        self
    }

    /// Lets `config set` pass with a warning.
    pub(crate) fn at_start(mut self) -> Self {
        self.when = When::Start;
        self
    }

    /// `gateway.port: takes a whole number...`, without the file.
    pub fn headline(&self) -> String {
        if self.key.is_empty() { self.what.clone() } else { format!("{}: {}", self.key, self.what) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        f.write_str(&self.headline())?;
        if let Some(fix) = &self.fix {
            write!(f, "\n    to mend it: {fix}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, at once. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// The error for some problems; `None` where there are none.
    pub(crate) fn of(problems: Vec<Problem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self { problems })
    }

    /// The problems, in the order of the file and then of the checks.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl From<Problem> for ConfigError {
    fn from(problem: Problem) -> Self {
        Self { problems: vec![problem] }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
