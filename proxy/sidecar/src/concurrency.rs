//! How many workers: the CPU quota of the control group, rounded up, and never more than the CPUs allowed.

use std::fs;
use std::path::Path;

/// Default of `--concurrency`, at least 1.
pub fn default_concurrency() -> usize {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    quota(Path::new("/sys/fs/cgroup")).map_or(cpus, |limit| limit.min(cpus)).max(1)
}

/// Quota in whole CPUs, from version 2 (`cpu.max`) or version 1 (`cpu.cfs_quota_us`) of control groups.
fn quota(root: &Path) -> Option<usize> {
    let number = |name: &str| fs::read_to_string(root.join(name)).ok()?.trim().parse::<f64>().ok();
    let (quota, period) = match fs::read_to_string(root.join("cpu.max")) {
        Ok(text) => {
            let mut parts = text.split_whitespace();
            (parts.next()?.parse::<f64>().ok()?, parts.next()?.parse::<f64>().ok()?)
        }
        Err(_) => (number("cpu/cpu.cfs_quota_us")?, number("cpu/cpu.cfs_period_us")?),
    };
    if quota <= 0.0 || period <= 0.0 {
        return None;
    }
    let cpus = (quota / period).ceil();
    (cpus < 4096.0).then_some(cpus as usize)
}

#[cfg(test)]
mod tests {
    use super::quota;
    use std::fs;

    #[test]
    fn quota_is_read_from_either_version() {
        for (files, expect) in [
            (vec![("cpu.max", "150000 100000\n")], Some(2)),
            (vec![("cpu.max", "50000 100000\n")], Some(1)),
            (vec![("cpu.max", "max 100000\n")], None),
            (vec![("cpu/cpu.cfs_quota_us", "300000\n"), ("cpu/cpu.cfs_period_us", "100000\n")], Some(3)),
            (vec![("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")], None),
            (vec![], None),
        ] {
            let root = tempfile::tempdir().unwrap();
            for (name, text) in &files {
                let path = root.path().join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            assert_eq!(quota(root.path()), expect, "{files:?}");
        }
    }
}
