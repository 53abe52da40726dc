//! A socket like tailscaled's, held by this test process: so tailscaled's uid and
//! pid are the test's own, and a request of the test's is one of tailscaled's.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LIMIT, Tailnet};

pub(crate) struct Tailscaled {
    path: PathBuf,
    stop: Arc<AtomicBool>,
}

impl Tailscaled {
    /// Listens in the tailnet's directory.
    pub(crate) fn beside(tailnet: &Tailnet) -> Self {
        let path = tailnet.dir().join("tailscaled.sock");
        let listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                // Nothing is said: only who listens is asked for.
                drop(stream);
            }
        });
        Self { path, stop }
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.path
    }
}

impl Drop for Tailscaled {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(std::os::unix::net::UnixStream::connect(&self.path));
        let began = std::time::Instant::now();
        let _ = std::fs::remove_file(&self.path);
        debug_assert!(began.elapsed() < LIMIT);
    }
}
