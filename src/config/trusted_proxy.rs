//! `gateway.trustedProxies` and mode trusted-proxy (gateway spec 2, refusal 7,
//! and rulings 1.10).

use http::HeaderName;
use ipnetwork::{IpNetwork, Ipv4Network};

use super::build::Build;
use super::error::Problem;
use super::{AuthMode, TailscaleMode, TrustedProxy, raw};

const PROXIES: &str = "gateway.trustedProxies";
const USER_HEADER: &str = "gateway.auth.trustedProxy.userHeader";
const ALLOW_USERS: &str = "gateway.auth.trustedProxy.allowUsers";

/// Reads `gateway.trustedProxies`. A network that is none is refused, where the
/// spec would have it match nobody: an operator should hear of it.
pub(crate) fn proxies(build: &mut Build<'_>, raw: &[String]) -> Vec<IpNetwork> {
    let mut networks = Vec::new();
    for (i, text) in raw.iter().enumerate() {
        if text.trim().is_empty() {
            continue;
        }
        let key = format!("{PROXIES}[{i}]");
        match network(text.trim()) {
            Some(network) if network.prefix() == 0 => {
                let what = format!("{text:?} is every address there is: name the proxies");
                build.refuse(Problem::new(key, what));
            }
            Some(network) => networks.push(network),
            None => {
                let what =
                    format!("{text:?} is no address or network such as 10.0.0.7, 10.0.0.0/8 or fd00::/8");
                build.refuse(Problem::new(key, what));
            }
        }
    }
    networks
}

/// An address or CIDR. A mapped range is the IPv4 range it stands for.
fn network(text: &str) -> Option<IpNetwork> {
    let network: IpNetwork = text.parse().ok()?;
    let IpNetwork::V6(v6) = network else { return Some(network) };
    match v6.ip().to_ipv4_mapped() {
        Some(v4) => Ipv4Network::new(v4, v6.prefix().checked_sub(96)?).ok().map(IpNetwork::V4),
        None => Some(network),
    }
}

/// Whether a network reaches into loopback.
fn holds_loopback(network: &IpNetwork) -> bool {
    let v4_loopback = Ipv4Network::new([127, 0, 0, 0].into(), 8).ok();
    match network {
        IpNetwork::V4(v4) => v4_loopback.is_some_and(|loopback| v4.overlaps(loopback)),
        IpNetwork::V6(v6) => v6.contains(std::net::Ipv6Addr::LOCALHOST),
    }
}

/// Settles mode trusted-proxy. Without it there is `None`, and only what holds
/// in every mode is checked.
pub(crate) fn trusted_proxy(
    build: &mut Build<'_>,
    raw: Option<&raw::TrustedProxy>,
    networks: &[IpNetwork],
    mode: AuthMode,
    has_token: bool,
    tailscale: TailscaleMode,
) -> Option<TrustedProxy> {
    let loopback = networks.iter().any(holds_loopback);
    if loopback && tailscale != TailscaleMode::Off {
        // tailscaled passes X-Forwarded-User on and connects from loopback.
        let says = build.says("gateway.tailscale.mode", tailscale.as_str());
        let what = format!(
            "names loopback, and {says}: what Tailscale brings in comes from loopback too and could claim to be anybody"
        );
        build.refuse(Problem::new(PROXIES, what).fix("openclaw config set gateway.tailscale.mode off"));
    }
    if mode != AuthMode::TrustedProxy {
        return None;
    }
    let says = build.says("gateway.auth.mode", "trusted-proxy");
    if has_token {
        let from = build.from("gateway.auth.token");
        let what = format!("is set{from}, and {says}: a token has no place there");
        build.refuse(
            Problem::new("gateway.auth.token", what)
                .fix("openclaw config unset gateway.auth.token")
                .at_start(),
        );
    }
    if networks.is_empty() {
        let what = format!("is empty, and {says}: nobody could vouch for anybody");
        build.refuse(
            Problem::new(PROXIES, what)
                .fix("openclaw config set gateway.trustedProxies '[\"10.0.0.7\"]'")
                .at_start(),
        );
    }
    let Some(settings) = raw else {
        let what = format!("is missing, and {says}: it says userHeader and allowUsers");
        build.refuse(
            Problem::new("gateway.auth.trustedProxy", what)
                .fix("openclaw config set gateway.auth.trustedProxy '{userHeader: \"x-forwarded-user\", allowUsers: [\"you\"]}'")
                .at_start(),
        );
        return None;
    };
    if loopback && settings.allow_loopback != Some(false) {
        build.warn(
            "gateway.trustedProxies names loopback: any process of this machine can claim to be any user",
        );
    }
    let user_header = user_header(build, settings.user_header.as_deref());
    let allow_users = allow_users(build, &settings.allow_users);
    let mut required_headers = Vec::new();
    for (i, name) in settings.required_headers.iter().enumerate() {
        required_headers.extend(
            build.parse::<HeaderName>(&format!("gateway.auth.trustedProxy.requiredHeaders[{i}]"), name),
        );
    }
    Some(TrustedProxy {
        user_header: user_header?,
        required_headers,
        allow_users,
        allow_loopback: settings.allow_loopback,
    })
}

