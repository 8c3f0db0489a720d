//! The last good configuration on disk.
//!
//! One file, written whole and renamed into place: `OUTRIGGER-LAST-GOOD 1\n` and a `DeltaDiscoveryResponse` with every
//! accepted resource. A file that does not begin so, or does not decode, is reported and not used.
//!
//! Policy is on disk before it is acknowledged. Endpoints come and go with every instance of every service, and writing
//! the whole file for each of them would keep the control thread waiting for the disk: their changes are written
//! together, at most once in [`SAVE_INTERVAL`] ([`keep`]), on a thread that may block. A crash loses that much at most.

use crate::feed::held::HeldMap;
use crate::feed::{Feed, Raw};
use outrigger_api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;
use prost_types::Any;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const MAGIC: &[u8] = b"OUTRIGGER-LAST-GOOD 1\n";

/// Largest file read back, bytes.
const FILE_MAX: u64 = 256 << 20;

/// Shortest time between two writes of changed endpoints, and so how much of them a crash can lose.
pub const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Where the last good configuration is kept.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
    /// Number of the newest snapshot on disk. Held while one is written, so that an older one, written on another
    /// thread, never replaces a newer one.
    written: Arc<Mutex<u64>>,
}

/// Everything accepted at one moment, to be written.
#[derive(Clone, Debug)]
pub struct Snapshot {
    file: LastGood,
    number: u64,
    accepted: HeldMap,
}

/// Writes changed endpoints from time to time, for ever.
///
/// Cancel safety: a write that has begun goes on; what is not written yet stays marked as such, see [`Feed::flush`].
pub async fn keep(feed: Arc<Mutex<Feed>>) {
    loop {
        tokio::time::sleep(SAVE_INTERVAL).await;
        let Some(snapshot) = lock(&feed).unsaved() else { continue };
        let written = tokio::task::spawn_blocking(move || snapshot.write()).await;
        let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
        lock(&feed).note_saved(written);
    }
}

fn lock(feed: &Mutex<Feed>) -> std::sync::MutexGuard<'_, Feed> {
    feed.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LastGood {
    /// Keeps it in a file; its folder must exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, written: Arc::default() }
    }

    /// What is to be written; `number` grows with every change.
    pub fn snapshot(&self, number: u64, accepted: &HeldMap) -> Snapshot {
        Snapshot { file: self.clone(), number, accepted: accepted.clone() }
    }

    /// Reads what was saved; nothing when there is no file or it is unusable (which is logged).
    pub fn load(&self) -> Vec<Raw> {
        match self.read() {
            Ok(resources) => resources,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                tracing::warn!(path = %self.path.display(), %error, "last good configuration cannot be read");
                Vec::new()
            }
        }
    }

    fn read(&self) -> io::Result<Vec<Raw>> {
        if fs::metadata(&self.path)?.len() > FILE_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "file is too large"));
        }
        let bytes = fs::read(&self.path)?;
        let body = bytes
            .strip_prefix(MAGIC)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown format"))?;
        let saved = DeltaDiscoveryResponse::decode(body)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
        let raw = |r: Resource| {
            let any = r.resource?;
            Some(Raw {
                name: r.name,
                version: r.version,
                type_url: any.type_url,
                bytes: Arc::from(any.value),
            })
        };
        Ok(saved.resources.into_iter().filter_map(raw).collect())
    }
}

impl Snapshot {
    /// Writes everything accepted: to a new file, to the disk, then over the old one. Readable by the owner alone,
    /// because secrets may be among it. When something newer is on disk already, nothing is done. Blocks.
    ///
    /// # Errors
    /// Those of the file system; the old file stays then.
    pub fn write(&self) -> io::Result<()> {
        let mut written = self.file.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > self.number {
            return Ok(());
        }
        let resources = self.accepted.iter().map(|((kind, name), held)| Resource {
            name: name.clone(),
            version: held.version.clone(),
            resource: Some(Any { type_url: kind.type_url().into(), value: held.bytes.to_vec() }),
            ..Resource::default()
        });
        let message =
            DeltaDiscoveryResponse { resources: resources.collect(), ..DeltaDiscoveryResponse::default() };
        let path = &self.file.path;
        let part = path.with_extension("part");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(MAGIC)?;
        file.write_all(&message.encode_to_vec())?;
        file.sync_all()?;
        fs::rename(&part, path)?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        *written = self.number;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ads::Kind;
    use crate::feed::held::Held;
    use outrigger_traffic::config::{Endpoints, Resource as Meaning};

    fn accepted(version: &str) -> HeldMap {
        let meaning = Meaning::Endpoints(Endpoints::default());
        let held = Held {
            version: version.into(),
            bytes: Arc::from(&b""[..]),
            resource: Arc::new(meaning),
            wanted: Arc::from([]),
            came_from: Default::default(),
        };
        HeldMap::from([((Kind::Endpoints, "a".to_owned()), held)])
    }

    fn on_disk(file: &LastGood) -> Vec<String> {
        file.load().into_iter().map(|raw| raw.version).collect()
    }

    #[test]
    fn older_snapshot_that_is_written_later_does_not_replace_a_newer_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastGood::new(folder.path().join("last-good"));
        let (old, new) = (file.snapshot(1, &accepted("1")), file.snapshot(2, &accepted("2")));
        new.write().unwrap();
        old.write().unwrap();
        assert_eq!(on_disk(&file), ["2"]);
        file.snapshot(3, &HeldMap::new()).write().unwrap();
        assert!(on_disk(&file).is_empty());
    }

    #[test]
    fn file_that_cannot_be_written_leaves_the_old_one_and_can_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = LastGood::new(folder.path().join("last-good"));
        file.snapshot(1, &accepted("1")).write().unwrap();
        let next = file.snapshot(2, &accepted("2"));
        // A folder where the new file is to be made.
        let part = folder.path().join("last-good.part");
        fs::create_dir(&part).unwrap();
        assert!(next.write().is_err());
        assert_eq!(on_disk(&file), ["1"]);
        fs::remove_dir(&part).unwrap();
        next.write().unwrap();
        assert_eq!(on_disk(&file), ["2"]);
    }
}
