use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;

/// A file that every system keeps where only root can write.
const TRUSTED: &str = "/bin/sh";
const NOBODY_SPECIAL: u32 = 1000;

/// Who runs this test, and so owns the files it makes.
fn me() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A directory that everybody can write, with a `tailscale` in it.
fn open_to_all(file_mode: u32) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(NAME);
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(file_mode)).unwrap();
    std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
    (dir, path)
}

fn bin(path: impl Into<PathBuf>) -> LocateOptions {
    LocateOptions { bin: Some(path.into()), ..LocateOptions::default() }
}

fn search(path: impl Into<OsString>) -> LocateOptions {
    LocateOptions { search_path: Some(path.into()), ..LocateOptions::default() }
}

#[track_caller]
fn refused(options: LocateOptions, euid: u32) -> LocateError {
    locate_as(options, &[], euid).map(|located| located.warnings).unwrap_err()
}

#[test]
fn root_never_runs_what_others_can_replace() {
    let (dir, path) = open_to_all(0o755);
    for options in [bin(&path), search(dir.path())] {
        let error = refused(options, 0);
        assert_eq!(error.code(), "tailscale_untrusted");
    }
}

#[test]
fn another_users_file_is_doubted_and_ones_own_is_not() {
    let (_dir, path) = open_to_all(0o755);
    let stranger = format!("{} belongs to another user", path.display());
    let doubted = |euid| doubts(&path, euid).iter().any(|doubt| doubt.starts_with(&stranger));
    assert!(!doubted(me()));
    // What belongs to root is nobody's to replace.
    assert_eq!(doubted(me() + 1), me() != 0);
}

#[test]
fn a_file_that_its_group_can_write_is_doubted() {
    let (_dir, path) = open_to_all(0o775);
    let shown = format!("{} can be written by its group", path.display());
    assert!(doubts(&path, me()).contains(&shown));
}

#[test]
fn a_link_into_an_open_directory_is_doubted() {
    let (_dir, path) = open_to_all(0o755);
    let links = tempfile::tempdir().unwrap();
    let link = links.path().join(NAME);
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let open = format!("{} can be written", path.parent().unwrap().display());
    assert!(doubts(&link, me()).iter().any(|doubt| doubt.starts_with(&open)));
}

#[test]
fn relative_paths_mean_nothing() {
    assert_eq!(refused(bin("tailscale"), 1).code(), "tailscale_path_relative");
    assert_eq!(refused(bin("./tailscale"), 1).code(), "tailscale_path_relative");
    let socket = LocateOptions { socket: Some("s.sock".into()), ..bin(TRUSTED) };
    assert_eq!(refused(socket, 1).code(), "tailscale_path_relative");
    for path in ["", ":", ".", "bin:./bin::", "../bin"] {
        assert_eq!(refused(search(path), 1), LocateError::NotFound, "{path:?}");
    }
}

#[test]
fn what_cannot_be_run_is_told() {
    let (dir, path) = open_to_all(0o644);
    assert_eq!(refused(bin(&path), 1).code(), "tailscale_not_executable");
    assert_eq!(refused(bin(dir.path()), 1).code(), "tailscale_not_executable");
    assert_eq!(refused(bin(dir.path().join("none")), 1).code(), "tailscale_not_installed");
    assert_eq!(refused(search(dir.path()), 1), LocateError::NotFound);
}

#[test]
fn others_run_it_with_a_warning() {
    let (dir, path) = open_to_all(0o755);
    for options in [bin(&path), search(dir.path())] {
        let located = locate_as(options, &[], NOBODY_SPECIAL).unwrap();
        assert_eq!(located.tailscale.path(), Some(path.as_path()));
        assert!(!located.warnings.is_empty());
    }
}

#[test]
fn a_trusted_place_is_preferred_to_an_earlier_one() {
    let (dir, _path) = open_to_all(0o755);
    for euid in [0, NOBODY_SPECIAL] {
        let known = [PathBuf::from("/none/tailscale"), PathBuf::from(TRUSTED)];
        let located = locate_as(search(dir.path()), &known, euid).unwrap();
        assert_eq!(located.tailscale.path(), Some(Path::new(TRUSTED)));
        assert_eq!(located.warnings, Vec::<String>::new());
    }
}

