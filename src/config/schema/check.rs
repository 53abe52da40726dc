//! Holds a file against the table: every fault at once, each with what would be
//! right.

use serde_json::{Map, Value};

use super::{Field, Kind, ROOT, is_secret};
use crate::config::error::Problem;
use crate::config::keypath::{KeyPath, Segment};

/// Everything in a file that is not as the table says.
pub(crate) fn check(value: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    visit(&ROOT, value, &KeyPath::root(), &mut problems);
    problems
}

fn visit(kind: &Kind, value: &Value, path: &KeyPath, problems: &mut Vec<Problem>) {
    match (kind, value) {
        (Kind::Bool, Value::Bool(_))
        | (Kind::False, Value::Bool(false))
        | (Kind::Text | Kind::Secret, Value::String(_)) => {}
        (Kind::Int(min, max), Value::Number(number)) => {
            if !number.as_i64().is_some_and(|n| (*min..=*max).contains(&n)) {
                problems.push(wrong(kind, value, path));
            }
        }
        (Kind::Word(words), Value::String(text)) => {
            if !words.contains(&text.as_str()) {
                problems.push(bad_word(words, text, path));
            }
        }
        (Kind::List(inner), Value::Array(list)) => {
            for (i, item) in list.iter().enumerate() {
                visit(inner, item, &path.index(i), problems);
            }
        }
        (Kind::Object(fields), Value::Object(map)) => object(fields, map, path, problems),
        (Kind::Map(inner), Value::Object(map)) => {
            for (key, item) in map {
                visit(inner, item, &path.key(key), problems);
            }
        }
        (Kind::OneOf(kinds, _), _) => match kinds.iter().find(|kind| same_type(kind, value)) {
            Some(kind) => visit(kind, value, path, problems),
            None => problems.push(wrong(kind, value, path)),
        },
        _ => problems.push(wrong(kind, value, path)),
    }
}

fn object(fields: &'static [Field], map: &Map<String, Value>, path: &KeyPath, problems: &mut Vec<Problem>) {
    for (key, value) in map {
        match fields.iter().find(|field| field.name == key) {
            Some(field) => visit(&field.kind, value, &path.key(key), problems),
            None => problems.push(unknown(fields, path, key)),
        }
    }
}

fn same_type(kind: &Kind, value: &Value) -> bool {
    matches!(
        (kind, value),
        (Kind::Bool, Value::Bool(_))
            | (Kind::False, Value::Bool(false))
            | (Kind::Int(..), Value::Number(_))
            | (Kind::Text | Kind::Secret | Kind::Word(_), Value::String(_))
            | (Kind::List(_), Value::Array(_))
            | (Kind::Object(_) | Kind::Map(_), Value::Object(_))
    )
}

fn wrong(kind: &Kind, value: &Value, path: &KeyPath) -> Problem {
    // A number where a secret belongs may be the secret.
    let got = if is_secret(path) { type_name(value).to_owned() } else { describe(value) };
    let key = path.to_string();
    if key.is_empty() {
        return Problem::new("", format!("the file holds {got}; it takes an object: {{ ... }}"));
    }
    Problem::new(key, format!("takes {}, not {got}", takes(kind)))
}

/// What a kind takes, for the middle of a sentence.
pub(super) fn takes(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::False => "false".into(),
        Kind::Int(i64::MIN, i64::MAX) => "a whole number".into(),
        Kind::Int(min, i64::MAX) => format!("a whole number from {min}"),
        Kind::Int(min, max) => format!("a whole number from {min} to {max}"),
        Kind::Text | Kind::Secret => "text".into(),
        Kind::Word(words) => format!("one of {}", words.join(", ")),
        Kind::List(inner) => format!("a list, each entry {}", takes(inner)),
        Kind::Object(fields) => {
            let names: Vec<_> = fields.iter().map(|field| field.name).take(3).collect();
            format!("an object with keys such as {}", names.join(", "))
        }
        Kind::Map(_) => "an object".into(),
        Kind::OneOf(_, words) => (*words).into(),
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn describe(value: &Value) -> String {
    match value {
        Value::Bool(b) => b.to_string(),
        Value::Number(n) => n.to_string(),
        Value::String(text) => format!("the text {:?}", shorten(text)),
        other => type_name(other).into(),
    }
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        return text.to_owned();
    }
    text.chars().take(57).chain("...".chars()).collect()
}

fn bad_word(words: &[&str], text: &str, path: &KeyPath) -> Problem {
    let mut what = format!("{:?} is none of {}", shorten(text), words.join(", "));
    let hint = match (text, nearest(text, words.iter().copied())) {
        ("0.0.0.0" | "::", _) if words.contains(&"lan") => Some("lan"),
        ("127.0.0.1" | "::1" | "localhost", _) if words.contains(&"loopback") => Some("loopback"),
        (_, near) => near,
    };
    if let Some(word) = hint {
        what += &format!("; did you mean {word}?");
    }
    Problem::new(path.to_string(), what)
}

