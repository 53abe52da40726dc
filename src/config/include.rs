//! `$include`: parts of the configuration in files of their own (gateway spec
//! 1.1).
//!
//! A part is deep-merged into the object that names it, and that object's other
//! keys come after it. Parts stay under the directory of the configuration;
//! links that lead out of it are refused.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::Problem;
use super::file::{self, Links};
use super::keypath::KeyPath;
use super::syntax;

/// How large a file of the configuration may be.
pub(crate) const MAX_BYTES: u64 = 2 * 1024 * 1024;
const MAX_DEPTH: usize = 10;
const MAX_PATH: usize = 4096;

/// Which file a value came from.
#[derive(Default)]
pub(crate) struct Origins(Vec<(KeyPath, PathBuf)>);

impl Origins {
    /// The file a path's value came from, where parts were involved; `None`
    /// where it can only be the configuration itself.
    pub(crate) fn of(&self, path: &KeyPath) -> Option<&Path> {
        let covers = |known: &KeyPath| path.segments().starts_with(known.segments());
        let found = self.0.iter().filter(|(known, _)| covers(known));
        found.max_by_key(|(known, _)| known.segments().len()).map(|(_, file)| file.as_path())
    }

    fn record(&mut self, path: &KeyPath, value: &Value, file: &Path) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                map.iter()
                    .filter(|(key, _)| *key != "$include")
                    .for_each(|(k, v)| self.record(&path.key(k), v, file));
            }
            _ => self.0.push((path.clone(), file.to_owned())),
        }
    }

    fn forget(&mut self, path: &KeyPath) {
        self.0.retain(|(known, _)| !known.segments().starts_with(path.segments()));
    }
}

/// What including found.
#[derive(Default)]
pub(crate) struct Included {
    pub(crate) origins: Origins,
    pub(crate) files: Vec<PathBuf>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
}

/// Merges every part into `value`, which was read from `file`; for whom, says
/// [`Env::read_for`](super::Env::read_for).
pub(crate) fn include(value: &mut Value, file: &Path, read_for: Option<u32>) -> Included {
    let mut included = Included::default();
    let dir = file.parent().unwrap_or(Path::new("/"));
    // Without a directory there is no file and nothing to include.
    if let Ok(root) = dir.canonicalize() {
        let mut reader = Reader { root, read_for, included: &mut included };
        reader.resolve(value, dir, file, &KeyPath::root(), 0);
    }
    included
}

struct Reader<'a> {
    root: PathBuf,
    read_for: Option<u32>,
    included: &'a mut Included,
}

impl Reader<'_> {
    fn resolve(&mut self, value: &mut Value, dir: &Path, file: &Path, path: &KeyPath, depth: usize) {
        match value {
            Value::Array(list) => {
                for (i, item) in list.iter_mut().enumerate() {
                    self.resolve(item, dir, file, &path.index(i), depth);
                }
            }
            Value::Object(map) => {
                let parts = map.remove("$include");
                for (key, item) in map.iter_mut() {
                    self.resolve(item, dir, file, &path.key(key), depth);
                }
                if let Some(parts) = parts {
                    let siblings = std::mem::take(map);
                    self.merge_parts(map, &parts, dir, file, path, depth);
                    for (key, item) in siblings {
                        self.override_key(map, key, item, path, file);
                    }
                }
            }
            _ => {}
        }
    }

    fn merge_parts(
        &mut self,
        into: &mut Map<String, Value>,
        parts: &Value,
        dir: &Path,
        file: &Path,
        path: &KeyPath,
        depth: usize,
    ) {
        let names: Vec<&str> = match parts {
            Value::String(name) => vec![name],
            Value::Array(list) if list.iter().all(Value::is_string) => {
                list.iter().filter_map(Value::as_str).collect()
            }
            _ => return self.fault(file, path, "takes a file name or a list of them"),
        };
        for name in names {
            if depth >= MAX_DEPTH {
                return self.fault(
                    file,
                    path,
                    &format!("{name:?}: parts include parts more than {MAX_DEPTH} deep"),
                );
            }
            match self.read(name, dir) {
                Ok((part_file, mut part)) => {
                    self.included.origins.record(path, &part, &part_file);
                    let part_dir = part_file.parent().unwrap_or(dir).to_owned();
                    self.resolve(&mut part, &part_dir, &part_file, path, depth + 1);
                    let Value::Object(part) = part else {
                        self.fault(file, path, &format!("{name:?} holds no object"));
                        continue;
                    };
                    merge(into, part);
                }
                Err(what) => self.fault(file, path, &format!("{name:?} {what}")),
            }
        }
    }

    /// A key written beside `$include` wins; objects merge.
    fn override_key(
        &mut self,
        map: &mut Map<String, Value>,
        key: String,
        item: Value,
        path: &KeyPath,
        file: &Path,
    ) {
        let here = path.key(&key);
        match (map.get_mut(&key), item) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                for (inner_key, inner) in new {
                    self.override_key(old, inner_key, inner, &here, file);
                }
            }
            (_, item) => {
                self.included.origins.forget(&here);
                self.included.origins.record(&here, &item, file);
                map.insert(key, item);
            }
        }
    }

    fn read(&mut self, name: &str, dir: &Path) -> Result<(PathBuf, Value), String> {
        if name.len() >= MAX_PATH || name.contains('\0') {
            return Err("is too long or no path".to_owned());
        }
        let path = dir.join(name).canonicalize().map_err(|error| format!("cannot be found: {error}"))?;
        if !path.starts_with(&self.root) {
            return Err(format!("leads out of {}: parts stay under it", self.root.display()));
        }
        // The path is canonical: a link now was put there in this moment.
        let text = file::read(&path, Links::Refuse, MAX_BYTES).map_err(|fault| fault.to_string())?;
        if text.world_writable() {
            return Err(format!("can be written by anybody: chmod 600 {}", path.display()));
        }
        if let Some(uid) = text.foreign_owner(self.read_for) {
            return Err(format!("belongs to uid {uid}, neither to us nor to root"));
        }
        let value = syntax::parse(&text.text).map_err(|error| format!("cannot be read as JSON5: {error}"))?;
        if text.open_to_others() {
            let shown = path.display();
            self.included.warnings.push(format!("{shown} is open to other users: chmod 600 {shown}"));
        }
        self.included.files.push(path.clone());
        Ok((path, value))
    }

    fn fault(&mut self, file: &Path, path: &KeyPath, what: &str) {
        let mut problem = Problem::new(path.key("$include").to_string(), what);
        problem.file = Some(file.to_owned());
        self.included.problems.push(problem);
    }
}

