//! A YAML file, shown as the JSON5 it should be (design D3).
//!
//! Only for the hint in an error: best effort, and never what is loaded.

use serde_json::{Map, Value};

use super::keypath::KeyPath;
use super::{schema, syntax};

/// The same content as JSON5, where the text reads like simple YAML. Secrets
/// are left out of it (threat rule 54).
pub(crate) fn as_json5(text: &str) -> Option<String> {
    let lines: Vec<Line<'_>> = text.lines().filter_map(Line::of).collect();
    if lines.is_empty() || text.trim_start().starts_with(['{', '[']) {
        return None;
    }
    let mut at = 0;
    let value = block(&lines, &mut at, lines[0].indent)?;
    if at != lines.len() || !value.is_object() {
        return None;
    }
    Some(format!("{:#}", schema::redact(&KeyPath::root(), &value)))
}

struct Line<'a> {
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let trimmed = line.trim_start_matches(' ');
        let text = strip_comment(trimmed).trim_end();
        let nothing = text.is_empty() || text == "---" || text.starts_with("//");
        (!nothing).then_some(Self { indent: line.len() - trimmed.len(), text })
    }
}

fn strip_comment(text: &str) -> &str {
    if text.starts_with('#') {
        return "";
    }
    // A `#` inside quotes stays.
    match text.find(" #") {
        Some(i) if !text[..i].contains(['"', '\'']) => &text[..i],
        _ => text,
    }
}

fn block(lines: &[Line<'_>], at: &mut usize, indent: usize) -> Option<Value> {
    if lines.get(*at)?.text.starts_with("- ") {
        let mut list = Vec::new();
        while let Some(line) = lines.get(*at).filter(|line| line.indent == indent) {
            list.push(scalar(line.text.strip_prefix("- ")?.trim())?);
            *at += 1;
        }
        return Some(Value::Array(list));
    }
    let mut map = Map::new();
    while let Some(line) = lines.get(*at).filter(|line| line.indent == indent) {
        let (key, rest) = line.text.split_once(':')?;
        let key = key.trim().trim_matches(['"', '\'']);
        if key.is_empty() || key.contains(['{', ' ']) || !(rest.is_empty() || rest.starts_with(' ')) {
            return None;
        }
        *at += 1;
        let value = match rest.trim() {
            "" => match lines.get(*at) {
                Some(next)
                    if next.indent > indent || next.indent == indent && next.text.starts_with("- ") =>
                {
                    block(lines, at, next.indent)?
                }
                _ => Value::Null,
            },
            text => scalar(text)?,
        };
        map.insert(key.to_owned(), value);
    }
    // A deeper line here belongs to nothing.
    if lines.get(*at).is_some_and(|line| line.indent > indent) { None } else { Some(Value::Object(map)) }
}

fn scalar(text: &str) -> Option<Value> {
    match text {
        "true" => Some(Value::Bool(true)),
        "false" => Some(Value::Bool(false)),
        "null" | "~" => Some(Value::Null),
        _ if text.starts_with(['[', '{', '"', '\'']) => syntax::parse(text).ok(),
        _ if text.starts_with(['|', '>', '&', '*', '!']) => None,
        _ => Some(text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_simple_yaml_is_left_alone() {
        for text in ["", "{a: 1}", "gateway", "a: |\n  x", "a: 1\n    b: 2", "just words: and\nmore", "[1]"] {
            assert_eq!(as_json5(text), None, "{text:?}");
        }
    }

    #[test]
    fn threat_054_the_shown_content_has_no_secrets() {
        let shown = as_json5("gateway:\n  auth:\n    token: hunter2hunter2\n").unwrap();
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_guides_blocks_are_shown_as_json5() {
        let text = "# config.json\ngateway:\n  bind: tailnet  # here\n  port: 18789\n  trustedProxies:\n    - 10.0.0.1\n    - \"::1\"\n  auth:\n    allowTailscale: true\nsession:\n  dmScope: 'main'\n";
        let shown: Value = serde_json::from_str(&as_json5(text).unwrap()).unwrap();
        assert_eq!(
            shown,
            json!({
                "gateway": {"bind": "tailnet", "port": 18789, "trustedProxies": ["10.0.0.1", "::1"],
                            "auth": {"allowTailscale": true}},
                "session": {"dmScope": "main"},
            })
        );
    }
}
