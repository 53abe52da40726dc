//! The words that older guides have for `tailscale serve`, typed into ours: recognised, so
//! that the answer can be today's words and our own command.
//!
//! Three grammars went by that name: `<mount> {proxy|path|text} <arg>` (1.34 to 1.36),
//! `https[:port] <mount> <source> [off]` (1.38 to 1.50), and `https:443 <source>`, which
//! guides print and no release understood. Since 1.52 it is flags and one target.

use std::ffi::OsString;

use serde_json::json;

use super::super::{Exit, output};

/// What to type instead.
#[derive(Debug, PartialEq, Eq)]
struct Instead {
    /// The words, as they were typed.
    typed: String,
    /// Ours; empty where we do no such thing.
    ours: Vec<String>,
    /// Today's of Tailscale.
    theirs: String,
}

/// Answers a command line that cannot be read, if it is one of those; `None` if not.
pub(crate) fn answer(args: &[OsString]) -> Option<Exit> {
    let at = args.windows(2).position(|pair| pair[0] == "tailscale" && pair[1] == "serve")?;
    let words: Option<Vec<&str>> = args[at + 2..].iter().map(|word| word.to_str()).collect();
    let (flags, words): (Vec<&str>, Vec<&str>) = words?.into_iter().partition(|word| word.starts_with("--"));
    let Instead { typed, ours, theirs } = instead(&words)?;
    let message =
        format!("`serve {typed}` are the words of older guides, for releases of Tailscale before 1.52");
    if flags.contains(&"--json") {
        output::json(&json!({
            "ok": false,
            "error": {"code": "serve_old_words", "message": message, "fix": ours.first(), "ours": ours, "tailscale": theirs},
        }));
        return Some(Exit::Usage);
    }
    let mut text = format!("openclaw: {message}\n");
    if ours.is_empty() {
        text += "The gateway publishes no raw TCP forwards, and believes nobody behind Serve while one leads to it.\n";
    } else {
        text += match typed.ends_with(" off") {
            true => "To have the gateway take its route away (what others publish stays as it is):\n",
            false => "To have the gateway publish itself (what others publish stays as it is):\n",
        };
        ours.iter().for_each(|command| text += &format!("  {command}\n"));
    }
    text += &format!("By hand, today's words are:\n  {theirs}");
    output::error(&text);
    Some(Exit::Usage)
}

fn instead(words: &[&str]) -> Option<Instead> {
    // They end up in commands that somebody copies.
    let plain = |c: char| c.is_ascii_alphanumeric() || ":/._-+[]%~@".contains(c);
    if words.iter().any(|word| word.is_empty() || !word.chars().all(plain)) {
        return None;
    }
    let typed = words.join(" ");
    let (off, words) = match words {
        [rest @ .., "off"] => (true, rest),
        all => (false, all),
    };
    let (first, rest) = words.split_first()?;
    if first.starts_with('/') {
        // The oldest: always HTTPS on 443.
        let (kind, source) = rest.split_first()?;
        let known = ["proxy", "path", "text"].contains(kind);
        return known.then(|| web(typed, "https", 443, first, source.first().copied(), off));
    }
    let (scheme, port) = match first.split_once(':') {
        Some((scheme, port)) => (scheme, Some(port.parse().ok().filter(|port: &u16| *port != 0)?)),
        None => (*first, None),
    };
    match scheme {
        "https" | "http" => {
            let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
            let (mount, source) = match rest {
                [mount, source @ ..] if mount.starts_with('/') => (*mount, source),
                source => ("/", source),
            };
            // One word alone might be a mistyped command of ours.
            (source.len() <= 1 && (off || !source.is_empty()))
                .then(|| web(typed, scheme, port, mount, source.first().copied(), off))
        }
        "tcp" | "tls-terminated-tcp" => {
            let listener = format!("--{scheme}={}", port?);
            let theirs = match (off, rest) {
                (true, _) => format!("tailscale serve {listener} off"),
                (false, [target]) => format!("tailscale serve --bg {listener} {target}"),
                _ => return None,
            };
            Some(Instead { typed, ours: Vec::new(), theirs })
        }
        _ => None,
    }
}

