//! Changing one value in JSON5 text and leaving every other byte, comments
//! included, as it is.
//!
//! The editor is a convenience and never trusted: [`set`] and [`remove`] read
//! their own result back and give up (`None`) where it is not exactly the value
//! that was asked for. The caller then rewrites the file as a whole.

use serde_json::Value;

use super::keypath::{KeyPath, Segment};
use super::syntax;

const MAX_DEPTH: usize = 64;

/// A value's place in the text.
struct Node {
    start: usize,
    end: usize,
    body: Body,
}

enum Body {
    Plain,
    List(Vec<Node>),
    Object(Vec<Member>),
}

struct Member {
    key: String,
    start: usize,
    node: Node,
}

enum Fault {
    TooDeep,
    Unreadable,
}

/// Whether brackets nest deeper than any configuration would.
pub(crate) fn nests_too_deep(text: &str) -> bool {
    matches!(Scanner { text, at: 0 }.document(), Err(Fault::TooDeep))
}

/// The text with `value` at `path`; `expected` is what the result must read as.
pub(crate) fn set(text: &str, path: &KeyPath, value: &Value, expected: &Value) -> Option<String> {
    let root = Scanner { text, at: 0 }.document().ok()?;
    let mut node = &root;
    let mut edited = None;
    for (depth, segment) in path.segments().iter().enumerate() {
        let next = match (segment, &node.body) {
            (Segment::Key(key), Body::Object(members)) => {
                members.iter().find(|member| member.key == *key).map(|member| &member.node)
            }
            (Segment::Index(i), Body::List(items)) => items.get(*i),
            _ => return None,
        };
        match next {
            Some(next) => node = next,
            None => {
                let rest = &path.segments()[depth + 1..];
                let nested = nest(rest, value)?;
                edited = Some(insert(text, node, segment, &nested)?);
                break;
            }
        }
    }
    let edited = match edited {
        Some(edited) => edited,
        None => {
            let rendered = render(value, indent_of(text, node.start));
            format!("{}{rendered}{}", &text[..node.start], &text[node.end..])
        }
    };
    verified(edited, expected)
}

/// The text without the value at `path`.
pub(crate) fn remove(text: &str, path: &KeyPath, expected: &Value) -> Option<String> {
    let root = Scanner { text, at: 0 }.document().ok()?;
    let (last, parents) = path.segments().split_last()?;
    let mut node = &root;
    for segment in parents {
        node = match (segment, &node.body) {
            (Segment::Key(key), Body::Object(members)) => &members.iter().find(|m| m.key == *key)?.node,
            (Segment::Index(i), Body::List(items)) => items.get(*i)?,
            _ => return None,
        };
    }
    let spans: Vec<(usize, usize)> = match &node.body {
        Body::Object(members) => members.iter().map(|m| (m.start, m.node.end)).collect(),
        Body::List(items) => items.iter().map(|item| (item.start, item.end)).collect(),
        Body::Plain => return None,
    };
    let at = match (last, &node.body) {
        (Segment::Key(key), Body::Object(members)) => members.iter().position(|m| m.key == *key)?,
        (Segment::Index(i), Body::List(items)) if *i < items.len() => *i,
        _ => return None,
    };
    let (mut start, mut end) = spans[at];
    let comma = comma_after(text, end);
    if let Some(comma) = comma {
        end = comma + 1;
    }
    // Nothing else on its lines: take the lines whole.
    let line_start = text[..start].rfind('\n').map_or(0, |i| i + 1);
    let line_end = text[end..].find('\n').map_or(text.len(), |i| end + i + 1);
    if text[line_start..start].trim().is_empty() && text[end..line_end].trim().is_empty() {
        (start, end) = (line_start, line_end);
    } else if comma.is_some() {
        end += text[end..].len() - text[end..].trim_start_matches([' ', '\t']).len();
    }
    let mut before = text[..start].to_owned();
    if comma.is_none() && at > 0 {
        // The last of several without a comma of its own: the one before goes.
        let previous = comma_after(text, spans[at - 1].1)?;
        before.remove(previous);
    }
    verified(before + &text[end..], expected)
}

fn verified(edited: String, expected: &Value) -> Option<String> {
    (syntax::parse(&edited).as_ref() == Ok(expected)).then_some(edited)
}

/// A value wrapped in the objects and lists that the rest of a path asks for.
fn nest(rest: &[Segment], value: &Value) -> Option<Value> {
    rest.iter().rev().try_fold(value.clone(), |inner, segment| match segment {
        Segment::Key(key) => Some(Value::Object([(key.clone(), inner)].into_iter().collect())),
        Segment::Index(0) => Some(Value::Array(vec![inner])),
        Segment::Index(_) => None,
    })
}

