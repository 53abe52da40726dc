//! What the command line of another process says, for attesting tailscaled.
//!
//! A daemon that was started with a SOCKS or HTTP proxy dials loopback for any
//! local user, so that its uid at the other end of a socket proves nothing
//! (rulings 1.2).

use std::fs;

/// Whether tailscaled lets local users dial through it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutboundProxy {
    /// It was started with `--socks5-server` or `--outbound-http-proxy-listen`.
    Present,
    /// It was started with neither.
    Absent,
    /// Its command line cannot be read.
    Unknown,
}

/// Reads the command line of a process and looks for tailscaled's outbound
/// proxies.
pub fn outbound_proxy(pid: u32) -> OutboundProxy {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        // Empty for kernel threads and for what has just died.
        Ok(cmdline) if !cmdline.is_empty() => {
            if has_outbound_proxy(&cmdline) {
                OutboundProxy::Present
            } else {
                OutboundProxy::Absent
            }
        }
        Ok(_) | Err(_) => OutboundProxy::Unknown,
    }
}

fn has_outbound_proxy(cmdline: &[u8]) -> bool {
    let mut args = cmdline.split(|b| *b == 0).skip(1);
    while let Some(arg) = args.next() {
        let Some(flag) = arg.strip_prefix(b"--").or_else(|| arg.strip_prefix(b"-")) else { continue };
        for name in [&b"socks5-server"[..], b"outbound-http-proxy-listen"] {
            let value = match flag.strip_prefix(name) {
                Some(b"") => args.clone().next(),
                Some(rest) => rest.strip_prefix(b"="),
                None => None,
            };
            if value.is_some_and(|value| !value.is_empty()) {
                return true;
            }
        }
    }
    false
}

/// Whether any process of this machine is called tailscaled. `None` where not all
/// of them can be seen: in a container, or where `/proc` hides other users'. A
/// process that has ended and was not waited for does not count.
pub fn is_tailscaled_running() -> Option<bool> {
    // Only the first pid namespace has it, and only an open /proc shows it.
    if !fs::read_to_string("/proc/2/stat").is_ok_and(|stat| names_living(&stat, "kthreadd")) {
        return None;
    }
    for entry in fs::read_dir("/proc").ok()? {
        let entry = entry.ok()?;
        if !entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            continue;
        }
        match fs::read_to_string(entry.path().join("stat")) {
            // Wrappers give it names such as `.tailscaled-wra`.
            Ok(stat) if names_living(&stat, "tailscaled") => return Some(true),
            Ok(_) => {}
            // It ended while we looked.
            Err(error) if matches!(error.raw_os_error(), Some(2 | 3)) => {}
            Err(_) => return None,
        }
    }
    Some(false)
}

/// `PID (NAME) STATE ...`; the name may hold blanks and brackets.
fn names_living(stat: &str, name: &str) -> bool {
    let parts = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')'));
    parts.is_some_and(|(found, rest)| found.contains(name) && !rest.trim_start().starts_with(['Z', 'X']))
}

/// When a process was started, in clock ticks after boot: with its pid, it names
/// one process for good. `None` when there is no such process, or no way to ask.
pub fn start_time(pid: u32) -> Option<u64> {
    start_time_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn start_time_in(stat: &str) -> Option<u64> {
    // The name is in parentheses and may contain anything, also parentheses.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxies_of_tailscaled_are_found_in_every_spelling() {
        for (args, expected) in [
            (&["--socks5-server=localhost:1055"][..], true),
            (&["-socks5-server=localhost:1055"], true),
            (&["--socks5-server", "localhost:1055"], true),
            (&["--tun=tun0", "-outbound-http-proxy-listen", ":1056"], true),
            (&["--outbound-http-proxy-listen=:1056", "--verbose=1"], true),
            (&[], false),
            (&["--socks5-server="], false),
            (&["--socks5-server", ""], false),
            (&["--socks5-server"], false),
            (&["--socks5-server-x=1"], false),
            (&["--state=/var/lib/socks5-server"], false),
            (&["socks5-server=x"], false),
        ] {
            let mut cmdline = b"/usr/sbin/tailscaled\0".to_vec();
            for arg in args {
                cmdline.extend_from_slice(arg.as_bytes());
                cmdline.push(0);
            }
            assert_eq!(has_outbound_proxy(&cmdline), expected, "{args:?}");
        }
    }

    #[test]
    fn a_start_time_is_read_past_any_name() {
        let stat = "7 (a) b) (c) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 9 9\n";
        assert_eq!(start_time_in(stat), Some(4711));
        assert_eq!(start_time_in("7 (x) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_can_be_asked_about() {
        assert_eq!(outbound_proxy(std::process::id()), OutboundProxy::Absent);
        assert_eq!(start_time(std::process::id()), start_time(std::process::id()));
        assert!(start_time(std::process::id()).is_some());
        assert_eq!(outbound_proxy(u32::MAX), OutboundProxy::Unknown);
        assert_eq!(start_time(u32::MAX), None);
    }

    #[test]
    fn only_a_living_process_of_the_name_counts() {
        assert!(names_living("7 (tailscaled) S 1 7 7 0", "tailscaled"));
        assert!(!names_living("7 (tailscaled) Z 1 7 7 0", "tailscaled"));
        assert!(names_living("7 (.tailscaled-wra) S 1 7 7 0", "tailscaled"));
        assert!(!names_living("nonsense", "tailscaled"));
    }
}
