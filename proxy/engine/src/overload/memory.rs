//! How much memory is used: by the process, and by the control group whose limit kills it.
//!
//! Of a control group counts what the kernel cannot take back at once: its use without the pages of files that nobody
//! touched lately (`inactive_file`). That is what orchestrators call the working set; the bare number would sit at the limit
//! on any host that has read enough files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows control groups.
const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Version 1 says "no limit" with a number close to the largest; anything above a petabyte is none.
const UNLIMITED: u64 = 1 << 50;

/// Memory in use, and how much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Bytes in use.
    pub used: u64,
    /// Bytes that may be used.
    pub limit: u64,
}

impl Usage {
    /// The share in use, in millionths, rounded down; above the limit it is all of it.
    pub fn millionths(self) -> u32 {
        let share = u128::from(self.used) * 1_000_000 / u128::from(self.limit.max(1));
        u32::try_from(share).unwrap_or(u32::MAX).min(1_000_000)
    }
}

/// Who knows how much memory is used: the system, or a test.
pub trait ReadMemory: Send + Sync + std::fmt::Debug {
    /// Bytes of the process' own memory (anonymous pages, not those of files).
    ///
    /// *Errors*: the system does not tell.
    fn process_bytes(&self) -> io::Result<u64>;

    /// The control group that is closest to its limit, at most `max_bytes`; `None` where there is no limit at all.
    ///
    /// *Errors*: the system does not tell.
    fn cgroup(&self, max_bytes: Option<u64>) -> io::Result<Option<Usage>>;
}

/// The system's numbers.
#[derive(Debug)]
pub struct SystemMemory {
    /// Folders of our control group and those above it, innermost first.
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug)]
enum Version {
    V1,
    V2,
}

impl Default for SystemMemory {
    fn default() -> Self {
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Self::new(Path::new(CGROUP_ROOT), &own)
    }
}

impl SystemMemory {
    /// The groups of a process, by what `/proc/self/cgroup` says, below `root`.
    pub fn new(root: &Path, own: &str) -> Self {
        let mut groups = Vec::new();
        for line in own.lines() {
            // `hierarchy:controllers:path` (cgroups(7)); version 2 has hierarchy 0 and no controllers.
            let mut parts = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
            else {
                continue;
            };
            let (base, version) = match (hierarchy, controllers) {
                ("0", "") => (root.to_owned(), Version::V2),
                (_, names) if names.split(',').any(|name| name == "memory") => {
                    (root.join("memory"), Version::V1)
                }
                _ => continue,
            };
            let mut folder = base.join(path.trim_start_matches('/'));
            // In a container the path may be the host's, of which nothing is seen here.
            while folder.starts_with(&base) {
                groups.push(Group { folder: folder.clone(), version });
                if !folder.pop() {
                    break;
                }
            }
        }
        Self { groups }
    }
}

impl ReadMemory for SystemMemory {
    fn process_bytes(&self) -> io::Result<u64> {
        let text = fs::read_to_string("/proc/self/statm")?;
        let mut fields = text.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
        // proc(5): the second field is resident, the third what of that belongs to files, in pages.
        let (resident, shared) = (fields.next().unwrap_or(0), fields.next().unwrap_or(0));
        Ok(resident.saturating_sub(shared).saturating_mul(rustix::param::page_size() as u64))
    }

    fn cgroup(&self, max_bytes: Option<u64>) -> io::Result<Option<Usage>> {
        let mut worst: Option<Usage> = None;
        for group in &self.groups {
            let limit = match group.limit()? {
                Some(limit) => max_bytes.map_or(limit, |max| max.min(limit)),
                // Our own limit holds for the innermost group that is counted at all.
                None => match max_bytes {
                    Some(max) if worst.is_none() && group.exists() => max,
                    _ => continue,
                },
            };
            let usage = Usage { used: group.used()?, limit };
            if worst.is_none_or(|worst| usage.millionths() > worst.millionths()) {
                worst = Some(usage);
            }
        }
        Ok(worst)
    }
}

impl Group {
    fn exists(&self) -> bool {
        self.folder.join(self.usage_name()).exists()
    }

    const fn usage_name(&self) -> &'static str {
        match self.version {
            Version::V1 => "memory.usage_in_bytes",
            Version::V2 => "memory.current",
        }
    }

    /// `None`: no limit, or no such file (the root group, a host's path seen from a container).
    fn limit(&self) -> io::Result<Option<u64>> {
        let name = match self.version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        let text = match fs::read_to_string(self.folder.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match text.trim() {
            "max" => Ok(None),
            number => {
                let bytes: u64 = number.parse().map_err(io::Error::other)?;
                Ok(Some(bytes).filter(|bytes| *bytes < UNLIMITED))
            }
        }
    }

    fn used(&self) -> io::Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.usage_name()))?;
        let used: u64 = text.trim().parse().map_err(io::Error::other)?;
        // Version 1 counts the groups below under names of their own.
        let inactive = match self.version {
            Version::V1 => "total_inactive_file ",
            Version::V2 => "inactive_file ",
        };
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let inactive = stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
        Ok(used.saturating_sub(inactive.unwrap_or(0)))
    }
}
