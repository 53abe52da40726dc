//! `tailscale debug prefs`.

use serde::Deserialize;

use crate::{Error, json};

/// The preferences that bear on trust. Absent ones are `None`, which is "unknown",
/// not "off".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefs {
    /// Whether Tailscale SSH is on. Its forwards are dialled by tailscaled itself, so
    /// with it on a connection from tailscaled proves nothing.
    pub run_ssh: Option<bool>,
    /// Whether incoming connections are blocked.
    pub shields_up: Option<bool>,
    /// Whether Tailscale is meant to be up (`tailscale down` clears it).
    pub want_running: Option<bool>,
    /// Whether the node is logged out.
    pub logged_out: Option<bool>,
    /// The local user who may change settings without root.
    pub operator_user: Option<String>,
    /// The control server.
    pub control_url: Option<String>,
    /// The routes this node offers to the tailnet, as printed.
    pub advertise_routes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Wire {
    #[serde(rename = "RunSSH")]
    run_ssh: Option<bool>,
    shields_up: Option<bool>,
    want_running: Option<bool>,
    logged_out: Option<bool>,
    operator_user: Option<String>,
    #[serde(rename = "ControlURL")]
    control_url: Option<String>,
    advertise_routes: Option<Vec<String>>,
}

/// Parses the output of `tailscale debug prefs`.
///
/// # Errors
/// When it is not one JSON object, or a known field has the wrong type.
pub fn parse_prefs(bytes: &[u8]) -> Result<Prefs, Error> {
    let wire: Wire = json::decode("debug prefs", bytes)?;
    let filled = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Prefs {
        run_ssh: wire.run_ssh,
        shields_up: wire.shields_up,
        want_running: wire.want_running,
        logged_out: wire.logged_out,
        operator_user: filled(wire.operator_user),
        control_url: filled(wire.control_url),
        advertise_routes: wire.advertise_routes.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_type_is_refused_and_named() {
        let error = parse_prefs(br#"{"RunSSH": "false"}"#).unwrap_err();
        assert!(matches!(&error, Error::WrongShape { field, .. } if field == "RunSSH"), "{error}");
        assert!(parse_prefs(b"null").is_err());
    }

    #[test]
    fn what_is_not_said_is_unknown() {
        assert_eq!(parse_prefs(b"{}").unwrap(), Prefs::default());
        let prefs = parse_prefs(br#"{"RunSSH": null, "OperatorUser": ""}"#).unwrap();
        assert_eq!(prefs, Prefs::default());
    }

    #[test]
    fn known_fields_are_read() {
        let prefs = parse_prefs(
            br#"{"ControlURL": "https://controlplane.tailscale.com", "RouteAll": true,
                "RunSSH": true, "ShieldsUp": false, "OperatorUser": "alice", "WantRunning": true,
                "AdvertiseRoutes": ["10.0.0.0/8"], "AdvertiseServices": null, "Config": {"UserProfile": {}}}"#,
        )
        .unwrap();
        assert_eq!(prefs.run_ssh, Some(true));
        assert_eq!(prefs.shields_up, Some(false));
        assert_eq!(prefs.operator_user.as_deref(), Some("alice"));
        assert_eq!(prefs.advertise_routes, ["10.0.0.0/8"]);
    }
}
