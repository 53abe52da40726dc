//! `Tailscale::whois_scoped`: capabilities at one destination.

use std::net::IpAddr;

use openclaw_tailscale::{ClientMode, Error, LocateOptions, Tailscale, Whois, WhoisScope};

use crate::fake::Fake;
use crate::running::Running;

fn ask(fake: &Fake, client: ClientMode, scope: WhoisScope<'_>) -> Result<Whois, Error> {
    let options = LocateOptions {
        bin: Some(fake.dir().join("tailscale")),
        socket: Some(fake.dir().join("tailscaled.sock")),
        client,
        ..LocateOptions::default()
    };
    let tailscale = Tailscale::locate(options).unwrap().tailscale;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(tailscale.whois_scoped("127.100.0.3".parse().unwrap(), scope))
}

const ADDRESS: &str = "fd7a:115c:a1e0::1";

fn playing() -> Fake {
    let fake = Fake::with("user");
    let at = |role: &str| format!(r#"{{"openclaw.ai/cap/gateway": [{{role: "{role}"}}]}}"#);
    fake.set(&[
        &format!("peer.bobpc.caps={}", at("admin")),
        &format!(r#"peer.bobpc.capsAt={{"svc:gw": {}, "{ADDRESS}": {}}}"#, at("service"), at("six")),
    ]);
    fake
}

#[test]
fn threat_027_a_scope_that_is_not_heeded_is_no_answer() {
    let fake = playing();
    let scope = WhoisScope::Destination(ADDRESS.parse().unwrap());
    let code = |client| ask(&fake, client, scope).unwrap_err().code();
    assert_eq!(code(ClientMode::Cli), "tailscale_localapi_only");
    assert!(fake.calls().is_empty());
    let _daemon = Running::daemon(&fake, &[]);
    fake.set(&["version.daemon=1.98.3"]);
    assert_eq!(code(ClientMode::LocalApi), "tailscale_too_old");
    fake.set(&["version.daemon=1.102.3", "peer.bobpc=null"]);
    assert_eq!(code(ClientMode::Auto), "tailscale_peer_not_found");
}

#[test]
fn threat_027_capabilities_are_those_at_the_destination() {
    let fake = playing();
    let _daemon = Running::daemon(&fake, &[]);
    let role = |scope| {
        let whois = ask(&fake, ClientMode::Auto, scope).unwrap();
        let text = format!("{:?}", whois.cap_map);
        ["admin", "service", "six"].into_iter().find(|role| text.contains(role))
    };
    let (service, other) = ("svc:gw".parse().unwrap(), "svc:other".parse().unwrap());
    assert_eq!(role(WhoisScope::Service(&service)), Some("service"));
    assert_eq!(role(WhoisScope::Service(&other)), None);
    assert_eq!(role(WhoisScope::Destination(ADDRESS.parse().unwrap())), Some("six"));
    assert_eq!(role(WhoisScope::Destination("127.100.0.9".parse::<IpAddr>().unwrap())), None);
}
