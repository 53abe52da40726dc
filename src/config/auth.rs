//! `gateway.auth`: which mode, which secrets, and which combinations are none.
//!
//! Rules: gateway spec 2 (refusals 2 to 9) and 3.1 as amended by rulings 1.10,
//! 1.14 and 2.

use std::time::Duration;

use ipnetwork::IpNetwork;

use super::build::{Build, millis};
use super::error::Problem;
use super::listen::Listen;
use super::provenance::Provenance;
use super::secrets::{self, Which};
use super::{Auth, AuthMode, Bind, RateLimit, TailscaleConfig, TailscaleMode, raw, trusted_proxy};
use crate::domain::Secret;

const MODE: &str = "gateway.auth.mode";
const ALLOW: &str = "gateway.auth.allowTailscale";

/// The command that sets a token.
pub(crate) const SET_TOKEN: &str = "openclaw config set gateway.auth.token \"$(openssl rand -hex 32)\"";
const SET_PASSWORD: &str = "openclaw config set gateway.auth.password '...'";
const SET_MODE: &str = "openclaw config set gateway.auth.mode token";

/// What came of `gateway.auth`.
pub(crate) struct Settled {
    pub(crate) auth: Auth,
    pub(crate) needs_token: bool,
}

/// Settles mode and secrets.
pub(crate) fn auth(
    build: &mut Build<'_>,
    raw: &raw::Auth,
    proxies: &[IpNetwork],
    listen: &Listen,
    tailscale: &TailscaleConfig,
) -> Settled {
    let token = secrets::secret(build, raw, Which::Token);
    let password = secrets::secret(build, raw, Which::Password);
    let mode = mode(build, raw, token.is_some(), password.is_some());
    let exposed = listen.exposed || tailscale.mode != TailscaleMode::Off;
    secrets::weigh(build, Which::Token, token.as_ref(), exposed);
    secrets::weigh(build, Which::Password, password.as_ref(), exposed);
    let allow_tailscale = allow_tailscale(build, raw, mode, listen, tailscale);
    let active = match mode {
        AuthMode::Token => token.is_some(),
        AuthMode::Password => password.is_some(),
        AuthMode::None | AuthMode::TrustedProxy => false,
    };
    refuse_none(build, mode, listen, tailscale);
    let mut needs_token = false;
    if !active {
        needs_token = without_secret(build, mode, allow_tailscale, listen, tailscale);
    }
    let proxy = trusted_proxy::trusted_proxy(
        build,
        raw.trusted_proxy.as_ref(),
        proxies,
        mode,
        token.is_some(),
        tailscale.mode,
    );
    // Only the secret of the mode in force opens anything; in mode trusted-proxy
    // that is the password, and only for local requests (gateway spec 3.3).
    let keep = |secret: Option<Secret>, modes: &[AuthMode]| secret.filter(|_| modes.contains(&mode));
    Settled {
        auth: Auth {
            mode,
            token: keep(token, &[AuthMode::Token]),
            password: keep(password, &[AuthMode::Password, AuthMode::TrustedProxy]),
            allow_tailscale,
            rate_limit: rate_limit(build, &raw.rate_limit, exposed),
            trusted_proxy: proxy,
        },
        needs_token,
    }
}

/// Flag, then file, then whichever secret there is, then token.
fn mode(build: &mut Build<'_>, raw: &raw::Auth, has_token: bool, has_password: bool) -> AuthMode {
    if let Some(mode) = build.flags.auth {
        build.provenance.record(MODE, Provenance::Flag("--auth"));
        return mode;
    }
    if let Some(text) = &raw.mode {
        return build.parse(MODE, text).unwrap_or(AuthMode::Token);
    }
    if has_token && has_password {
        let what = format!(
            "is not set, and there is a token{} and a password{}: say which one counts",
            build.from("gateway.auth.token"),
            build.from("gateway.auth.password"),
        );
        build.refuse(Problem::new(MODE, what).fix(SET_MODE).at_start());
    }
    if has_password { AuthMode::Password } else { AuthMode::Token }
}

/// Whether tailnet identity signs in (rulings 1.14). Only modes token and
/// password know it (gateway spec 3.5).
fn allow_tailscale(
    build: &mut Build<'_>,
    raw: &raw::Auth,
    mode: AuthMode,
    listen: &Listen,
    tailscale: &TailscaleConfig,
) -> bool {
    if !matches!(mode, AuthMode::Token | AuthMode::Password) {
        if raw.allow_tailscale == Some(true) {
            build.warn(format!("{ALLOW} has no effect: {}", build.says(MODE, mode.as_str())));
        }
        return false;
    }
    raw.allow_tailscale.unwrap_or(listen.on_tailnet || tailscale.mode != TailscaleMode::Off)
}

