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

impl Finding {
    /// The same with nothing in it that a terminal obeys or that hides text: some of the
    /// words are those of other programs.
    pub(super) fn visible(mut self) -> Self {
        self.code = visible(&self.code);
        self.detail = visible(&self.detail);
        self.fix = self.fix.as_deref().map(visible);
        self
    }
}

/// Control characters, line ends among them, and those that turn the direction of text
/// or have no width, as escapes.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let hides = matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
        );
        match c.is_control() || hides {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_finding_is_obeyed_by_a_terminal() {
        let evil = "a\u{1b}[2J\r\n\u{9b}31m\u{7f}\u{202e}\u{200b}z";
        let finding = Finding::new(Level::Error, evil, evil).fix(evil).visible();
        let seen = r"a\u{1b}[2J\r\n\u{9b}31m\u{7f}\u{202e}\u{200b}z";
        assert_eq!((finding.code.as_str(), finding.detail.as_str()), (seen, seen));
        assert_eq!(finding.fix.as_deref(), Some(seen));
        assert_eq!(visible("Alïce's \"gateway\" \\ 門"), "Alïce's \"gateway\" \\ 門");
    }
}
