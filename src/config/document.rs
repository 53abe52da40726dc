//! Reads the configuration: the file, its parts, `.env` files, variables, and
//! the check against the table of keys. What comes out has the right shape; the
//! meaning is checked afterwards.

use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Stat};
use serde_json::{Map, Value};

use super::env::{self, Env};
use super::error::{ConfigError, Problem};
use super::file::{self, FileFault, FileText, Links};
use super::include::{self, Origins};
use super::keypath::KeyPath;
use super::paths::Paths;
use super::{schema, substitute, syntax, yaml};

/// How large a `.env` file may be (security spec 5.3).
const MAX_DOTENV: u64 = 1024 * 1024;

/// The configuration as written, with its parts and variables in place.
pub(crate) struct Document {
    pub(crate) paths: Paths,
    /// The environment with `.env` files in it.
    pub(crate) env: Env,
    /// The file's text; `None` where there is no file.
    pub(crate) text: Option<String>,
    /// The file alone, references and includes as written.
    pub(crate) own: Value,
    /// With parts and variables.
    pub(crate) value: Value,
    pub(crate) origins: Origins,
    /// Every file that was read, so that a change of any is seen.
    pub(crate) files: Vec<PathBuf>,
    /// Faults of shape.
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    pub(crate) resolved: Vec<KeyPath>,
    pub(crate) unresolved: Vec<(KeyPath, String)>,
}

impl Document {
    /// Reads everything.
    ///
    /// # Errors
    /// Where there is nothing to go on with: no place, an unreadable file.
    /// Faults of single keys are in `problems`.
    pub(crate) fn read(flag: Option<&Path>, env: &Env) -> Result<Self, ConfigError> {
        let paths = Paths::locate(flag, env)?;
        let mut env = env.clone();
        let mut warnings = Vec::new();
        let mut problems = check_dirs(&paths, &mut warnings);
        let mut files = Vec::new();
        load_dotenv(&paths, &mut env, &mut files, &mut problems, &mut warnings);
        if env.any_with_prefix(&["CLAWDBOT_", "MOLTBOT_"]) {
            warnings.push(
                "CLAWDBOT_* and MOLTBOT_* variables are ignored: the names begin with OPENCLAW_ now".into(),
            );
        }
        let text = read_config(&paths, flag.is_some(), env.read_for(), &mut problems, &mut warnings)?;
        let own = match &text {
            Some(text) => syntax::parse(text).map_err(|error| unreadable(&paths.config, text, &error))?,
            None => Value::Object(Map::new()),
        };
        let mut document = Self {
            paths,
            env,
            text,
            own,
            value: Value::Null,
            origins: Origins::default(),
            files,
            problems,
            warnings,
            resolved: Vec::new(),
            unresolved: Vec::new(),
        };
        document.files.push(document.paths.config.clone());
        document.settle();
        Ok(document)
    }

    /// The same with another content of the file, as `config set` would write it.
    pub(crate) fn with_own(&self, own: Value) -> Self {
        let mut document = Self {
            paths: self.paths.clone(),
            env: self.env.clone(),
            text: self.text.clone(),
            own,
            value: Value::Null,
            origins: Origins::default(),
            files: self.files.clone(),
            problems: Vec::new(),
            warnings: Vec::new(),
            resolved: Vec::new(),
            unresolved: Vec::new(),
        };
        document.settle();
        document
    }

    /// Parts, variables, shape.
    fn settle(&mut self) {
        self.value = self.own.clone();
        let included = include::include(&mut self.value, &self.paths.config, self.env.read_for());
        self.origins = included.origins;
        self.files.extend(included.files);
        self.problems.extend(included.problems);
        self.warnings.extend(included.warnings);
        let substituted = substitute::substitute(&mut self.value, &self.env);
        self.warnings.extend(substituted.warnings);
        self.resolved = substituted.resolved;
        self.unresolved = substituted.unresolved;
        let shape = schema::check(&self.value);
        for mut problem in substituted.problems.into_iter().chain(shape) {
            problem.file = Some(self.file_of(&problem.key));
            self.problems.push(problem);
        }
    }

    /// The file that a key is written in.
    pub(crate) fn file_of(&self, key: &str) -> PathBuf {
        let origin = key.parse::<KeyPath>().ok().and_then(|path| self.origins.of(&path).map(Path::to_owned));
        origin.unwrap_or_else(|| self.paths.config.clone())
    }
}

fn unreadable(path: &Path, text: &str, error: &str) -> ConfigError {
    let mut what = if text.trim().is_empty() {
        "the file is empty: write {} into it, or remove it to start with the defaults".to_owned()
    } else {
        format!("cannot be read as JSON5: {error}")
    };
    if let Some(json5) = yaml::as_json5(text) {
        what += "\n  It looks like YAML; the file is JSON5. The same content (secrets left out):\n";
        what += &json5;
    }
    Problem::of_file(path, what).into()
}