fn insert(text: &str, container: &Node, segment: &Segment, value: &Value) -> Option<String> {
    let last_end = match &container.body {
        Body::Object(members) => members.last().map(|member| member.node.end),
        Body::List(items) => items.last().map(|item| item.end),
        Body::Plain => return None,
    };
    let outer = indent_of(text, container.start);
    let first_start = match &container.body {
        Body::Object(members) => members.first().map(|member| member.start),
        Body::List(items) => items.first().map(|item| item.start),
        Body::Plain => None,
    };
    let closing = container.end - 1;
    let one_line = last_end.is_some() && !text[container.start..container.end].contains('\n');
    let indent = match first_start {
        Some(start) if !one_line => indent_of(text, start),
        _ => outer + 2,
    };
    let rendered = render(value, indent);
    let entry = match segment {
        Segment::Key(key) => format!("{}: {rendered}", render_key(text, key)),
        Segment::Index(_) => rendered,
    };
    let pad = " ".repeat(indent);
    // Where the text before the closing bracket ends.
    let tail = text[..closing].trim_end().len();
    let (mut edited, trailing) = match last_end {
        None => (text[..tail].to_owned(), ""),
        Some(end) => match comma_after(text, end) {
            Some(_) if one_line => (text[..tail].to_owned(), ""),
            Some(_) => (text[..tail].to_owned(), ","),
            None => (format!("{},{}", &text[..end], &text[end..tail]), ""),
        },
    };
    if one_line {
        let gap = &text[tail..closing];
        edited += &format!(" {entry}{gap}");
    } else {
        edited += &format!("\n{pad}{entry}{trailing}\n{}", " ".repeat(outer));
    }
    Some(edited + &text[closing..])
}

/// JSON text with continuation lines indented.
fn render(value: &Value, indent: usize) -> String {
    let pretty = format!("{value:#}");
    pretty.replace('\n', &format!("\n{}", " ".repeat(indent)))
}

/// A key, quoted as the file quotes its own.
fn render_key(text: &str, key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$');
    let file_quotes = match (Scanner { text, at: 0 }).document().map(|root| root.body) {
        Ok(Body::Object(members)) => {
            members.first().is_none_or(|first| text[first.start..].starts_with(['"', '\'']))
        }
        _ => true,
    };
    if plain && !file_quotes { key.to_owned() } else { Value::from(key).to_string() }
}

/// How far the line at `at` is indented.
fn indent_of(text: &str, at: usize) -> usize {
    let line = &text[text[..at].rfind('\n').map_or(0, |i| i + 1)..];
    line.len() - line.trim_start_matches([' ', '\t']).len()
}

