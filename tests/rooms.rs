//! Keeps the arrows of ARCHITECTURE.md true: which room may name which other one.
//!
//! A request goes one way. A room that reached back to an earlier one could decide
//! on what it should only be told, so each room lists here what it may use, and the
//! list has no circle. Test modules may use what they like.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Each room and the rooms it may use. What is missing is forbidden.
const ROOMS: &[(&str, &[&str])] = &[
    ("main", &["cli", "config"]),
    (
        "cli",
        &[
            "app",
            "checks",
            "funnel",
            "certs",
            "serve",
            "ingress",
            "config",
            "domain",
            "state_db",
            "telemetry",
            TAILSCALE,
        ],
    ),
    (
        "app",
        &[
            "watch",
            "funnel",
            "edge",
            "certs",
            "authz",
            "authn",
            "limits",
            "ingress",
            "config",
            "domain",
            "metrics",
            "readiness",
            "serve",
            "state_db",
            "telemetry",
            TAILSCALE,
        ],
    ),
    (
        "checks",
        &["certs", "ingress", "serve", "state_db", "config", "telemetry", "any_certificate", TAILSCALE],
    ),
    ("funnel", &["edge", "config", "domain"]),
    ("watch", &["ingress", "domain", TAILSCALE]),
    (
        "edge",
        &[
            "api",
            "proxy",
            "authz",
            "authn",
            "limits",
            "ingress",
            "config",
            "domain",
            "body",
            "page",
            "metrics",
            "readiness",
            "telemetry",
        ],
    ),
    ("api", &["authz", "ingress", "domain", "page", "readiness"]),
    ("proxy", &["authz", "ingress", "domain", "body", "any_certificate"]),
    ("certs", &["ingress", "config", "domain", "readiness", "telemetry", TAILSCALE]),
    ("state_db", &["serve", "authz", "domain"]),
    ("serve", &["ingress", "domain", TAILSCALE]),
    ("authz", &["ingress", "domain"]),
    ("authn", &["limits", "ingress", "config", "domain", TAILSCALE]),
    ("limits", &["config", "domain"]),
    ("ingress", &["domain", "body", TAILSCALE]),
    ("telemetry", &["config"]),
    ("page", &["domain"]),
    ("metrics", &["domain"]),
    ("config", &["domain"]),
    ("domain", &[TAILSCALE]),
    ("body", &[]),
    ("readiness", &[]),
    ("any_certificate", &[]),
];

/// The library of `tailscale/`, which knows nothing of gateways.
const TAILSCALE: &str = "openclaw_tailscale";

/// Crates that only some rooms may name, and which.
const CRATES: &[(&str, &[&str])] = &[
    ("axum", &["api", "edge"]),
    ("hyper", &["ingress", "edge", "proxy", "body"]),
    ("hyper_util", &["ingress", "proxy", "edge"]),
    ("rusqlite", &["state_db"]),
    ("clap", &["cli", "main"]),
    ("tokio", &["app", "certs", "watch", "serve", "edge", "proxy", "authn", "ingress", "cli"]),
];

/// What no room names: only the runner of `tailscale/` starts a process.
const NOBODY: &[&str] = &["std::process::Command", "tokio::process", "process::Command"];

struct Source {
    path: PathBuf,
    room: String,
    /// The modules it lies in, from the root.
    modules: Vec<String>,
    /// Code only: no comments, no string literals, no test modules.
    lines: Vec<(usize, String)>,
}

