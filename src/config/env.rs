//! The environment as the configuration sees it.
//!
//! It is a value, so that tests need no process environment, and so that a
//! reload sees exactly what the start saw.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Environment variables, working directory and whether this is a container.
///
/// No `Debug`: variables hold secrets.
#[derive(Clone, Default)]
pub struct Env {
    vars: BTreeMap<String, String>,
    cwd: Option<PathBuf>,
    container: Option<bool>,
    read_for: Option<u32>,
}

impl Env {
    /// The environment of this process. Variables that are no UTF-8 are left out.
    pub fn from_process() -> Self {
        let vars = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { vars, cwd: std::env::current_dir().ok(), container: None, read_for: None }
    }

    /// An environment of these variables only, without a working directory and
    /// outside a container.
    pub fn from_vars<N: Into<String>, V: Into<String>>(vars: impl IntoIterator<Item = (N, V)>) -> Self {
        let vars = vars.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { vars, cwd: None, container: Some(false), read_for: None }
    }

    /// The same in another working directory.
    pub fn in_dir(mut self, cwd: impl Into<PathBuf>) -> Self {
        self.cwd = Some(cwd.into());
        self
    }

    /// The same, with the question of the container answered.
    pub fn in_container(mut self, yes: bool) -> Self {
        self.container = Some(yes);
        self
    }

    /// The same for somebody who only looks at this user's gateway, and reads the files
    /// that they own as that user's own gateway would.
    pub fn reading_for(mut self, uid: u32) -> Self {
        self.read_for = Some(uid);
        self
    }

    /// Whose files are read beside our own and root's.
    pub(crate) fn read_for(&self) -> Option<u32> {
        self.read_for
    }

    /// A variable, trimmed. Blank counts as unset (gateway spec 1.1).
    pub fn get(&self, name: &str) -> Option<&str> {
        self.vars.get(name).map(|value| value.trim()).filter(|value| !value.is_empty())
    }

    /// A variable that names a path. `undefined` and `null`, which scripts write
    /// by accident, count as unset (security spec 5.1).
    pub fn get_path(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !matches!(*value, "undefined" | "null"))
    }

    /// The working directory, where there is one.
    pub fn cwd(&self) -> Option<&Path> {
        self.cwd.as_deref()
    }

    /// The same with another configuration file.
    pub(crate) fn with_config_path(&self, path: &Path) -> Self {
        let mut env = self.clone();
        env.vars.insert("OPENCLAW_CONFIG_PATH".to_owned(), path.display().to_string());
        env
    }

    /// Whether any variable starts with one of these prefixes.
    pub(crate) fn any_with_prefix(&self, prefixes: &[&str]) -> bool {
        self.vars.keys().any(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
    }

    /// Sets a variable that is not set yet: `.env` files never override
    /// (gateway spec 1.1). A blank one counts as set.
    pub(crate) fn set_if_unset(&mut self, name: &str, value: &str) {
        self.vars.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }

    /// Whether the process runs in a container (gateway spec 7).
    pub(crate) fn is_container(&self) -> bool {
        self.container.unwrap_or_else(|| {
            let marked = ["/.dockerenv", "/run/.containerenv", "/var/run/.containerenv"];
            if marked.iter().any(|path| Path::new(path).exists()) {
                return true;
            }
            let names = ["docker", "containerd", "kubepods", "lxc"];
            std::fs::read_to_string("/proc/1/cgroup")
                .is_ok_and(|cgroup| names.iter().any(|name| cgroup.contains(name)))
        })
    }
}

/// The `NAME=value` lines of a `.env` file: `export` in front, quotes and `#`
/// comments are understood, and blanks around `=`, which the guide prints
/// (security spec 5.3). Lines that are none of this are skipped.
pub(crate) fn parse_dotenv(text: &str) -> Vec<(String, String)> {
    text.lines().filter_map(dotenv_line).collect()
}

fn dotenv_line(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end();
    let sound = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !sound {
        return None;
    }
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            let (inner, _) = rest.split_once(quote)?;
            return Some((name.to_owned(), inner.to_owned()));
        }
    }
    // Unquoted, a comment starts at a `#` after a blank.
    let end = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
    let value = if value.starts_with('#') { "" } else { &value[..end] };
    Some((name.to_owned(), value.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blank_is_unset() {
        let env = Env::from_vars([("A", "  "), ("B", " x "), ("P", "undefined")]);
        assert_eq!(env.get("A"), None);
        assert_eq!(env.get("B"), Some("x"));
        assert_eq!(env.get_path("P"), None);
    }

    #[test]
    fn a_dotenv_never_overrides() {
        let mut env = Env::from_vars([("A", "process")]);
        env.set_if_unset("A", "file");
        env.set_if_unset("B", "file");
        assert_eq!((env.get("A"), env.get("B")), (Some("process"), Some("file")));
    }

    #[test]
    fn dotenv_lines_in_every_form_the_guide_prints() {
        let text = "# c\nA=1\nexport B = \"x # y\"\nC='z'  # c\nD = w # c\nnot a line\n=x\n1A=x\nE=#\n";
        let expected = [("A", "1"), ("B", "x # y"), ("C", "z"), ("D", "w"), ("E", "")];
        let expected: Vec<_> = expected.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(parse_dotenv(text), expected);
    }
}