/// Where the comma after a value is, past blanks and comments.
fn comma_after(text: &str, end: usize) -> Option<usize> {
    let mut scanner = Scanner { text, at: end };
    scanner.trivia().ok()?;
    (scanner.peek() == Some(b',')).then_some(scanner.at)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn document(&mut self) -> Result<Node, Fault> {
        self.trivia()?;
        let node = self.value(0)?;
        self.trivia()?;
        if self.at == self.text.len() { Ok(node) } else { Err(Fault::Unreadable) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        if depth > MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let start = self.at;
        let body = match self.peek().ok_or(Fault::Unreadable)? {
            b'{' => Body::Object(self.entries(b'}', |scanner| {
                let start = scanner.at;
                let key = scanner.key()?;
                scanner.trivia()?;
                scanner.expect(b':')?;
                scanner.trivia()?;
                Ok(Member { key, start, node: scanner.value(depth + 1)? })
            })?),
            b'[' => Body::List(self.entries(b']', |scanner| scanner.value(depth + 1))?),
            b'"' | b'\'' => {
                self.string()?;
                Body::Plain
            }
            _ => {
                self.bare()?;
                Body::Plain
            }
        };
        Ok(Node { start, end: self.at, body })
    }

    fn entries<T>(
        &mut self,
        close: u8,
        mut read: impl FnMut(&mut Self) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut entries = Vec::new();
        self.at += 1;
        loop {
            self.trivia()?;
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(entries);
            }
            entries.push(read(self)?);
            self.trivia()?;
            if self.peek() != Some(close) {
                self.expect(b',')?;
            }
        }
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(Fault::Unreadable);
        }
        self.at += 1;
        Ok(())
    }

    fn key(&mut self) -> Result<String, Fault> {
        let start = self.at;
        if matches!(self.peek(), Some(b'"' | b'\'')) {
            self.string()?;
            return json5::from_str(&self.text[start..self.at]).map_err(|_| Fault::Unreadable);
        }
        self.bare()?;
        let key = &self.text[start..self.at];
        if key.contains('\\') { Err(Fault::Unreadable) } else { Ok(key.to_owned()) }
    }

    fn string(&mut self) -> Result<(), Fault> {
        let quote = self.peek();
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            if byte == b'\\' {
                self.at += 1;
            } else if Some(byte) == quote {
                return Ok(());
            }
        }
        Err(Fault::Unreadable)
    }

    /// A number, a word or a key without quotes.
    fn bare(&mut self) -> Result<(), Fault> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| c.is_whitespace() || ",:[]{}\"'/".contains(c)).unwrap_or(rest.len());
        self.at += end;
        if end == 0 { Err(Fault::Unreadable) } else { Ok(()) }
    }

    /// Blanks and comments.
    fn trivia(&mut self) -> Result<(), Fault> {
        loop {
            let rest = self.text.get(self.at..).ok_or(Fault::Unreadable)?;
            let blank =
                rest.len() - rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}').len();
            let rest = &rest[blank..];
            let skip = if rest.starts_with("//") {
                rest.find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                rest.find("*/").ok_or(Fault::Unreadable)? + 2
            } else {
                0
            };
            self.at += blank + skip;
            if skip == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn sets(text: &str, path: &str, value: &Value, expected: &str) {
        let path: KeyPath = path.parse().unwrap();
        let mut root = syntax::parse(text).unwrap();
        path.set(&mut root, value.clone()).unwrap();
        assert_eq!(set(text, &path, value, &root).as_deref(), Some(expected));
    }

    #[track_caller]
    fn removes(text: &str, path: &str, expected: &str) {
        let path: KeyPath = path.parse().unwrap();
        let mut root = syntax::parse(text).unwrap();
        path.remove(&mut root).unwrap();
        assert_eq!(remove(text, &path, &root).as_deref(), Some(expected));
    }

    #[test]
    fn what_cannot_be_verified_is_given_up() {
        let path: KeyPath = "a".parse().unwrap();
        assert_eq!(set("{a: 1}", &path, &json!(2), &json!({"a": 3})), None);
        assert_eq!(
            set("{'\\u0061': 1}", &path, &json!(2), &json!({"a": 2})).as_deref(),
            Some("{'\\u0061': 2}")
        );
        assert_eq!(set("{\\u0061: 1}", &path, &json!(2), &json!({"a": 2})), None);
        assert!(nests_too_deep(&"[".repeat(100)));
        assert!(!nests_too_deep("{a: [1]}"));
    }

    #[test]
    fn a_replaced_value_leaves_everything_else() {
        sets(
            "// head\n{ a: 1, /* b */ b: 'x', // tail\n}\n",
            "b",
            &json!("y"),
            "// head\n{ a: 1, /* b */ b: \"y\", // tail\n}\n",
        );
    }

    #[test]
    fn a_new_key_joins_the_others() {
        sets("{}", "a.b", &json!(1), "{\n  \"a\": {\n    \"b\": 1\n  }\n}");
        sets("{\n  a: 1 // one\n}\n", "b", &json!(2), "{\n  a: 1, // one\n  b: 2\n}\n");
        sets("{\n  a: 1, // one\n}\n", "b", &json!(2), "{\n  a: 1, // one\n  b: 2,\n}\n");
        sets("{a: {x: 1}}", "a.y", &json!(2), "{a: {x: 1, y: 2}}");
        sets("{\n  l: [1,\n    2]\n}", "l[2]", &json!(3), "{\n  l: [1,\n    2,\n  3\n  ]\n}");
        sets("{ // only a comment\n}", "a", &json!(1), "{ // only a comment\n  \"a\": 1\n}");
    }

    #[test]
    fn a_removed_key_takes_its_line() {
        removes("{\n  a: 1,\n  // about b\n  b: 2,\n  c: 3\n}", "b", "{\n  a: 1,\n  // about b\n  c: 3\n}");
        removes("{\n  a: 1,\n  b: 2\n}", "b", "{\n  a: 1\n}");
        removes("{a: 1, b: 2, c: 3}", "b", "{a: 1, c: 3}");
        removes("{a: 1}", "a", "{}");
        removes("{l: [1, 2]}", "l[0]", "{l: [2]}");
    }

    proptest! {
        #[test]
        fn the_scanner_never_panics(text in "[{}\\[\\],:'\"/*\\\\\n a-z0-9\u{e9}]{0,60}") {
            let path: KeyPath = "a.b".parse().unwrap();
            let _unused = set(&text, &path, &json!(1), &json!({}));
            let _unused = remove(&text, &path, &json!({}));
        }
    }
}