fn merge(into: &mut Map<String, Value>, part: Map<String, Value>) {
    for (key, item) in part {
        match (into.get_mut(&key), item) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            (_, item) => {
                into.insert(key, item);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    struct Dir(tempfile::TempDir);

    impl Dir {
        fn with(files: &[(&str, &str)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for (name, text) in files {
                let path = dir.path().join("conf").join(name);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, text).unwrap();
            }
            Self(dir)
        }

        fn include(&self, mut value: Value) -> (Value, Included) {
            let included = include(&mut value, &self.0.path().join("conf/config.json"), None);
            (value, included)
        }

        fn refusal(&self, name: &str) -> String {
            let (_, included) = self.include(json!({"$include": name}));
            included.problems.first().map(Problem::headline).unwrap_or_default()
        }
    }

    #[test]
    fn parts_never_come_from_outside() {
        let dir = Dir::with(&[
            ("config.json", ""),
            ("../out.json5", "{}"),
            ("list.json5", "[]"),
            ("bad.json5", "{"),
        ]);
        std::os::unix::fs::symlink(dir.0.path().join("out.json5"), dir.0.path().join("conf/link.json5"))
            .unwrap();
        assert!(dir.refusal("../out.json5").contains("leads out of"));
        assert!(dir.refusal("/etc/passwd").contains("leads out of"));
        assert!(dir.refusal("link.json5").contains("leads out of"));
        assert!(dir.refusal("none.json5").contains("cannot be found"));
        assert!(dir.refusal("list.json5").contains("holds no object"));
        assert!(dir.refusal("bad.json5").contains("cannot be read as JSON5"));
        assert!(dir.refusal(&"x".repeat(5000)).contains("too long"));
        assert!(dir.include(json!({"$include": 1})).1.problems[0].what.contains("takes a file name"));
    }

    #[test]
    fn a_circle_ends() {
        let dir = Dir::with(&[("a.json5", "{$include: 'a.json5'}")]);
        assert!(dir.refusal("a.json5").contains("more than 10 deep"));
    }

    #[test]
    fn later_parts_and_siblings_win_and_origins_are_known() {
        let dir = Dir::with(&[
            ("a.json5", "{x: {p: 1, q: 1}, y: [1]}"),
            ("sub/b.json5", "{x: {q: 2}, z: {$include: 'c.json5'}}"),
            ("sub/c.json5", "{deep: true}"),
        ]);
        let (value, included) =
            dir.include(json!({"$include": ["a.json5", "sub/b.json5"], "y": [2], "x": {"r": 3}}));
        assert_eq!(value, json!({"x": {"p": 1, "q": 2, "r": 3}, "y": [2], "z": {"deep": true}}));
        assert!(included.problems.is_empty());
        let file = |text: &str| {
            let path = included.origins.of(&text.parse().unwrap()).map(Path::to_owned);
            path.and_then(|path| path.file_name().map(|name| name.to_string_lossy().into_owned()))
        };
        assert_eq!(file("x.p").as_deref(), Some("a.json5"));
        assert_eq!(file("x.q").as_deref(), Some("b.json5"));
        assert_eq!(file("y").as_deref(), Some("config.json"));
        assert_eq!(file("z.deep").as_deref(), Some("c.json5"));
        assert_eq!(file("none"), None);
    }
}
