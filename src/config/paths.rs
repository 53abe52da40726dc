//! Where things are: home, state directory, configuration file.

use std::path::{Path, PathBuf};

use super::env::Env;
use super::error::{ConfigError, Problem};

/// The places the gateway reads and writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// What `~` stands for: `$OPENCLAW_HOME`, else `$HOME`.
    pub home: Option<PathBuf>,
    /// `$OPENCLAW_STATE_DIR`, else `~/.openclaw`.
    pub state_dir: PathBuf,
    /// The flag, else `$OPENCLAW_CONFIG_PATH`, else `config.json` in the state
    /// directory (design D2).
    pub config: PathBuf,
}

impl Paths {
    /// Settles the places. Relative ones are taken from the working directory.
    ///
    /// # Errors
    /// Where neither a home nor a state directory is known.
    pub fn locate(flag: Option<&Path>, env: &Env) -> Result<Self, ConfigError> {
        let absolute = |path: PathBuf| match env.cwd() {
            Some(cwd) if path.is_relative() => cwd.join(path),
            _ => path,
        };
        let system_home = env.get_path("HOME").map(PathBuf::from);
        let home = match env.get_path("OPENCLAW_HOME") {
            Some(path) => Some(absolute(expand(path, system_home.as_deref()))),
            None => system_home,
        };
        let state_dir = match env.get_path("OPENCLAW_STATE_DIR") {
            Some(path) => absolute(expand(path, home.as_deref())),
            None => home.as_ref().map(|home| absolute(home.join(".openclaw"))).ok_or_else(no_home)?,
        };
        let config = match (flag, env.get_path("OPENCLAW_CONFIG_PATH")) {
            (Some(path), _) => absolute(path.to_owned()),
            (None, Some(path)) => absolute(expand(path, home.as_deref())),
            (None, None) => state_dir.join("config.json"),
        };
        Ok(Self { home, state_dir, config })
    }

    /// A path as written in the file: `~` expanded, relative to the file's
    /// directory.
    pub(crate) fn of_file(&self, text: &str) -> PathBuf {
        let path = expand(text, self.home.as_deref());
        match self.config.parent() {
            Some(dir) if path.is_relative() => dir.join(path),
            _ => path,
        }
    }
}

fn no_home() -> ConfigError {
    Problem::new(
        "",
        "HOME is not set, so there is no ~/.openclaw: set OPENCLAW_STATE_DIR to a directory of yours",
    )
    .fix("export OPENCLAW_STATE_DIR=/var/lib/openclaw")
    .into()
}

/// A leading `~` or `~/` replaced by the home directory.
pub(crate) fn expand(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix('~'), home) {
        (Some(""), Some(home)) => home.to_owned(),
        (Some(rest), Some(home)) if rest.starts_with('/') => home.join(rest.trim_start_matches('/')),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(vars: &[(&str, &str)]) -> Paths {
        Paths::locate(None, &Env::from_vars(vars.iter().copied()).in_dir("/cwd")).unwrap()
    }

    #[test]
    fn without_home_or_state_directory_there_is_no_place() {
        assert!(Paths::locate(None, &Env::from_vars([("HOME", " ")])).is_err());
    }

    #[test]
    fn variables_replace_home_state_and_config() {
        assert_eq!(locate(&[("HOME", "/h")]).config, PathBuf::from("/h/.openclaw/config.json"));
        assert_eq!(
            locate(&[("HOME", "/h"), ("OPENCLAW_HOME", "~/o")]).state_dir,
            PathBuf::from("/h/o/.openclaw")
        );
        let all =
            locate(&[("HOME", "/h"), ("OPENCLAW_STATE_DIR", "s"), ("OPENCLAW_CONFIG_PATH", "~/c.json")]);
        assert_eq!((all.state_dir, all.config), (PathBuf::from("/cwd/s"), PathBuf::from("/h/c.json")));
        assert_eq!(
            locate(&[("HOME", "/h"), ("OPENCLAW_STATE_DIR", "null")]).state_dir,
            PathBuf::from("/h/.openclaw")
        );
    }
}