fn user_header(build: &mut Build<'_>, text: Option<&str>) -> Option<HeaderName> {
    let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
        let what = "is missing or blank: the header in which the proxy names the user";
        build.refuse(
            Problem::new(USER_HEADER, what)
                .fix(format!("openclaw config set {USER_HEADER} x-forwarded-user"))
                .at_start(),
        );
        return None;
    };
    let name: HeaderName = build.parse(USER_HEADER, text)?;
    let taken =
        ["authorization", "cookie", "host", "connection", "content-length", "transfer-encoding", "upgrade"];
    if name.as_str().starts_with("tailscale-") || taken.contains(&name.as_str()) {
        let what = format!("{text:?} means something else already; use x-forwarded-user or remote-user");
        build.refuse(
            Problem::new(USER_HEADER, what)
                .fix(format!("openclaw config set {USER_HEADER} x-forwarded-user")),
        );
        return None;
    }
    Some(name)
}

/// Who is let in. Empty is nobody, so it is refused (rulings 1.10, threat rule
/// 59): upstream takes it for everybody.
fn allow_users(build: &mut Build<'_>, raw: &[String]) -> Vec<String> {
    let users: Vec<String> =
        raw.iter().map(|user| user.trim().to_owned()).filter(|user| !user.is_empty()).collect();
    if users.is_empty() {
        let what = "is absent or empty, which is nobody: list the users that the proxy may name";
        build.refuse(
            Problem::new(ALLOW_USERS, what)
                .fix(format!("openclaw config set {ALLOW_USERS} '[\"you\"]'"))
                .at_start(),
        );
    }
    if users.iter().any(|user| user == "*") {
        let what = "\"*\" is a user of that name, not everybody: list the users";
        build.refuse(Problem::new(ALLOW_USERS, what));
    }
    users
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_103_networks_are_parsed_never_matched_as_text() {
        for text in ["127.evil.com", "10.0.0.0/33", "10.0.0.0/-1", "0x7f.1", "127.1", "::ffff:0:0/90", "x"] {
            assert_eq!(network(text), None, "{text}");
        }
        assert_eq!(network("::ffff:10.0.0.0/104"), network("10.0.0.0/8"));
        assert_eq!(network("::ffff:1.2.3.4"), network("1.2.3.4"));
        assert!(!crate::domain::addr::is_in(
            &[network("::ffff:10.0.0.0/104").unwrap()],
            "fd00::1".parse().unwrap()
        ));
    }

    #[test]
    fn loopback_is_found_inside_wider_networks() {
        for text in ["127.0.0.1", "127.0.0.0/8", "::1", "::/64", "126.0.0.0/7", "::ffff:127.0.0.1"] {
            assert!(holds_loopback(&network(text).unwrap()), "{text}");
        }
        for text in ["10.0.0.1", "128.0.0.0/1", "fd00::/8"] {
            assert!(!holds_loopback(&network(text).unwrap()), "{text}");
        }
    }
}