#[test]
fn a_configured_path_is_taken_as_it_is() {
    let options = LocateOptions { socket: Some("/run/x/s.sock".into()), ..bin(TRUSTED) };
    let located = locate_as(options, &[], 0).unwrap();
    assert_eq!(located.tailscale.path(), Some(Path::new(TRUSTED)));
    assert_eq!(located.tailscale.socket_path(), Path::new("/run/x/s.sock"));
    assert!(located.warnings.is_empty());
}

#[test]
fn a_configured_binary_is_not_bypassed_by_the_socket_of_another_daemon() {
    let used = |bin: Option<&str>, socket: Option<&str>, client| {
        let (bin, socket) = (bin.map(PathBuf::from), socket.map(PathBuf::from));
        local_use(&LocateOptions { bin, socket, client, ..LocateOptions::default() })
    };
    let (bin, socket) = (Some(TRUSTED), Some("/run/x/s.sock"));
    assert_eq!(used(bin, None, ClientMode::Auto), LocalUse::Never);
    for (bin, socket) in [(bin, socket), (None, socket), (None, None)] {
        assert_eq!(used(bin, socket, ClientMode::Auto), LocalUse::First);
    }
    for (bin, socket) in [(bin, socket), (bin, None), (None, socket), (None, None)] {
        assert_eq!(used(bin, socket, ClientMode::Cli), LocalUse::Never);
        assert_eq!(used(bin, socket, ClientMode::LocalApi), LocalUse::Only);
    }
}

#[test]
fn the_socket_alone_takes_no_binary_and_never_an_untrusted_one() {
    let local = |options| LocateOptions { client: ClientMode::LocalApi, ..options };
    let (dir, path) = open_to_all(0o755);
    for options in [bin(&path), bin(dir.path().join("none")), bin("tailscale"), search("/none")] {
        let located = locate_as(local(options), &[], 0).unwrap();
        assert_eq!(located.tailscale.path(), None);
        assert_eq!(located.warnings, Vec::<String>::new());
        let error = crate::test_support::block_on(located.tailscale.version()).unwrap_err();
        assert_eq!(error.code(), "tailscale_not_installed");
    }
    let relative = local(LocateOptions { socket: Some("s.sock".into()), ..LocateOptions::default() });
    assert_eq!(refused(relative, 0).code(), "tailscale_path_relative");
}

/// Where the binary that is asked for cannot be used, and somebody listens at a socket.
fn without_a_binary(
    bin: Option<PathBuf>,
    socket: Option<PathBuf>,
    euid: u32,
) -> Result<Located, LocateError> {
    let options =
        LocateOptions { bin, socket, search_path: Some("/none".into()), ..LocateOptions::default() };
    crate::test_support::block_on(async { locate_as(options, &[], euid) })
}

#[test]
fn without_a_binary_the_socket_is_not_asked_where_nobody_listens_or_it_is_not_its() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let (_open, untrusted) = open_to_all(0o755);
    let nobody = || without_a_binary(None, Some(socket.clone()), me()).unwrap_err();
    assert_eq!(nobody(), LocateError::NotFound);
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let missing = || Some(PathBuf::from("/none/tailscale"));
    let code = |bin, socket, euid| without_a_binary(bin, socket, euid).unwrap_err().code();
    // The default socket is not that binary's.
    assert_eq!(code(missing(), None, me()), "tailscale_not_installed");
    assert_eq!(code(Some(untrusted), None, 0), "tailscale_untrusted");
    assert_eq!(code(Some("tailscale".into()), Some(socket.clone()), me()), "tailscale_path_relative");
    drop(listener);
    assert_eq!(nobody(), LocateError::NotFound);
}

#[test]
fn without_a_binary_to_be_used_a_socket_that_answers_is_asked_alone() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let (_open, untrusted) = open_to_all(0o755);
    for (bin, euid, why) in [
        (None, me(), "found neither"),
        (Some(PathBuf::from("/none/tailscale")), me(), "there is no file"),
        (Some(untrusted), 0, "refusing to run"),
    ] {
        let located = without_a_binary(bin, Some(socket.clone()), euid).unwrap();
        assert_eq!(located.tailscale.path(), None, "{why}");
        assert!(located.warnings[0].contains(why), "{:?}", located.warnings);
        // Without a runtime nobody can look.
        let options = LocateOptions {
            socket: Some(socket.clone()),
            search_path: Some("/none".into()),
            ..LocateOptions::default()
        };
        assert!(locate_as(options, &[], euid).is_err());
    }
}
