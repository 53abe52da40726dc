//! `${NAME}` in strings (gateway spec 1.1).

use serde_json::Value;

use super::env::Env;
use super::error::Problem;
use super::keypath::KeyPath;
use super::schema;

/// Keys under which a value that silently went missing would let more people
/// in: a role, a host, an end, a policy. There an unset variable is an error,
/// but for secrets, without which nobody gets in.
const STRICT: &[&str] = &[
    "gateway.routes",
    "gateway.access",
    "gateway.upstream",
    "gateway.trustedProxies",
    "gateway.auth.trustedProxy",
    "gateway.tools",
    "channels",
];

/// What substitution found.
#[derive(Default)]
pub(crate) struct Substituted {
    pub(crate) problems: Vec<Problem>,
    pub(crate) warnings: Vec<String>,
    /// Paths whose value came from a variable.
    pub(crate) resolved: Vec<KeyPath>,
    /// Paths whose variable is unset, with the text as written.
    pub(crate) unresolved: Vec<(KeyPath, String)>,
}

/// Replaces every `${NAME}`. A value with an unset or empty variable in it is
/// taken out, with a warning.
pub(crate) fn substitute(value: &mut Value, env: &Env) -> Substituted {
    let mut found = Substituted::default();
    visit(value, &KeyPath::root(), env, &mut found);
    // Backwards, so that an index stays right until its turn comes.
    for (path, _) in found.unresolved.iter().rev() {
        path.remove(value);
    }
    found
}

fn visit(value: &mut Value, path: &KeyPath, env: &Env, found: &mut Substituted) {
    match value {
        Value::Object(map) => map.iter_mut().for_each(|(key, v)| visit(v, &path.key(key), env, found)),
        Value::Array(list) => {
            list.iter_mut().enumerate().for_each(|(i, v)| visit(v, &path.index(i), env, found));
        }
        Value::String(text) if text.contains("${") => match expand(text, env) {
            Ok(expanded) => {
                if is_reference(text) {
                    found.resolved.push(path.clone());
                }
                *text = expanded;
            }
            Err(name) => {
                let key = path.to_string();
                if STRICT.iter().any(|strict| key.starts_with(strict)) && !schema::is_secret(path) {
                    let what = format!(
                        "the variable {name} is not set, and leaving this out could let more people in"
                    );
                    found.problems.push(Problem::new(key, what).fix(format!("export {name}=...")).at_start());
                } else {
                    found
                        .warnings
                        .push(format!("{key}: the variable {name} is not set; the key counts as absent"));
                }
                found.unresolved.push((path.clone(), text.clone()));
            }
        },
        _ => {}
    }
}

/// Whether a text holds a reference that would be replaced.
pub(crate) fn is_reference(text: &str) -> bool {
    pieces(text).any(|piece| matches!(piece, Piece::Name(_)))
}

/// The text with its references replaced, or the first name that is unset.
fn expand(text: &str, env: &Env) -> Result<String, String> {
    let mut out = String::new();
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => out += text,
            Piece::Name(name) => out += env.get(name).ok_or_else(|| name.to_owned())?,
        }
    }
    Ok(out)
}

enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// A text in pieces. `$${NAME}` is the literal `${NAME}`; what only looks like a
/// reference (`${name}`) is text.
fn pieces(text: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(after) = rest.strip_prefix('$')
            && let Some((_, len)) = reference(after)
        {
            let (literal, tail) = after.split_at(len);
            rest = tail;
            return Some(Piece::Text(literal));
        }
        if let Some((name, len)) = reference(rest) {
            rest = &rest[len..];
            return Some(Piece::Name(name));
        }
        let end = rest[1..].find('$').map_or(rest.len(), |i| i + 1);
        // The first symbol may be longer than a byte only when it is no `$`.
        let end = if rest.starts_with('$') { end } else { rest.find('$').unwrap_or(rest.len()) };
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(Piece::Text(piece))
    })
}

/// A reference at the start of a text: its name and its length.
fn reference(text: &str) -> Option<(&str, usize)> {
    let (name, _) = text.strip_prefix("${")?.split_once('}')?;
    let sound = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    sound.then_some((name, name.len() + 3))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_unset_variable_never_widens_who_may() {
        let mut value = json!({"gateway": {
            "access": {"allow": [{"who": "a@b.c", "until": "${END}"}]},
            "auth": {"token": "${NONE}"},
        }});
        let found = substitute(&mut value, &Env::from_vars([("NONE", " ")]));
        assert_eq!(found.problems.len(), 1);
        assert_eq!(found.problems[0].key, "gateway.access.allow[0].until");
        assert_eq!(
            found.warnings,
            ["gateway.auth.token: the variable NONE is not set; the key counts as absent"]
        );
        assert_eq!(value["gateway"]["auth"], json!({}));
    }

    #[test]
    fn references_are_replaced_and_literals_kept() {
        let env = Env::from_vars([("A", "1"), ("B_2", "zwei")]);
        let expand = |text: &str| expand(text, &env).unwrap();
        assert_eq!(expand("${A}"), "1");
        assert_eq!(expand("x${A}y${B_2}z"), "x1yzweiz");
        assert_eq!(expand("$${A} ${a} $ é$é ${ ${A"), "${A} ${a} $ é$é ${ ${A");
        assert!(!is_reference("$${A}") && !is_reference("${a}") && is_reference("x${A}"));
        assert_eq!(super::expand("${A}${C}", &env), Err("C".to_owned()));
    }

    #[test]
    fn several_unset_entries_of_a_list_all_go() {
        let mut value = json!({"l": ["${X}", "a", "${Y}", "b"]});
        substitute(&mut value, &Env::default());
        assert_eq!(value, json!({"l": ["a", "b"]}));
    }
}
