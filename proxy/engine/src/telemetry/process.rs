//! What the system says of this process (`/proc/self`). Elsewhere than on Linux everything is 0.

/// Resident memory, bytes.
pub fn resident_bytes() -> u64 {
    status_kib("VmRSS:").unwrap_or(0) * 1024
}

/// Largest resident memory so far, bytes.
pub fn resident_bytes_max() -> u64 {
    status_kib("VmHWM:").unwrap_or(0) * 1024
}

fn status_kib(name: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Processor time, user and system, seconds.
pub fn cpu_seconds() -> f64 {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return 0.0 };
    // The name in parentheses may hold spaces; fields are counted after it (proc(5): utime is 14, stime 15).
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: u64 =
        after.split_ascii_whitespace().skip(11).take(2).filter_map(|t| t.parse::<u64>().ok()).sum();
    // The kernel's clock tick for user space is 100 Hz on every Linux.
    ticks as f64 / 100.0
}

/// Open file descriptors.
pub fn open_fds() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64)
}