#[test]
fn no_room_names_one_that_it_may_not_use() {
    let known: BTreeMap<_, BTreeSet<_>> =
        ROOMS.iter().map(|(room, uses)| (*room, uses.iter().copied().collect())).collect();
    let mut wrong = String::new();
    let mut seen = BTreeSet::new();
    for source in sources() {
        let Some(allowed) = known.get(source.room.as_str()) else {
            let _ = writeln!(wrong, "{}: the room {} has no row here", source.path.display(), source.room);
            continue;
        };
        for (number, line) in &source.lines {
            for target in rooms_named(line, &source.modules) {
                if target == source.room || allowed.contains(target.as_str()) {
                    seen.insert((source.room.clone(), target));
                } else if known.contains_key(target.as_str()) || target == TAILSCALE {
                    let _ = writeln!(
                        wrong,
                        "{}:{number}: {} -> {target} is no arrow of ARCHITECTURE.md: {}",
                        source.path.display(),
                        source.room,
                        line.trim()
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    let unused: Vec<_> = ROOMS
        .iter()
        .flat_map(|(room, uses)| uses.iter().map(move |used| ((*room).to_owned(), (*used).to_owned())))
        .filter(|arrow| !seen.contains(arrow))
        .collect();
    assert!(unused.is_empty(), "arrows that nobody uses any more: {unused:?}");
}

#[test]
fn the_arrows_go_one_way() {
    // The table is in order: each room is listed above everything it uses.
    let place = |room: &str| ROOMS.iter().position(|(known, _)| *known == room);
    for (at, (room, uses)) in ROOMS.iter().enumerate() {
        for used in uses.iter().filter(|used| **used != TAILSCALE) {
            let below = place(used).unwrap_or_else(|| panic!("{used} is no room"));
            assert!(below > at, "{room} -> {used} goes back");
        }
    }
}

#[test]
fn the_page_names_every_room() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let without_row =
        ["main", "body", "page", "metrics", "readiness", "telemetry", "state_db", "any_certificate"];
    for (room, _) in ROOMS.iter().filter(|(room, _)| !without_row.contains(room)) {
        assert!(page.contains(&format!("`{room}`")), "ARCHITECTURE.md does not name {room}");
    }
}

#[test]
fn some_crates_stay_in_their_rooms_and_no_room_starts_a_process() {
    let mut wrong = String::new();
    for source in sources() {
        for (number, line) in &source.lines {
            for (name, rooms) in CRATES {
                if names(line, name) && !rooms.contains(&source.room.as_str()) {
                    let (path, room) = (source.path.display(), &source.room);
                    let _ =
                        writeln!(wrong, "{path}:{number}: {room} knows nothing of {name}: {}", line.trim());
                }
            }
            for name in NOBODY {
                if line.contains(name) {
                    let path = source.path.display();
                    let _ = writeln!(wrong, "{path}:{number}: only tailscale/src/runner.rs starts processes");
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn the_tailscale_package_knows_nothing_of_the_gateway() {
    let manifest = std::fs::read_to_string(root().join("tailscale/Cargo.toml")).unwrap();
    assert!(!manifest.lines().any(|line| line.starts_with("openclaw ") || line.starts_with("openclaw=")));
    for path in files(&root().join("tailscale/src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("openclaw::"), "{} names the gateway", path.display());
    }
}

/// The reading itself: what it must find, and what it must not.
#[test]
fn names_are_found_however_they_are_written() {
    let modules = |path: &str| path.split('/').map(str::to_owned).collect::<Vec<_>>();
    let at = |line: &str, path: &str| rooms_named(line, &modules(path));
    assert_eq!(at("use crate::proxy::Forward;", "edge/pipeline"), ["proxy"]);
    assert_eq!(at("use crate::{api::Caller, proxy::{self, Closer}};", "edge/pipeline"), ["api", "proxy"]);
    assert_eq!(at("let x = crate::edge::respond::json();", "authn"), ["edge"]);
    assert_eq!(at("use super::super::edge::Edge;", "authn/cache"), ["edge"]);
    assert_eq!(at("use super::edge::Edge;", "authn"), ["edge"]);
    assert_eq!(at("use super::cache;", "authn/network"), Vec::<String>::new());
    assert_eq!(at("use openclaw_tailscale::Whois;", "authn"), ["openclaw_tailscale"]);
    assert_eq!(at("use openclaw::cli;", "main"), ["cli"]);
    assert_eq!(at("my_crate::edge::x()", "authn"), Vec::<String>::new());
    let text = "a();\n// crate::edge\n\"crate::edge\"; b();\n#[cfg(test)]\nmod tests {\n    use crate::edge;\n}\nc();\n";
    let code: Vec<_> = code(text).into_iter().filter(|(_, line)| !line.trim().is_empty()).collect();
    assert_eq!(code.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1, 3, 8], "{code:?}");
    assert!(!code.iter().any(|(_, line)| line.contains("edge")), "{code:?}");
    assert!(names("use axum::Router;", "axum") && !names("let axum_like = 1;", "axum"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<Source> {
    let src = root().join("src");
    let mut sources = Vec::new();
    for path in files(&src) {
        let inside = path.strip_prefix(&src).unwrap().with_extension("");
        let modules: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if modules[0] == "lib" || modules.iter().any(|module| module == "tests") {
            continue;
        }
        let lines = code(&std::fs::read_to_string(&path).unwrap());
        let path = path.strip_prefix(root()).unwrap().to_owned();
        sources.push(Source { path, room: modules[0].clone(), modules, lines });
    }
    assert!(sources.len() > 50, "the rooms are somewhere else");
    sources
}

/// The lines without comments, string literals and `#[cfg(test)]` items.
fn code(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    // The brace depth at which a test item began, and whether its body was met.
    let mut depth = 0_i32;
    let mut skipping: Option<(i32, bool)> = None;
    for (number, line) in (1..).zip(text.lines()) {
        let plain = without_text(line);
        if skipping.is_none() && plain.trim_start().starts_with("#[cfg(test)]") {
            skipping = Some((depth, false));
        }
        let before = depth;
        for c in plain.chars() {
            depth += i32::from(c == '{') - i32::from(c == '}');
        }
        match &mut skipping {
            None => lines.push((number, plain)),
            Some((start, met)) => {
                *met |= depth > *start || (plain.contains('{') && depth == before);
                let ended = (*met && depth <= *start) || (!*met && plain.trim_end().ends_with(';'));
                if ended {
                    skipping = None;
                }
            }
        }
    }
    lines
}

fn without_text(line: &str) -> String {
    let mut out = String::new();
    let mut chars = line.chars().peekable();
    let mut inside = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' if inside => {
                chars.next();
            }
            '"' => inside = !inside,
            // A character literal that is a quote or a brace.
            '\'' if !inside && matches!(chars.peek(), Some('"' | '{' | '}')) => {
                chars.next();
                chars.next();
            }
            '/' if !inside && chars.peek() == Some(&'/') => break,
            _ if inside => {}
            _ => out.push(c),
        }
    }
    out
}

/// The rooms that a line names from inside a module.
fn rooms_named(line: &str, modules: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in line.match_indices("crate::") {
        if !line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            found.extend(heads(&line[at + "crate::".len()..]));
        }
    }
    if modules[0] == "main" {
        for (at, _) in line.match_indices("openclaw::") {
            found.extend(heads(&line[at + "openclaw::".len()..]));
        }
    }
    // So many `super` that the root is reached.
    let up = "super::".repeat(modules.len());
    for (at, _) in line.match_indices(&up) {
        let inner = line[..at].ends_with("super::");
        if !inner && !line[at + up.len()..].starts_with("super::") {
            found.extend(heads(&line[at + up.len()..]));
        }
    }
    if names(line, TAILSCALE) {
        found.push(TAILSCALE.to_owned());
    }
    found
}

/// `a::b` is `a`; `{a::b, c::{d, e}}` is `a` and `c`.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![word(path)] };
    let (mut found, mut depth, mut start) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(word(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(word(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// Whether a line names a crate as the start of a path.
fn names(line: &str, name: &str) -> bool {
    line.match_indices(name).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let starts = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':' || c == '.'));
        starts && line[at + name.len()..].starts_with("::")
    })
}