fn unknown(fields: &'static [Field], path: &KeyPath, key: &str) -> Problem {
    let mut what = "unknown key".to_owned();
    let sibling = nearest(key, fields.iter().map(|field| field.name)).map(|name| path.key(name).to_string());
    if let Some(near) = sibling.or_else(|| elsewhere(key)) {
        what += &format!("; did you mean {near}?");
    } else {
        let names: Vec<_> =
            fields.iter().map(|field| field.name).filter(|name| !name.starts_with('$')).collect();
        what += &format!("; known here: {}", names.join(", "));
    }
    Problem::new(path.key(key).to_string(), what)
}

/// The known key closest to one that is unknown.
pub(crate) fn suggest(path: &KeyPath) -> Option<String> {
    let depth = (0..path.segments().len()).rev().find(|depth| super::at(&path.prefix(*depth)).is_some())?;
    let Segment::Key(key) = path.segments().get(depth)? else { return None };
    let here = path.prefix(depth);
    let sibling = match super::at(&here)? {
        Kind::Object(fields) => nearest(key, fields.iter().map(|field| field.name)),
        _ => None,
    };
    sibling.map(|name| here.key(name).to_string()).or_else(|| elsewhere(key))
}

/// The word closest to `text`, where one is close enough to be meant.
pub(crate) fn nearest<'a>(text: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
    };
    let wanted = plain(text);
    let limit = (wanted.len() / 3).clamp(1, 3);
    words
        .map(|word| (strsim::osa_distance(&wanted, &plain(word)), word))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The same name at another place of the table: `bind` is `gateway.bind`.
fn elsewhere(key: &str) -> Option<String> {
    fn walk(kind: &'static Kind, path: &KeyPath, key: &str) -> Option<String> {
        let Kind::Object(fields) = kind else { return None };
        let here = fields.iter().find(|field| field.name.eq_ignore_ascii_case(key));
        here.map(|field| path.key(field.name).to_string())
            .or_else(|| fields.iter().find_map(|field| walk(&field.kind, &path.key(field.name), key)))
    }
    walk(&ROOT, &KeyPath::root(), key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn says(value: &Value, expected: &[&str]) {
        let got: Vec<_> = check(value).iter().map(Problem::headline).collect();
        assert_eq!(got, expected);
    }

    #[test]
    fn unknown_keys_name_the_nearest_known_one() {
        says(&json!({"gateway": {"auht": {}}}), &["gateway.auht: unknown key; did you mean gateway.auth?"]);
        says(
            &json!({"gateway": {"trusted_proxies": []}}),
            &["gateway.trusted_proxies: unknown key; did you mean gateway.trustedProxies?"],
        );
        says(&json!({"bind": "lan"}), &["bind: unknown key; did you mean gateway.bind?"]);
        says(
            &json!({"gateway": {"admin": {"zzzzzz": 1}}}),
            &["gateway.admin.zzzzzz: unknown key; known here: port"],
        );
    }

    #[test]
    fn all_faults_come_at_once() {
        says(
            &json!({"gateway": {"port": "x", "bind": "0.0.0.0", "allowedHosts": [1], "requireHttps": 1}}),
            &[
                "gateway.allowedHosts[0]: takes text, not 1",
                "gateway.bind: \"0.0.0.0\" is none of loopback, lan, tailnet, auto, custom; did you mean lan?",
                "gateway.port: takes a whole number from 1 to 65535, not the text \"x\"",
                "gateway.requireHttps: takes true or false, not 1",
            ],
        );
        says(
            &json!({"gateway": {"port": 0}}),
            &["gateway.port: takes a whole number from 1 to 65535, not 0"],
        );
        says(&json!([1]), &["the file holds a list; it takes an object: { ... }"]);
    }

    #[test]
    fn threat_054_a_secret_of_the_wrong_type_is_not_printed() {
        says(
            &json!({"gateway": {"auth": {"token": 123_456_789}}}),
            &["gateway.auth.token: takes text, not a number"],
        );
    }

    #[test]
    fn alternatives_go_by_type() {
        says(&json!({"gateway": {"upstream": 3000}}), &[]);
        says(
            &json!({"gateway": {"routes": {"a": {"public": true}}}}),
            &["gateway.routes.a.public: takes false, \"secret\" or \"open\", not true"],
        );
        says(
            &json!({"gateway": {"upstream": {"urll": "x"}}}),
            &["gateway.upstream.urll: unknown key; did you mean gateway.upstream.url?"],
        );
        says(&json!({"channels": {"telegram": {"allowFrom": [123, "tg:1"], "dmPolicy": "locked"}}}), &[]);
    }
}
