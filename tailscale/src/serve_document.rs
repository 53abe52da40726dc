//! The Serve configuration as a document to edit: whoever changes one entry must not
//! lose what others wrote, known to us or not.
//!
//! So it is not decoded. An object is the list of its members in their order, and
//! what a member holds is the text that was read.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{Error, ServeConfig, json, parse_serve_config};

const COMMAND: &str = "serve-config";

/// The Serve configuration, as tailscaled sent it, for reading, changing and sending
/// back. What is not touched stays as it is to the byte, except for the white space
/// between members.
#[derive(Debug, Clone, Default)]
pub struct ServeDocument {
    root: Members,
}

impl ServeDocument {
    /// Reads the LocalAPI's `serve-config`. `null` (never set) is an empty one.
    ///
    /// # Errors
    /// When it is not one JSON object, a member is there twice, or the configuration
    /// cannot be understood ([`parse_serve_config`]): what cannot be read is not
    /// written either.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        parse_serve_config(bytes)?;
        let text = json::text(COMMAND, bytes)?;
        if text == "null" {
            return Ok(Self::default());
        }
        Ok(Self { root: members(text, ".")? })
    }

    /// What it says.
    ///
    /// # Errors
    /// When an edit made it one that cannot be understood.
    pub fn config(&self) -> Result<ServeConfig, Error> {
        parse_serve_config(self.to_json().as_bytes())
    }

    /// What is at a path of member names, as JSON text.
    ///
    /// # Errors
    /// When something on the way is no object.
    pub fn get(&self, path: &[&str]) -> Result<Option<String>, Error> {
        let Some((last, way)) = path.split_last() else { return Ok(Some(self.to_json())) };
        let mut at = self.root.clone();
        for name in way {
            match at.get(name) {
                Some(inner) if inner.get() != "null" => at = members(inner.get(), name)?,
                _ => return Ok(None),
            }
        }
        Ok(at.get(last).map(|found| found.get().to_owned()))
    }

    /// Puts `value` at a path of member names; what is on the way is made if it is not
    /// there.
    ///
    /// # Errors
    /// When something on the way is no object.
    pub fn set(&mut self, path: &[&str], value: &impl Serialize) -> Result<(), Error> {
        self.root.set(path, raw(value)?)
    }

    /// Takes away what is at a path of member names, and the objects above it that this
    /// leaves empty, as tailscaled itself does. Says whether it was there.
    ///
    /// # Errors
    /// When something on the way is no object.
    pub fn remove(&mut self, path: &[&str]) -> Result<bool, Error> {
        self.root.remove(path)
    }

    /// As it is sent.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Of strings and of text that was JSON when it was read.
        serde_json::to_string(&self.root).unwrap_or_default()
    }
}

/// The members of one object, in their order.
#[derive(Debug, Clone, Default)]
struct Members(Vec<(String, Box<RawValue>)>);

impl Members {
    fn get(&self, name: &str) -> Option<&RawValue> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    fn put(&mut self, name: &str, value: Box<RawValue>) {
        match self.0.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    fn inner(&self, name: &str) -> Result<Option<Self>, Error> {
        match self.get(name) {
            Some(value) if value.get() != "null" => members(value.get(), name).map(Some),
            _ => Ok(None),
        }
    }

    fn set(&mut self, path: &[&str], value: Box<RawValue>) -> Result<(), Error> {
        match path {
            [] => Err(Error::wrong_shape(COMMAND, ".", "the whole document cannot be set")),
            [name] => {
                self.put(name, value);
                Ok(())
            }
            [name, rest @ ..] => {
                let mut inner = self.inner(name)?.unwrap_or_default();
                inner.set(rest, value)?;
                self.put(name, raw(&inner)?);
                Ok(())
            }
        }
    }

    fn remove(&mut self, path: &[&str]) -> Result<bool, Error> {
        let Some((name, rest)) = path.split_first() else { return Ok(false) };
        let mut empty = true;
        if !rest.is_empty() {
            let Some(mut inner) = self.inner(name)? else { return Ok(false) };
            if !inner.remove(rest)? {
                return Ok(false);
            }
            empty = inner.0.is_empty();
            self.put(name, raw(&inner)?);
        }
        let before = self.0.len();
        if empty {
            self.0.retain(|(known, _)| known != name);
        }
        Ok(!rest.is_empty() || self.0.len() < before)
    }
}

fn members(text: &str, name: &str) -> Result<Members, Error> {
    serde_json::from_str(text).map_err(|error| Error::wrong_shape(COMMAND, name, error.to_string()))
}

fn raw(value: &impl Serialize) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Error::BadArgument { command: COMMAND, detail: error.to_string() })
}

