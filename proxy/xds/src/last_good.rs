//! The last good configuration on disk.
//!
//! One file, written whole and renamed into place: `OUTRIGGER-LAST-GOOD 1\n` and a `DeltaDiscoveryResponse` with every
//! accepted resource. A file that does not begin so, or does not decode, is reported and not used.

use crate::feed::Raw;
use crate::feed::held::HeldMap;
use outrigger_api::envoy::service::discovery::v3::{DeltaDiscoveryResponse, Resource};
use prost::Message;
use prost_types::Any;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

const MAGIC: &[u8] = b"OUTRIGGER-LAST-GOOD 1\n";

/// Largest file read back, bytes.
const FILE_MAX: u64 = 256 << 20;

/// Where the last good configuration is kept.
#[derive(Clone, Debug)]
pub struct LastGood {
    path: PathBuf,
}

impl LastGood {
    /// Keeps it in a file; its folder must exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
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

    /// Writes everything accepted: to a new file, to the disk, then over the old one. Readable by the owner alone,
    /// because secrets may be among it.
    ///
    /// # Errors
    /// Those of the file system; the old file stays then.
    pub fn save(&self, accepted: &HeldMap) -> io::Result<()> {
        let resources = accepted
            .iter()
            .map(|((kind, name), held)| Resource {
                name: name.clone(),
                version: held.version.clone(),
                resource: Some(Any { type_url: kind.type_url().into(), value: held.bytes.to_vec() }),
                ..Resource::default()
            })
            .collect();
        let message = DeltaDiscoveryResponse { resources, ..DeltaDiscoveryResponse::default() };
        let part = self.path.with_extension("part");
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        file.write_all(MAGIC)?;
        file.write_all(&message.encode_to_vec())?;
        file.sync_all()?;
        fs::rename(&part, &self.path)?;
        if let Some(folder) = self.path.parent() {
            fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}
