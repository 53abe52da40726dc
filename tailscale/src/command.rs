//! The calls that are made, as argument vectors and as LocalAPI requests. Pure:
//! nothing runs here.
//!
//! Every variable part is typed (an address, never text of a user), so nothing a
//! user sends can land where a flag is read. Flags come before positionals,
//! because `tailscale` stops reading flags at the first one.

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use crate::{NodeName, ServiceName};

/// One call of `tailscale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command<'a> {
    /// `status --json --peers=false`: the peer map may be megabytes.
    Status,
    /// `whois --json IP`: a bare address, since a port that misses costs the daemon
    /// 360 ms under its main lock.
    Whois(IpAddr),
    /// `whois --json --proto tcp IP:PORT`, for loopback in userspace mode.
    WhoisTcp(SocketAddr),
    /// `ip`
    Ip,
    /// `version --json`
    Version,
    /// `serve status --json`
    ServeStatus,
    /// `debug prefs`
    Prefs,
    /// `cert` for a name, valid for at least so long; both files to standard output.
    Cert(&'a NodeName, Option<Duration>),
}

/// For which destination the capabilities of a peer are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhoisScope<'a> {
    /// A Service that this node serves.
    Service(&'a ServiceName),
    /// One of this node's addresses, or of its Services': the one that was connected to.
    Destination(IpAddr),
}

impl WhoisScope<'_> {
    pub(crate) fn target(self, ip: IpAddr) -> String {
        let ip = ip.to_canonical();
        match self {
            Self::Service(name) => {
                format!("/localapi/v0/whois?addr={ip}&svc_name={}", name.as_str().replace(':', "%3A"))
            }
            Self::Destination(to) => format!("/localapi/v0/whois?addr={ip}&dst_ip={}", to.to_canonical()),
        }
    }
}

impl Command<'_> {
    /// The short name that errors and logs carry.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Whois(_) | Self::WhoisTcp(_) => "whois",
            Self::Ip => "ip",
            Self::Version => "version",
            Self::ServeStatus => "serve status",
            Self::Prefs => "debug prefs",
            Self::Cert(..) => "cert",
        }
    }

    /// The arguments, without the program. `--socket` has to precede the
    /// subcommand; one argument with `=`, so the path cannot be read as a flag.
    pub(crate) fn args(self, socket: Option<&Path>) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        if let Some(socket) = socket {
            args.push(socket_flag(socket));
        }
        let words: &[&str] = match self {
            Self::Status => &["status", "--json", "--peers=false"],
            Self::Whois(_) => &["whois", "--json"],
            Self::WhoisTcp(_) => &["whois", "--json", "--proto", "tcp"],
            Self::Ip => &["ip"],
            Self::Version => &["version", "--json"],
            Self::ServeStatus => &["serve", "status", "--json"],
            Self::Prefs => &["debug", "prefs"],
            Self::Cert(..) => &["cert", "--cert-file=-", "--key-file=-"],
        };
        args.extend(words.iter().map(OsString::from));
        match self {
            // Releases before 1.102 do not un-map `::ffff:a.b.c.d` themselves.
            Self::Whois(ip) => args.push(ip.to_canonical().to_string().into()),
            // Rebuilt from address and port: a scope id (`%eth0`) is left behind.
            Self::WhoisTcp(addr) => {
                args.push(SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string().into())
            }
            Self::Cert(domain, validity) => {
                if let Some(validity) = validity {
                    args.push(format!("--min-validity={}s", validity.as_secs()).into());
                }
                // A label may begin with a hyphen.
                args.extend(["--", domain.as_str()].map(OsString::from));
            }
            Self::Status | Self::Ip | Self::Version | Self::ServeStatus | Self::Prefs => {}
        }
        args
    }
}

/// Before the subcommand; one argument with `=`, so the path cannot be read as a flag.
pub(crate) fn socket_flag(socket: &Path) -> OsString {
    let mut flag = OsString::from("--socket=");
    flag.push(socket);
    flag
}

