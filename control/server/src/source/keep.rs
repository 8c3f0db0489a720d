//! What sources found last, on disk: one file for each source.
//!
//! Not in the store: it is not wished for by anybody, can be found again, and changes often.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::workload::Workload;
use crate::clock::UnixMs;
use crate::identity::keys;

/// Least time between two writes.
pub const PAUSE: Duration = Duration::from_secs(1);

/// How old the time in a file may become while nothing changes, in milliseconds.
pub const REFRESH_MS: UnixMs = 60_000;

/// Largest file that is read, in bytes: [`super::catalog::WORKLOADS_MAX`] workloads with room to spare.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// See the module.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// When it was known to be so.
    pub synced_at: UnixMs,
    /// What there was.
    pub workloads: Vec<Arc<Workload>>,
}

/// Reads what was kept of a source; `None`: nothing.
///
/// *Errors*: the file system's; `InvalidData` for a file that is too large or not understood.
pub async fn load(folder: &Path, name: &str) -> io::Result<Option<Kept>> {
    let path = path_of(folder, name);
    let read = move || {
        match std::fs::metadata(&path) {
            Ok(found) if found.len() > FILE_BYTES_MAX => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "file too large"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            _ => {}
        }
        let kept = keys::read_optional(&path)?.map(|text| serde_json::from_str(&text)).transpose();
        kept.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Replaces what was kept of a source.
///
/// *Errors*: the file system's; the old file stays then.
pub async fn save(folder: &Path, name: &str, kept: Kept) -> io::Result<()> {
    let (folder, path) = (folder.to_owned(), path_of(folder, name));
    let write = move || {
        keys::create_private_dir(&folder)?;
        let text = serde_json::to_vec(&kept).map_err(io::Error::other)?;
        keys::write_atomic(&path, &text, keys::SECRET_MODE)
    };
    tokio::task::spawn_blocking(write).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Names of sources are DNS labels, so they are file names.
fn path_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}