/// The configuration's text. A file that is not there is no fault, unless it was
/// asked for by flag.
fn read_config(
    paths: &Paths,
    asked_for: bool,
    read_for: Option<u32>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) -> Result<Option<String>, ConfigError> {
    let path = &paths.config;
    let file = match file::read(path, Links::Follow, include::MAX_BYTES) {
        Ok(file) => file,
        Err(FileFault::Missing) if !asked_for => {
            let other = path.with_file_name("openclaw.json");
            if other.is_file() {
                warnings.push(format!(
                    "{} is another program's and is not read; to bring its known keys over: openclaw config import {}",
                    other.display(),
                    other.display()
                ));
            }
            return Ok(None);
        }
        Err(fault) => return Err(Problem::of_file(path, fault.to_string()).into()),
    };
    check_mode(path, &file, read_for, problems, warnings);
    Ok(Some(file.text))
}

/// Whoever can write the configuration decides who gets in (threat rule 93).
fn check_mode(
    path: &Path,
    file: &FileText,
    read_for: Option<u32>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let shown = path.display();
    let us = rustix::process::geteuid().as_raw();
    if let Some(uid) = file.foreign_owner(read_for) {
        let what = format!("belongs to uid {uid}, not to us (uid {us}) or root");
        problems.push(Problem::of_file(path, what).fix(format!("chown {us} {shown}")).at_start());
    }
    if file.world_writable() {
        let what = "can be written by anybody on this machine";
        problems.push(Problem::of_file(path, what).fix(format!("chmod 600 {shown}")).at_start());
    } else if file.open_to_others() {
        warnings.push(format!("{shown} is open to other users (mode {:04o}): chmod 600 {shown}", file.mode));
    }
}

fn check_dirs(paths: &Paths, warnings: &mut Vec<String>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let config_dir = paths.config.parent().filter(|dir| *dir != paths.state_dir);
    for dir in [Some(paths.state_dir.as_path()), config_dir].into_iter().flatten() {
        let Ok(stat) = rustix::fs::stat(dir) else { continue };
        let mode = mode_of(&stat);
        let is_state = dir == paths.state_dir;
        let shown = dir.display();
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            problems.push(Problem::of_file(dir, "is no directory"));
        } else if mode & 0o002 != 0 && (is_state || mode & 0o1000 == 0) {
            // In a sticky directory such as /tmp nobody can replace our file.
            let what = "can be written by anybody on this machine, who could replace what is in it";
            problems.push(Problem::of_file(dir, what).fix(format!("chmod 700 {shown}")).at_start());
        } else if is_state && mode & 0o077 != 0 {
            warnings.push(format!(
                "{shown} is open to other users (mode {:04o}): chmod 700 {shown}",
                mode & 0o7777
            ));
        }
    }
    problems
}

#[cfg_attr(target_os = "linux", expect(clippy::useless_conversion, reason = "mode_t is u16 on macOS"))]
fn mode_of(stat: &Stat) -> u32 {
    u32::from(stat.st_mode)
}

/// The `.env` files. The state directory's is ours. The working directory's is
/// whatever we were started in: it never sets `OPENCLAW_*` (rulings 6), and comes
/// second, so that it cannot put its own value behind a `${NAME}` of ours.
fn load_dotenv(
    paths: &Paths,
    env: &mut Env,
    files: &mut Vec<PathBuf>,
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<String>,
) {
    let ours = paths.state_dir.join(".env");
    match file::read(&ours, Links::Follow, MAX_DOTENV) {
        Ok(file) => {
            check_mode(&ours, &file, env.read_for(), problems, warnings);
            for (name, value) in env::parse_dotenv(&file.text) {
                env.set_if_unset(&name, &value);
            }
            files.push(ours);
        }
        Err(FileFault::Missing) => {}
        Err(fault) => problems.push(Problem::of_file(&ours, fault.to_string()).at_start()),
    }
    let Some(theirs) =
        env.cwd().map(|cwd| cwd.join(".env")).filter(|path| *path != paths.state_dir.join(".env"))
    else {
        return;
    };
    // Anything odd about a file that is not ours is no reason to stop.
    let Ok(file) = file::read(&theirs, Links::Follow, MAX_DOTENV) else { return };
    if file.world_writable() {
        return;
    }
    let mut ignored = false;
    for (name, value) in env::parse_dotenv(&file.text) {
        if name.starts_with("OPENCLAW_") {
            ignored = true;
        } else {
            env.set_if_unset(&name, &value);
        }
    }
    if ignored {
        warnings.push(format!(
            "{}: OPENCLAW_* in the .env of a working directory is ignored; put it into {}",
            theirs.display(),
            paths.state_dir.join(".env").display()
        ));
    }
}
