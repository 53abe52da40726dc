//! The node's own certificate: when to ask for one, and the file it is kept in.
//!
//! One file holds key and chain, so that it is always one pair. It is there for a
//! start at which Tailscale gives none.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use openclaw_tailscale::{CertPair, NodeName};
use zeroize::Zeroizing;

use super::private_file;
use crate::domain::Running;
use crate::ingress::{CertFacts, Tls, TlsError, TlsFiles};
use crate::readiness::Fault;

/// Where the node's certificate is kept.
pub fn node_file(state_dir: &Path) -> PathBuf {
    state_dir.join("tls/tailscale.pem")
}

/// A certificate of the node's, and the name it is for.
#[derive(Clone)]
pub struct NodeCertificate {
    /// The name.
    pub name: NodeName,
    /// What handshakes show. The same one for as long as the gateway runs: what it
    /// holds is replaced.
    pub tls: Tls,
}

/// Both parts from one file.
pub(super) fn files(path: &Path) -> TlsFiles {
    TlsFiles { cert: path.to_owned(), key: path.to_owned() }
}

/// Key and chain as the file holds them.
pub(super) fn bundle(pair: &CertPair) -> Zeroizing<String> {
    let mut text =
        Zeroizing::new(String::with_capacity(pair.key_pem().len() + pair.certificates_pem().len() + 1));
    text.push_str(pair.key_pem());
    text.push_str(pair.certificates_pem());
    text
}

/// Puts it on disk, whole, for us alone.
pub(super) fn keep(path: &Path, bundle: &str) -> std::io::Result<()> {
    private_file::replace(path, bundle.as_bytes())
}

/// What was kept; `None` where nothing was.
pub(super) fn kept(path: &Path) -> Result<Option<Tls>, TlsError> {
    if path.exists() { Tls::load(files(path)).map(Some) } else { Ok(None) }
}

/// What to do next about the node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing until something changes: Tailscale does not run, which others say.
    Nothing,
    /// Nothing until something changes, and this is why.
    Fault(Fault),
    /// Nothing until then.
    Wait(SystemTime),
    /// Ask for this name. A duration: the one we have is to be replaced by one that is
    /// valid for longer than that.
    Ask(NodeName, Option<Duration>),
}

/// Decides it. `have` is the certificate in hand with its name, `retry` the earliest
/// moment of another attempt for a name that failed.
pub(super) fn next(
    running: Option<&Running>,
    have: Option<(&NodeName, &CertFacts)>,
    retry: Option<(&NodeName, SystemTime)>,
    now: SystemTime,
) -> Next {
    let Some(running) = running else { return Next::Nothing };
    let fault =
        |detail: &str, fix: &str| Next::Fault(Fault { detail: detail.to_owned(), fix: Some(fix.to_owned()) });
    let Some(name) = &running.dns_name else {
        return fault(
            "this node has no name on the tailnet, so there is no certificate for it",
            "turn MagicDNS on: https://login.tailscale.com/admin/dns",
        );
    };
    if running.cert_domains.is_empty() {
        return fault(
            "this tailnet issues no HTTPS certificates",
            "enable HTTPS certificates in the admin console, https://login.tailscale.com/admin/dns; the names of \
             machines with a certificate become public, in certificate transparency logs",
        );
    }
    if !running.cert_domains.iter().any(|domain| domain.eq_ignore_ascii_case(name.as_str())) {
        let detail = format!("{name} is not among the names that Tailscale gives certificates for");
        return Next::Fault(Fault { detail, fix: Some("tailscale cert".into()) });
    }
    let current = have.filter(|(of, facts)| *of == name && facts.left(now).is_some()).map(|(_, facts)| facts);
    // A clock that was set back must not delay it for ever.
    let retry = retry.filter(|(of, at)| *of == name && *at > now && *at < now + super::keeper::LONGEST * 2);
    match (current, retry) {
        (Some(facts), _) if facts.renew_at() > now => Next::Wait(facts.renew_at()),
        (_, Some((_, at))) => Next::Wait(at),
        (Some(facts), None) => Next::Ask(name.clone(), facts.left(now)),
        (None, None) => Next::Ask(name.clone(), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tailnet::tests::running;

    const DAY: Duration = Duration::from_secs(86_400);

    fn facts(now: SystemTime, since: u32, left: u32) -> CertFacts {
        CertFacts {
            dns_names: Vec::new(),
            addresses: Vec::new(),
            not_before: now - DAY * since,
            not_after: now + DAY * left,
            fingerprint: [0; 32],
            key_pin: [0; 32],
        }
    }

    fn node() -> Running {
        Running { cert_domains: vec!["gw.tailnet-example.ts.net".into()], ..running() }
    }

    fn name(text: &str) -> NodeName {
        text.parse().unwrap()
    }

    #[test]
    fn nothing_is_asked_for_where_it_would_be_in_vain() {
        let now = SystemTime::now();
        assert_eq!(next(None, None, None, now), Next::Nothing);
        let fix_of = |running: &Running| match next(Some(running), None, None, now) {
            Next::Fault(fault) => fault.fix.unwrap(),
            other => panic!("{other:?}"),
        };
        let fix = fix_of(&Running { cert_domains: Vec::new(), ..node() });
        assert!(fix.contains("enable HTTPS certificates in the admin console"), "{fix}");
        assert!(fix.contains("certificate transparency"), "{fix}");
        fix_of(&Running { cert_domains: vec!["other.ts.net".into()], ..node() });
        fix_of(&Running { dns_name: None, ..node() });
    }

    #[test]
    fn it_is_renewed_at_two_thirds_of_its_life_and_at_once_for_another_name() {
        let (now, node, gw) = (SystemTime::now(), node(), name("gw.tailnet-example.ts.net"));
        let ask = |have: Option<(&NodeName, &CertFacts)>| next(Some(&node), have, None, now);
        assert_eq!(ask(None), Next::Ask(gw.clone(), None));
        let young = facts(now, 59, 31);
        assert_eq!(ask(Some((&gw, &young))), Next::Wait(now + DAY));
        let old = facts(now, 61, 29);
        assert_eq!(ask(Some((&gw, &old))), Next::Ask(gw.clone(), Some(DAY * 29)));
        let over = facts(now, 91, 0);
        assert_eq!(ask(Some((&gw, &over))), Next::Ask(gw.clone(), None));
        assert_eq!(ask(Some((&name("old.tailnet-example.ts.net"), &young))), Next::Ask(gw.clone(), None));
    }

    #[test]
    fn a_failure_is_waited_out_but_not_for_another_name_nor_for_ever() {
        let (now, node, gw) = (SystemTime::now(), node(), name("gw.tailnet-example.ts.net"));
        let other = name("old.tailnet-example.ts.net");
        let soon = now + Duration::from_secs(5);
        assert_eq!(next(Some(&node), None, Some((&gw, soon)), now), Next::Wait(soon));
        for retry in [(&other, soon), (&gw, now), (&gw, now + DAY)] {
            assert_eq!(next(Some(&node), None, Some(retry), now), Next::Ask(gw.clone(), None));
        }
    }
}