impl Command<'_> {
    /// The same question as the target of a GET, where the LocalAPI has it.
    pub(crate) fn target(self) -> Option<String> {
        let question = match self {
            Self::Status => "status?peers=false".to_owned(),
            Self::Whois(ip) => format!("whois?addr={}", ip.to_canonical()),
            Self::WhoisTcp(addr) => {
                let addr = SocketAddr::new(addr.ip().to_canonical(), addr.port()).to_string();
                // The only characters of an address that a query does not carry as they are.
                format!("whois?addr={}&proto=tcp", addr.replace('[', "%5B").replace(']', "%5D"))
            }
            Self::ServeStatus => "serve-config".to_owned(),
            Self::Prefs => "prefs".to_owned(),
            Self::Cert(domain, None) => format!("cert/{domain}?type=pair"),
            Self::Cert(domain, Some(validity)) => {
                format!("cert/{domain}?type=pair&min_validity={}s", validity.as_secs())
            }
            Self::Ip | Self::Version => return None,
        };
        Some(format!("/localapi/v0/{question}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(command: Command<'_>, socket: Option<&str>) -> String {
        let args = command.args(socket.map(Path::new));
        let args: Vec<_> = args.iter().map(|arg| arg.to_string_lossy()).collect();
        args.join(" ")
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_socket_path_shaped_like_a_flag_stays_one_value() {
        let args = Command::Ip.args(Some(Path::new("--json; rm -rf /")));
        assert_eq!(args, ["--socket=--json; rm -rf /", "ip"]);
    }

    #[test]
    fn every_call_has_its_exact_arguments() {
        assert_eq!(line(Command::Status, None), "status --json --peers=false");
        assert_eq!(line(Command::Ip, None), "ip");
        assert_eq!(line(Command::Version, None), "version --json");
        assert_eq!(line(Command::ServeStatus, None), "serve status --json");
        assert_eq!(line(Command::Prefs, None), "debug prefs");
        assert_eq!(
            line(Command::Whois(ip("100.64.0.2")), Some("/run/ts.sock")),
            "--socket=/run/ts.sock whois --json 100.64.0.2"
        );
    }

    #[test]
    fn every_question_to_the_socket_has_its_exact_target() {
        let target = |command: Command<'_>| command.target().unwrap();
        assert_eq!(target(Command::Status), "/localapi/v0/status?peers=false");
        assert_eq!(target(Command::ServeStatus), "/localapi/v0/serve-config");
        assert_eq!(target(Command::Prefs), "/localapi/v0/prefs");
        let whois = |text| target(Command::Whois(ip(text)));
        assert_eq!(whois("::ffff:100.64.0.2"), "/localapi/v0/whois?addr=100.64.0.2");
        assert_eq!(whois("fd7a:115c:a1e0::2"), "/localapi/v0/whois?addr=fd7a:115c:a1e0::2");
        let tcp = |text: &str| target(Command::WhoisTcp(text.parse().unwrap()));
        assert_eq!(tcp("[::ffff:127.0.0.1]:4000"), "/localapi/v0/whois?addr=127.0.0.1:4000&proto=tcp");
        assert_eq!(tcp("[::1%7]:4000"), "/localapi/v0/whois?addr=%5B::1%5D:4000&proto=tcp");
        assert_eq!(Command::Version.target(), None);
        assert_eq!(Command::Ip.target(), None);
    }

    #[test]
    fn threat_027_a_scope_has_its_exact_target() {
        let name = "svc:gw".parse().unwrap();
        let target = |scope: WhoisScope<'_>| scope.target(ip("::ffff:100.64.0.2"));
        assert_eq!(
            target(WhoisScope::Service(&name)),
            "/localapi/v0/whois?addr=100.64.0.2&svc_name=svc%3Agw"
        );
        let to = WhoisScope::Destination(ip("fd7a:115c:a1e0::1"));
        assert_eq!(target(to), "/localapi/v0/whois?addr=100.64.0.2&dst_ip=fd7a:115c:a1e0::1");
    }

    #[test]
    fn a_certificate_is_asked_for_by_name_and_a_name_is_no_flag() {
        let name: NodeName = "-rf.tailnet-example.ts.net".parse().unwrap();
        let month = Some(Duration::from_secs(30 * 86400));
        assert_eq!(
            line(Command::Cert(&name, month), None),
            "cert --cert-file=- --key-file=- --min-validity=2592000s -- -rf.tailnet-example.ts.net"
        );
        assert_eq!(
            line(Command::Cert(&name, None), None),
            "cert --cert-file=- --key-file=- -- -rf.tailnet-example.ts.net"
        );
        let target = |validity| Command::Cert(&name, validity).target().unwrap();
        assert_eq!(target(None), "/localapi/v0/cert/-rf.tailnet-example.ts.net?type=pair");
        let asked = "/localapi/v0/cert/-rf.tailnet-example.ts.net?type=pair&min_validity=2592000s";
        assert_eq!(target(month), asked);
    }

    #[test]
    fn mapped_addresses_are_unmapped_and_scopes_dropped() {
        assert_eq!(line(Command::Whois(ip("::ffff:100.64.0.2")), None), "whois --json 100.64.0.2");
        assert_eq!(line(Command::Whois(ip("fd7a:115c:a1e0::2")), None), "whois --json fd7a:115c:a1e0::2");
        assert_eq!(
            line(Command::WhoisTcp("[::ffff:127.0.0.1]:4000".parse().unwrap()), None),
            "whois --json --proto tcp 127.0.0.1:4000"
        );
        assert_eq!(
            line(Command::WhoisTcp("[::1%7]:4000".parse().unwrap()), None),
            "whois --json --proto tcp [::1]:4000"
        );
    }
}
