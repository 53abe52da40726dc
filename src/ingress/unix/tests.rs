//! Where the Serve socket goes, and where it refuses to go.

use super::*;

fn dir() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = fs::canonicalize(dir.path()).unwrap();
    (dir, root)
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn threat_003_the_socket_is_for_its_owner_alone() {
    let (_dir, root) = dir();
    let ingress = UnixIngress::bind_below(&root.join("state/run"), &root).unwrap();
    assert_eq!(ingress.path(), root.join("state/run/serve.sock"));
    let mode = |path: &Path| fs::symlink_metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(ingress.path()), 0o600);
    assert_eq!(mode(&root.join("state/run")), 0o700);
    let names: Vec<_> =
        fs::read_dir(root.join("state/run")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the socket and its lock, nothing else: {names:?}");
    StdStream::connect(ingress.path()).unwrap();
    let path = ingress.path().to_path_buf();
    drop(ingress);
    assert!(!path.exists());
}

#[test]
fn threat_003_a_directory_that_others_can_change_is_refused() {
    let (_dir, root) = dir();
    let run = root.join("above/run");
    fs::create_dir_all(&run).unwrap();
    chmod(&root.join("above"), 0o755);
    for mode in [0o770, 0o720, 0o702, 0o1777] {
        chmod(&run, mode);
        let refused = UnixIngress::bind_below(&run, &root);
        assert!(matches!(refused, Err(UnixError::Dir(DirError::Writable { .. }))), "{mode:o}");
    }
    chmod(&run, 0o755);
    UnixIngress::bind_below(&run, &root).expect("others may look into systemd's directory");
    for mode in [0o775, 0o757, 0o1777] {
        chmod(&root.join("above"), mode);
        match UnixIngress::bind_below(&run, &root) {
            Err(UnixError::Dir(DirError::Writable { path, .. })) => assert_eq!(path, root.join("above")),
            other => panic!("{mode:o}: {other:?}"),
        }
    }
}

#[test]
fn threat_003_a_temporary_directory_is_never_used() {
    let (_dir, root) = dir();
    // The real check, up to the root: tempfile's directories are below /tmp or
    // another sticky directory, unless this machine is unusual.
    let sticky = root.ancestors().any(|dir| fs::metadata(dir).unwrap().mode() & 0o022 != 0);
    assert_eq!(UnixIngress::bind(&root.join("run")).is_err(), sticky);

    let env = |runtime: &'static str, xdg: &'static str| {
        move |name: &str| match name {
            "RUNTIME_DIRECTORY" => Some(runtime.into()),
            "XDG_RUNTIME_DIR" => Some(xdg.into()),
            "TMPDIR" => Some("/home/x/tmp".into()),
            _ => None,
        }
    };
    let state = Path::new("/home/x/.openclaw/state");
    for (runtime, xdg, expected) in [
        ("/run/openclaw", "/run/user/1", "/run/openclaw"),
        ("/run/openclaw:/run/other", "", "/run/openclaw"),
        ("", "/run/user/1", "/run/user/1/openclaw"),
        ("/tmp/openclaw", "/run/user/1", "/run/user/1/openclaw"),
        ("", "/tmp/xdg", "/home/x/.openclaw/state/run"),
        ("", "/var/tmp/xdg", "/home/x/.openclaw/state/run"),
        ("", "/home/x/tmp/xdg", "/home/x/.openclaw/state/run"),
        ("relative", "relative", "/home/x/.openclaw/state/run"),
        ("", "", "/home/x/.openclaw/state/run"),
    ] {
        assert_eq!(serve_dir(env(runtime, xdg), state), Path::new(expected), "{runtime:?} {xdg:?}");
    }
}

#[test]
fn threat_003_a_link_is_not_followed_to_the_socket() {
    let (_dir, root) = dir();
    fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink(root.join("real"), root.join("run")).unwrap();
    let refused = UnixIngress::bind_below(&root.join("run"), &root);
    assert!(matches!(refused, Err(UnixError::Dir(DirError::NotADirectory { .. }))));
}

#[test]
fn a_socket_in_use_stays_and_a_stale_one_goes() {
    let (_dir, root) = dir();
    let run = root.join("run");
    let first = UnixIngress::bind_below(&run, &root).unwrap();
    assert!(matches!(UnixIngress::bind_below(&run, &root), Err(UnixError::InUse { .. })));
    drop(first);

    let foreign = StdListener::bind(run.join(SOCKET)).unwrap();
    assert!(matches!(UnixIngress::bind_below(&run, &root), Err(UnixError::InUse { .. })));
    drop(foreign);
    assert!(run.join(SOCKET).exists(), "left behind");
    let second = UnixIngress::bind_below(&run, &root).unwrap();

    // Somebody else's socket in our place is not ours to remove.
    fs::remove_file(run.join(SOCKET)).unwrap();
    let foreign = StdListener::bind(run.join(SOCKET)).unwrap();
    drop(second);
    assert!(run.join(SOCKET).exists());
    drop(foreign);

    fs::remove_file(run.join(SOCKET)).unwrap();
    fs::write(run.join(SOCKET), "mine").unwrap();
    assert!(matches!(UnixIngress::bind_below(&run, &root), Err(UnixError::Occupied { .. })));
    assert_eq!(fs::read(run.join(SOCKET)).unwrap(), b"mine");
}