fn web(typed: String, scheme: &str, port: u16, mount: &str, source: Option<&str>, off: bool) -> Instead {
    let listener = format!("--{scheme}={port}");
    let (mut ours, theirs);
    if off {
        ours = vec!["openclaw config set gateway.tailscale.mode off".to_owned()];
        // Without its path, `off` takes every mount on the port.
        theirs = format!("tailscale serve {listener} --set-path={mount} off");
    } else {
        ours = Vec::new();
        let set = |key: &str, value: &str| format!("openclaw config set gateway.tailscale.{key} {value}");
        if scheme != "https" {
            ours.push(set("serve.scheme", scheme));
        }
        let usual = if scheme == "https" { 443 } else { 80 };
        if port != usual {
            ours.push(set("serve.port", &port.to_string()));
        }
        if mount != "/" {
            ours.push(set("serve.path", mount));
        }
        ours.push(set("mode", "serve"));
        ours.push("openclaw gateway".to_owned());
        let path = if mount == "/" { String::new() } else { format!(" --set-path={mount}") };
        theirs =
            format!("tailscale serve --bg {listener}{path} {}", source.unwrap_or("http://127.0.0.1:18789"));
    }
    Instead { typed, ours, theirs }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Option<(String, String)> {
        let words: Vec<&str> = words.split(' ').collect();
        instead(&words).map(|instead| (instead.theirs, instead.ours.join("; ")))
    }

    #[test]
    fn each_older_grammar_has_its_words_of_today_and_ours() {
        let serve = "openclaw config set gateway.tailscale.mode serve; openclaw gateway";
        let off = "openclaw config set gateway.tailscale.mode off";
        for (old, theirs, ours) in [
            (
                "https:443 http://127.0.0.1:18789",
                "tailscale serve --bg --https=443 http://127.0.0.1:18789",
                serve.to_owned(),
            ),
            (
                "https / http://127.0.0.1:18789",
                "tailscale serve --bg --https=443 http://127.0.0.1:18789",
                serve.to_owned(),
            ),
            (
                "https:8443 /x http://127.0.0.1:18789",
                "tailscale serve --bg --https=8443 --set-path=/x http://127.0.0.1:18789",
                format!(
                    "openclaw config set gateway.tailscale.serve.port 8443; openclaw config set gateway.tailscale.serve.path /x; {serve}"
                ),
            ),
            (
                "http / 18789",
                "tailscale serve --bg --http=80 18789",
                format!("openclaw config set gateway.tailscale.serve.scheme http; {serve}"),
            ),
            ("/ proxy 3000", "tailscale serve --bg --https=443 3000", serve.to_owned()),
            (
                "https:443 / http://127.0.0.1:18789 off",
                "tailscale serve --https=443 --set-path=/ off",
                off.to_owned(),
            ),
            ("https:443 off", "tailscale serve --https=443 --set-path=/ off", off.to_owned()),
            (
                "tcp:2222 tcp://localhost:22",
                "tailscale serve --bg --tcp=2222 tcp://localhost:22",
                String::new(),
            ),
            ("tls-terminated-tcp:443 off", "tailscale serve --tls-terminated-tcp=443 off", String::new()),
        ] {
            assert_eq!(of(old), Some((theirs.to_owned(), ours)), "{old}");
        }
    }

    #[test]
    fn other_words_are_not_taken_for_them() {
        for other in [
            "stauts",
            "https",
            "https:443",
            "https:0 / x",
            "https:99999 / x",
            "https / a b",
            "/ x y",
            "18789",
            "off",
            "tcp tcp://localhost:22",
            "https:443 http://x/$(reboot)",
            "https:443 http://x;y",
            "https:443 `x`",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(instead(&[]), None);
        assert_eq!(instead(&["https:443", "a b"]), None);
    }
}
