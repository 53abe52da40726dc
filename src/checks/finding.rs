//! One thing that was found, good or bad.

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Not wrong, and worth knowing.
    Info,
    /// It works today and will not go on working, or is not what was meant.
    Warning,
    /// It does not work.
    Error,
}

impl Level {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Which kind: stable, for programs; the same as on `/readyz` where it is there.
    pub code: String,
    /// What was found, for people.
    pub detail: String,
    /// The command, or the thing to do, that mends it.
    pub fix: Option<String>,
}

impl Finding {
    /// A finding without a remedy.
    pub fn new(level: Level, code: &str, detail: impl Into<String>) -> Self {
        Self { level, code: code.to_owned(), detail: detail.into(), fix: None }
    }

    /// Adds what mends it.
    pub fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}
