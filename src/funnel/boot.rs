//! The clock that counts from the machine's start.

use crate::domain::BootMoment;

/// Now, on a clock that counts sleep, too, and that nobody can set. `None` where this
/// system has none: then the time of day alone says when something ends after a restart.
pub fn boot_now() -> Option<BootMoment> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let boot = boot.trim();
    // Uptime counts sleep since the machine's start, as CLOCK_BOOTTIME.
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    let seconds = uptime.split('.').next()?.parse().ok()?;
    (!boot.is_empty()).then(|| BootMoment { boot: boot.to_owned(), seconds })
}
