//! Where token and password come from, and what is no secret.

use std::path::PathBuf;

use super::build::Build;
use super::error::Problem;
use super::provenance::Provenance;
use super::{raw, schema};
use crate::domain::Secret;

/// What documentation prints in a secret's place (gateway spec 1.2, threat
/// rule 57). Compared without case.
const PLACEHOLDERS: &[&str] = &[
    "undefined",
    "null",
    "change-me-to-a-long-random-token",
    "change-me-now",
    "change-me-to-a-strong-password",
    "change-me",
    "changeme",
    "your-token-here",
    "your-password-here",
    "...",
];

/// Under this length a secret outside loopback is warned about.
const SHORT: usize = 24;

/// Which of the two secrets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    Token,
    Password,
}

impl Which {
    fn key(self) -> &'static str {
        match self {
            Self::Token => "gateway.auth.token",
            Self::Password => "gateway.auth.password",
        }
    }

    fn file_key(self) -> &'static str {
        match self {
            Self::Token => "gateway.auth.tokenFile",
            Self::Password => "gateway.auth.passwordFile",
        }
    }

    fn variables(self) -> (&'static str, &'static str) {
        match self {
            Self::Token => ("OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_TOKEN_FILE"),
            Self::Password => ("OPENCLAW_GATEWAY_PASSWORD", "OPENCLAW_GATEWAY_PASSWORD_FILE"),
        }
    }
}

/// The secret in force: flag, then variable, then file (design D1). Two at one
/// level, a value and a file, are refused: nobody could say which counts.
pub(crate) fn secret(build: &mut Build<'_>, raw: &raw::Auth, which: Which) -> Option<Secret> {
    let (value, file, names) = match which {
        Which::Token => (&build.flags.token, &build.flags.token_file, ("--token", "--token-file")),
        Which::Password => {
            (&build.flags.password, &build.flags.password_file, ("--password", "--password-file"))
        }
    };
    if let Some(secret) = value.clone() {
        build.provenance.record(which.key(), Provenance::Flag(names.0));
        return Some(secret);
    }
    if let Some(path) = file.clone() {
        build.provenance.record(which.key(), Provenance::Flag(names.1));
        let path = build.given_path(&path);
        return build.secret_file(which.key(), &path);
    }
    let from_file = of_file(build, raw, which);
    let from_env = of_variables(build, which);
    if let (Some(env), Some(file)) = (&from_env, &from_file)
        && env.expose() != file.expose()
    {
        let from = build.provenance.of(which.key()).clone();
        build.warn(format!("{} is set in the file and by {from}, differently: {from} counts", which.key()));
    }
    from_env.or(from_file)
}

fn of_variables(build: &mut Build<'_>, which: Which) -> Option<Secret> {
    let (value_name, file_name) = which.variables();
    let value = build.document.env.get(value_name).and_then(Secret::new);
    let path = build.document.env.get_path(file_name).map(PathBuf::from);
    match (value, path) {
        (Some(_), Some(_)) => {
            let what = format!("{value_name} and {file_name} are both set: leave one out");
            build.refuse(Problem::new(which.key(), what).fix(format!("unset {file_name}")).at_start());
            None
        }
        (Some(secret), None) => {
            build.provenance.record(which.key(), Provenance::Env(value_name.into()));
            Some(secret)
        }
        (None, Some(path)) => {
            build.provenance.record(which.key(), Provenance::Env(file_name.into()));
            let path = build.given_path(&path);
            build.secret_file(which.key(), &path)
        }
        (None, None) => None,
    }
}

fn of_file(build: &mut Build<'_>, raw: &raw::Auth, which: Which) -> Option<Secret> {
    let (value, file) = match which {
        Which::Token => (&raw.token, &raw.token_file),
        Which::Password => (&raw.password, &raw.password_file),
    };
    match (value, file) {
        (Some(_), Some(_)) => {
            let what = format!("stands next to {}: leave one out", which.key());
            build.refuse(
                Problem::new(which.file_key(), what)
                    .fix(format!("openclaw config unset {}", which.file_key())),
            );
            None
        }
        (Some(text), None) => {
            let secret = Secret::new(text);
            if secret.is_none() {
                let key = which.key();
                build.refuse(Problem::new(key, "is blank").fix(format!("openclaw config unset {key}")));
            }
            secret
        }
        (None, Some(text)) => {
            let path = build.path(text);
            let from = build.provenance.of(which.file_key()).clone();
            build.provenance.record(which.key(), from);
            build.secret_file(which.file_key(), &path)
        }
        (None, None) => None,
    }
}

/// Refuses a placeholder, and warns of what can be guessed or was shown
/// (threat rule 57 as softened by the design).
pub(crate) fn weigh(build: &mut Build<'_>, which: Which, secret: Option<&Secret>, exposed: bool) {
    let key = which.key();
    let Some(secret) = secret else { return };
    if is_placeholder(secret.expose()) {
        let from = build.from(key);
        let fix = match which {
            Which::Token => super::auth::SET_TOKEN.to_owned(),
            Which::Password => format!("openclaw config set {key} \"$(openssl rand -hex 16)\""),
        };
        let what = format!("is a placeholder that everybody knows{from}, not a secret of yours");
        build.refuse(Problem::new(key, what).fix(fix));
        return;
    }
    let length = secret.expose().chars().count();
    if exposed && length < SHORT {
        build.warn(format!(
            "{key} has {length} characters, and others than this machine can try it: use {SHORT} or more (openssl rand -hex 32)"
        ));
    }
    if let Provenance::Flag(name @ ("--token" | "--password")) = build.provenance.of(key) {
        build.warn(format!("{name} shows the secret to every process of this machine: prefer {name}-file"));
    }
}

/// Whether a text stands for a secret instead of being one.
pub(crate) fn is_placeholder(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut chars = text.chars();
    let first = chars.next();
    PLACEHOLDERS.contains(&lower.as_str())
        || text == schema::REDACTED
        || lower == "[redacted]"
        || lower.starts_with("<") && lower.ends_with('>')
        || chars.all(|c| Some(c) == first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_057_placeholders_are_no_secrets() {
        for text in [
            "change-me-now",
            "Change-Me-To-A-Long-Random-Token",
            "changeme",
            "undefined",
            "null",
            schema::REDACTED,
            "00000000000000000000000000000000",
            "<your token>",
            "x",
        ] {
            assert!(is_placeholder(text), "{text}");
        }
        for text in ["ab", "123456", "correct horse battery staple"] {
            assert!(!is_placeholder(text), "{text}");
        }
    }
}
