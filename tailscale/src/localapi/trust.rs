//! Who may be believed at the LocalAPI socket.
//!
//! The kernel says whose process listens (SO_PEERCRED). Root is believed: it is
//! tailscaled everywhere but in containers, and can be anybody anyway. So is our own
//! user, who can do to us what it likes. Any other user may be an honest tailscaled
//! without privileges, or somebody who was first at a path in /tmp: they are believed
//! where nobody but root, we and that very user decides what is at the path. Whoever
//! named the path then named that user; a third one cannot have put it there. That
//! the user owns the socket's file proves nothing: whoever plants one does.

use std::path::Path;

use crate::Error;
use crate::locate::doubts_of;

const ROOT: u32 = 0;

/// Refuses a listener of user `uid` at `socket` if it could be anybody's.
pub(super) fn check(socket: &Path, uid: u32) -> Result<(), Error> {
    check_as(socket, uid, rustix::process::geteuid().as_raw())
}

/// The same for a process with effective user id `euid`.
fn check_as(socket: &Path, uid: u32, euid: u32) -> Result<(), Error> {
    if uid == ROOT || uid == euid {
        return Ok(());
    }
    let reasons = doubts_of(socket, &[ROOT, euid, uid]);
    if reasons.is_empty() { Ok(()) } else { Err(Error::Untrusted { path: socket.to_owned(), uid, reasons }) }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const STRANGER: u32 = 4_000_001;
    const US: u32 = 4_000_002;

    fn code(socket: &Path, uid: u32) -> &'static str {
        check_as(socket, uid, US).map_or_else(|error| error.code(), |()| "ok")
    }

    #[test]
    fn a_stranger_who_was_first_at_an_open_place_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o1777)).unwrap();
        let socket = dir.path().join("tailscaled.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = check_as(&socket, STRANGER, US).unwrap_err();
        assert_eq!(error.code(), "tailscale_socket_untrusted");
        let said = error.to_string();
        assert!(said.contains("can be written by everybody") && said.contains("4000001"), "{said}");
        // The same place, and root or ourselves behind it.
        assert_eq!(code(&socket, ROOT), "ok");
        assert_eq!(code(&socket, US), "ok");
    }

    #[test]
    fn a_stranger_behind_a_link_into_an_open_place_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("tailscaled.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        // Below /tmp, which everybody can write.
        assert_eq!(code(&link, STRANGER), "tailscale_socket_untrusted");
    }

    #[test]
    fn a_socket_that_is_gone_again_is_not_believed() {
        assert_eq!(code(Path::new("/none/s.sock"), STRANGER), "tailscale_socket_untrusted");
    }

    #[test]
    fn a_stranger_where_only_root_can_have_put_it_is_believed() {
        // Any file in a place of root's: its kind does not matter here.
        assert_eq!(code(Path::new("/bin/sh"), STRANGER), "ok");
    }
}