/// Mode none is for this machine alone (threat rule 58, refusal 9).
fn refuse_none(build: &mut Build<'_>, mode: AuthMode, listen: &Listen, tailscale: &TailscaleConfig) {
    if mode != AuthMode::None {
        return;
    }
    let none = build.is(MODE, "none");
    if listen.exposed {
        let bind = build.says("gateway.bind", listen.word.as_str());
        let what = format!(
            "{none}, which lets everybody in, and {bind}, which is open to other machines. Mode none is for bind loopback without Serve or Funnel"
        );
        build.refuse(Problem::new(MODE, what).fix(SET_MODE));
    }
    if tailscale.mode != TailscaleMode::Off {
        let serve = build.says("gateway.tailscale.mode", tailscale.mode.as_str());
        let what = format!(
            "{none}, which lets everybody in, and {serve}, which brings in others than this machine. Mode none is for bind loopback without Serve or Funnel"
        );
        build.refuse(Problem::new(MODE, what).fix(SET_MODE));
    }
    build.warn("gateway.auth.mode is none: every process of this machine is let in as admin");
}

/// No secret for the mode in force: refused, or a token is generated. Returns
/// whether one is.
fn without_secret(
    build: &mut Build<'_>,
    mode: AuthMode,
    allow_tailscale: bool,
    listen: &Listen,
    tailscale: &TailscaleConfig,
) -> bool {
    let refused = match mode {
        AuthMode::Password => build.is_refused(&["gateway.auth.password", "gateway.auth.passwordFile"]),
        _ => build.is_refused(&["gateway.auth.token", "gateway.auth.tokenFile"]),
    };
    if refused {
        return false;
    }
    let funnel = tailscale.mode == TailscaleMode::Funnel;
    if funnel && mode != AuthMode::None {
        // Threat rule 60. A token made anew at every start is no secret that
        // anybody outside could have been given. Mode none is refused already.
        let says = build.is("gateway.tailscale.mode", "funnel");
        let what = format!(
            "{says}, which lets the public internet in, and there is no gateway.auth.token or gateway.auth.password for mode {}",
            mode.as_str()
        );
        let fix = if mode == AuthMode::Password { SET_PASSWORD } else { SET_TOKEN };
        build.refuse(Problem::new("gateway.tailscale.mode", what).fix(fix));
        return false;
    }
    match mode {
        AuthMode::Password => {
            let what = format!(
                "is missing, and {}. Set it, OPENCLAW_GATEWAY_PASSWORD or --password-file",
                build.says(MODE, "password")
            );
            build.refuse(Problem::new("gateway.auth.password", what).fix(SET_PASSWORD).at_start());
            false
        }
        AuthMode::Token => {
            let identity_suffices = listen.bind == Bind::Tailnet && allow_tailscale;
            if listen.exposed && !identity_suffices {
                let bind = build.says("gateway.bind", listen.word.as_str());
                let what = format!(
                    "is missing, and {bind}, which is open to other machines. Set it, OPENCLAW_GATEWAY_TOKEN or --token-file, or gateway.auth.mode password with gateway.auth.password, or trusted-proxy, or bind loopback"
                );
                build.refuse(Problem::new("gateway.auth.token", what).fix(SET_TOKEN).at_start());
            }
            !listen.exposed || identity_suffices
        }
        AuthMode::None | AuthMode::TrustedProxy => false,
    }
}

fn rate_limit(build: &mut Build<'_>, raw: &raw::RateLimit, exposed: bool) -> RateLimit {
    let default = RateLimit::default();
    let limit = RateLimit {
        max_attempts: raw.max_attempts.unwrap_or(default.max_attempts),
        window: millis(raw.window_ms, default.window),
        lockout: millis(raw.lockout_ms, default.lockout),
        exempt_loopback: raw.exempt_loopback.unwrap_or(default.exempt_loopback),
    };
    if exposed && (limit.max_attempts > 1000 || limit.lockout < Duration::from_secs(1)) {
        build.warn("gateway.auth.rateLimit is so wide that it hardly slows anybody who guesses");
    }
    limit
}
