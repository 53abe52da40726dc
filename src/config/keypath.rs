//! Paths to a value: `a.b.c`, `a[0].b`, `a["k.with.dots"]` (security spec 6.1).

use std::fmt;
use std::str::FromStr;

use serde_json::{Map, Value};

/// The highest index a path may name.
const MAX_INDEX: usize = 100_000;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A key of an object.
    Key(String),
    /// A place in a list.
    Index(usize),
}

/// A path to a value.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct KeyPath(Vec<Segment>);

/// Why a path cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyPathError {
    /// Nothing between two dots, or nothing at all.
    #[error("invalid path {0:?}: empty segment")]
    Empty(String),
    /// A name that objects of other languages treat as their own.
    #[error("invalid path {0:?}: {1:?} is no key")]
    Forbidden(String, String),
    /// Brackets without an index or quoted key in them.
    #[error("invalid path {0:?}: brackets hold an index up to 100000 or a quoted key")]
    Bracket(String),
}

/// Why a value cannot be put where a path leads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The path goes on where a plain value is.
    #[error("{0} is a plain value: nothing can be set inside it")]
    Scalar(String),
    /// A key inside a list, or an index inside an object.
    #[error("{0} is {1}")]
    WrongContainer(String, &'static str),
    /// An index past the end of the list.
    #[error("{0} has {1} entries: the next index is {1}")]
    Gap(String, usize),
}

impl KeyPath {
    /// The path of the whole file.
    pub fn root() -> Self {
        Self::default()
    }

    /// The steps.
    pub fn segments(&self) -> &[Segment] {
        &self.0
    }

    /// This path and one key more.
    pub fn key(&self, key: &str) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Key(key.to_owned()));
        Self(segments)
    }

    /// This path and one index more.
    pub fn index(&self, index: usize) -> Self {
        let mut segments = self.0.clone();
        segments.push(Segment::Index(index));
        Self(segments)
    }

    /// The first `n` steps.
    pub fn prefix(&self, n: usize) -> Self {
        Self(self.0[..n].to_vec())
    }

    /// The value it leads to.
    pub fn find<'a>(&self, root: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(root, |value, segment| match segment {
            Segment::Key(key) => value.as_object()?.get(key),
            Segment::Index(i) => value.as_array()?.get(*i),
        })
    }

    /// Puts a value where the path leads, making objects and lists on the way.
    ///
    /// # Errors
    /// Where the path leads through something that cannot hold it.
    pub fn set(&self, root: &mut Value, new: Value) -> Result<(), EditError> {
        let mut at = root;
        for (depth, segment) in self.0.iter().enumerate() {
            let here = || self.prefix(depth).to_string();
            if at.is_null() {
                *at = match segment {
                    Segment::Key(_) => Value::Object(Map::new()),
                    Segment::Index(_) => Value::Array(Vec::new()),
                };
            }
            at = match (segment, at) {
                (Segment::Key(key), Value::Object(map)) => map.entry(key.clone()).or_insert(Value::Null),
                (Segment::Index(i), Value::Array(list)) => {
                    if *i > list.len() {
                        return Err(EditError::Gap(here(), list.len()));
                    }
                    if *i == list.len() {
                        list.push(Value::Null);
                    }
                    &mut list[*i]
                }
                (Segment::Key(_), Value::Array(_)) => {
                    return Err(EditError::WrongContainer(here(), "a list: it takes an index such as [0]"));
                }
                (Segment::Index(_), Value::Object(_)) => {
                    return Err(EditError::WrongContainer(here(), "an object: it takes a key, not an index"));
                }
                _ => return Err(EditError::Scalar(here())),
            };
        }
        *at = new;
        Ok(())
    }

    /// Takes away the value the path leads to. Objects left empty stay.
    /// `None` where there is none.
    pub fn remove(&self, root: &mut Value) -> Option<Value> {
        let (last, parents) = self.0.split_last()?;
        let mut at = root;
        for segment in parents {
            at = match segment {
                Segment::Key(key) => at.as_object_mut()?.get_mut(key)?,
                Segment::Index(i) => at.as_array_mut()?.get_mut(*i)?,
            };
        }
        match last {
            Segment::Key(key) => at.as_object_mut()?.remove(key),
            Segment::Index(i) => {
                let list = at.as_array_mut()?;
                (*i < list.len()).then(|| list.remove(*i))
            }
        }
    }
}

impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) if key.is_empty() || key.contains(['.', '[', ']', '"', '\\', ' ']) => {
                    write!(f, "[{key:?}]")?;
                }
                Segment::Key(key) if i == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
            }
        }
        Ok(())
    }
}

impl FromStr for KeyPath {
    type Err = KeyPathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut segments = Vec::new();
        let mut rest = text.trim();
        let empty = || KeyPathError::Empty(text.to_owned());
        if rest.is_empty() {
            return Err(empty());
        }
        let mut wants_key = true;
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let (segment, after) =
                    bracket(inner).ok_or_else(|| KeyPathError::Bracket(text.to_owned()))?;
                if let Segment::Key(key) = &segment {
                    check_key(text, key)?;
                }
                segments.push(segment);
                rest = after;
                wants_key = false;
            } else if wants_key {
                let (key, after) = plain_key(rest);
                if key.is_empty() {
                    return Err(empty());
                }
                check_key(text, &key)?;
                segments.push(Segment::Key(key));
                rest = after;
                wants_key = false;
            } else {
                rest = rest.strip_prefix('.').ok_or_else(|| KeyPathError::Bracket(text.to_owned()))?;
                wants_key = true;
            }
        }
        if wants_key { Err(empty()) } else { Ok(Self(segments)) }
    }
}

fn check_key(text: &str, key: &str) -> Result<(), KeyPathError> {
    if matches!(key, "__proto__" | "prototype" | "constructor") {
        return Err(KeyPathError::Forbidden(text.to_owned(), key.to_owned()));
    }
    Ok(())
}

/// A key up to the next dot or bracket; `\` takes the next symbol as it is.
fn plain_key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut chars = text.char_indices();
    while let Some((i, c)) = chars.next() {
        match c {
            '.' | '[' => return (key, &text[i..]),
            '\\' => key.extend(chars.next().map(|(_, c)| c)),
            _ => key.push(c),
        }
    }
    (key, "")
}

/// What follows an opening bracket, and the text after the closing one.
fn bracket(text: &str) -> Option<(Segment, &str)> {
    if let Some(quoted) = text.strip_prefix('"') {
        let mut key = String::new();
        let mut chars = quoted.char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => return Some((Segment::Key(key), quoted[i + 1..].strip_prefix(']')?)),
                '\\' => key.push(chars.next()?.1),
                _ => key.push(c),
            }
        }
        return None;
    }
    let (digits, after) = text.split_once(']')?;
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let index = digits.parse().ok().filter(|i| *i <= MAX_INDEX)?;
    Some((Segment::Index(index), after))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_that_say_nothing_or_too_much_are_refused() {
        for text in [
            "",
            " ",
            "a..b",
            ".a",
            "a.",
            "a[",
            "a[]",
            "a[-1]",
            "a[x]",
            "a[100001]",
            "a[0]b",
            "a.__proto__",
            "constructor.x",
            r#"a["prototype"]"#,
            r#"a["x"#,
        ] {
            assert!(text.parse::<KeyPath>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn paths_print_as_they_are_written() {
        for text in ["a.b.c", "a[0].b", r#"a["k.with.dots"].b"#, "$schema"] {
            assert_eq!(text.parse::<KeyPath>().unwrap().to_string(), text);
        }
        assert_eq!(r"a.k\.x".parse::<KeyPath>().unwrap().to_string(), r#"a["k.x"]"#);
    }

    #[test]
    fn setting_through_a_plain_value_names_it() {
        let mut root = json!({"a": {"b": 1}, "l": [1]});
        let at = |text: &str| text.parse::<KeyPath>().unwrap();
        assert_eq!(at("a.b.c").set(&mut root, json!(1)), Err(EditError::Scalar("a.b".into())));
        assert!(at("l.x").set(&mut root, json!(1)).is_err());
        assert!(at("a[0]").set(&mut root, json!(1)).is_err());
        assert_eq!(at("l[2]").set(&mut root, json!(1)), Err(EditError::Gap("l".into(), 1)));
        assert_eq!(root, json!({"a": {"b": 1}, "l": [1]}));
        at("n[0].x").set(&mut root, json!(2)).unwrap();
        assert_eq!(at("n").remove(&mut root), Some(json!([{"x": 2}])));
        assert_eq!(at("n").remove(&mut root), None);
    }
}
