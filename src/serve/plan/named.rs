//! Sites, mounts and targets in words.

use openclaw_tailscale::WebHandler;

/// The port of `name:port`.
pub(in crate::serve) fn port_of(host_port: &str) -> Option<u16> {
    host_port.rsplit_once(':')?.1.parse().ok()
}

/// `/a` and `/a/` are one mount.
pub(super) fn trimmed(mount: &str) -> &str {
    mount.trim_end_matches('/')
}

pub(super) fn describe(handler: &WebHandler) -> String {
    let some = |text: &Option<String>, what: &str| text.as_ref().map(|text| format!("{what}{}", place(text)));
    some(&handler.proxy, "")
        .or_else(|| some(&handler.path, "the files of "))
        .or_else(|| handler.text.as_ref().map(|_| "a fixed text".to_owned()))
        .or_else(|| some(&handler.redirect, "a redirect to "))
        .unwrap_or_else(|| "something unknown".to_owned())
}

/// Where somebody else's route leads, for the log and for admins: the place alone. Its
/// user, its path and its query may be their secret.
pub(crate) fn place(target: &str) -> String {
    const SHOWN: usize = 120;
    let shown = match target.split_once("://") {
        Some((scheme, rest)) => {
            let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
            let host = authority.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}")
        }
        None => target.to_owned(),
    };
    shown.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(SHOWN).collect()
}