impl Serialize for Members {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let (mut members, mut names) = (Members::default(), HashSet::new());
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // Which of the two counts differs from reader to reader.
                    if !names.insert(name.clone()) {
                        return Err(A::Error::custom("a member is there twice"));
                    }
                    members.0.push((name, value));
                }
                Ok(members)
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OTHERS: &str = r#"{"Zeta":{"n":123456789012345678901234567890.10,"é":"\u00e9\/"},"TCP":{"443":{"HTTPS":true,"New":[1,2]},"22":{"TCPForward":"127.0.0.1:22"}},"Alpha":1e400,"AllowFunnel":{"gw.example:443":false}}"#;

    fn read(text: &str) -> ServeDocument {
        ServeDocument::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_cannot_be_read_is_not_edited() {
        for text in ["[]", "1", "{", "", r#"{"TCP":{},"TCP":{}}"#, r#"{"TCP":{"x":{}}}"#, r#"{"Web":[]}"#] {
            assert!(ServeDocument::parse(text.as_bytes()).is_err(), "{text}");
        }
        let twice = read(r#"{"Foreground":{},"Other":{"a":1,"a":2}}"#);
        assert!(twice.clone().set(&["Other", "a"], &1).is_err());
        assert!(read(r#"{"Other":[1]}"#).set(&["Other", "a"], &1).is_err());
        assert!(read("{}").set(&[], &1).is_err());
    }

    #[test]
    fn an_edit_and_its_opposite_leave_every_byte_of_others() {
        let mut document = read(OTHERS);
        assert_eq!(document.to_json(), OTHERS);
        document.set(&["Foreground", "00ff"], &json!({"TCP": {"8443": {"HTTPS": true}}})).unwrap();
        let edited = document.to_json();
        let expected = r#","Foreground":{"00ff":{"TCP":{"8443":{"HTTPS":true}}}}}"#;
        assert_eq!(edited, format!("{}{expected}", OTHERS.strip_suffix('}').unwrap()));
        assert_eq!(document.config().unwrap().listeners().count(), 3);
        assert!(document.remove(&["Foreground", "00ff"]).unwrap());
        assert_eq!(document.to_json(), OTHERS);
    }

    #[test]
    fn one_entry_among_others_is_changed_alone() {
        let mut document = read(OTHERS);
        document.set(&["TCP", "443", "HTTPS"], &false).unwrap();
        assert_eq!(document.to_json(), OTHERS.replace("true", "false"));
        assert!(document.remove(&["TCP", "22"]).unwrap());
        assert!(!document.remove(&["TCP", "22"]).unwrap());
        assert!(!document.remove(&["Web", "x", "y"]).unwrap());
        assert_eq!(document.get(&["TCP"]).unwrap().unwrap(), r#"{"443":{"HTTPS":false,"New":[1,2]}}"#);
        assert_eq!(document.get(&["Web", "x"]).unwrap(), None);
    }

    #[test]
    fn nothing_and_null_are_empty() {
        for text in ["null", "{}", "null\n"] {
            let mut document = read(text);
            assert_eq!(document.to_json(), "{}");
            document.set(&["Foreground", "1"], &json!({})).unwrap();
            assert_eq!(document.to_json(), r#"{"Foreground":{"1":{}}}"#);
        }
        let mut document = read(r#"{"Foreground":null}"#);
        document.set(&["Foreground", "1"], &json!({})).unwrap();
        assert_eq!(document.to_json(), r#"{"Foreground":{"1":{}}}"#);
    }
}
