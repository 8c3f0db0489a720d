//! The embedded store: one file, each commit synced to disk before it returns.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::watch;

use super::{
    Change, Commit, Key, Outcome, RECORDS_MAX, Record, Store, StoreError, VALUE_BYTES_MAX, check_count,
    decide,
};
use crate::clock::UnixMs;

/// Key parts joined by zero bytes, to a [`Record`] as JSON.
const RECORDS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("records");

/// Numbers about the store itself: `revision`, `format`.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");

/// Grows when the layout changes; a store of a newer layout is not opened.
const FORMAT: u64 = 1;

/// Memory for cached pages, in bytes. The whole store is also held by the publisher, so a small one
/// will do (the library's default is 1 GiB).
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// Records in one file.
pub struct RedbStore {
    database: Database,
    revision: watch::Sender<u64>,
}

impl RedbStore {
    /// Opens the file, making it on first start. The file is locked: a second process is refused.
    ///
    /// *Errors*: [`StoreError::InUse`] when it is open elsewhere, [`StoreError::Backend`] when it cannot be opened, [`StoreError::Corrupt`] when it has
    /// a format this version does not know.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        // It holds private keys of gateways: nobody else may read it, from its first byte on.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
        let file = file.map_err(backend)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(backend)?;
        drop(file);
        let database = match Database::builder().set_cache_size(CACHE_BYTES).create(path) {
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => return Err(StoreError::InUse),
            other => other.map_err(backend)?,
        };
        let write = database.begin_write().map_err(backend)?;
        let revision = {
            write.open_table(RECORDS).map_err(backend)?;
            let mut numbers = write.open_table(NUMBERS).map_err(backend)?;
            let format = numbers.get("format").map_err(backend)?.map(|number| number.value());
            match format {
                None => drop(numbers.insert("format", FORMAT).map_err(backend)?),
                Some(FORMAT) => {}
                Some(_) => return Err(StoreError::Corrupt { key: "format".to_owned() }),
            }
            let revision = numbers.get("revision").map_err(backend)?;
            revision.map_or(0, |number| number.value())
        };
        write.commit().map_err(backend)?;
        Ok(Self { database, revision: watch::Sender::new(revision) })
    }
}

impl Store for RedbStore {
    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        let read = self.database.begin_read().map_err(backend)?;
        let table = read.open_table(RECORDS).map_err(backend)?;
        let path = path_of(key);
        let found = table.get(path.as_str()).map_err(backend)?;
        found.map(|bytes| decode(&path, bytes.value())).transpose()
    }

    fn list(&self, kind: Option<&str>, namespace: Option<&str>) -> Result<Vec<Record>, StoreError> {
        let read = self.database.begin_read().map_err(backend)?;
        let table = read.open_table(RECORDS).map_err(backend)?;
        let prefix = match (kind, namespace) {
            (Some(kind), Some(namespace)) => format!("{kind}\0{namespace}\0"),
            (Some(kind), None) => format!("{kind}\0"),
            (None, _) => String::new(),
        };
        let mut records = Vec::new();
        for row in table.range(prefix.as_str()..).map_err(backend)? {
            let (path, bytes) = row.map_err(backend)?;
            if !path.value().starts_with(&prefix) {
                break;
            }
            let record = decode(path.value(), bytes.value())?;
            if namespace.is_none_or(|namespace| record.key.namespace == namespace) {
                records.push(record);
            }
        }
        Ok(records)
    }

    fn commit(&self, changes: &[Change], now: UnixMs) -> Result<Commit, StoreError> {
        check_count(changes)?;
        let write = self.database.begin_write().map_err(backend)?;
        let mut records = Vec::with_capacity(changes.len());
        let (revision, changed) = {
            let mut table = write.open_table(RECORDS).map_err(backend)?;
            let mut numbers = write.open_table(NUMBERS).map_err(backend)?;
            let before = numbers.get("revision").map_err(backend)?.map_or(0, |number| number.value());
            let revision = before.saturating_add(1);
            let mut changed = false;
            for change in changes {
                let path = path_of(change.key());
                let held = match table.get(path.as_str()).map_err(backend)? {
                    Some(bytes) => Some(decode(&path, bytes.value())?),
                    None => None,
                };
                match decide(change, held.as_ref(), revision, now)? {
                    Some(Outcome::Write(record)) => {
                        let bytes = serde_json::to_vec(&record).map_err(backend)?;
                        if record.value.to_string().len() > VALUE_BYTES_MAX {
                            return Err(StoreError::Limit {
                                what: "the value",
                                limit: VALUE_BYTES_MAX as u64,
                            });
                        }
                        table.insert(path.as_str(), bytes.as_slice()).map_err(backend)?;
                        records.push(Some(record));
                        changed = true;
                    }
                    Some(Outcome::Remove) => {
                        table.remove(path.as_str()).map_err(backend)?;
                        records.push(None);
                        changed = true;
                    }
                    None => records.push(held),
                }
            }
            if table.len().map_err(backend)? > RECORDS_MAX {
                return Err(StoreError::Limit { what: "the number of records", limit: RECORDS_MAX });
            }
            if changed {
                numbers.insert("revision", revision).map_err(backend)?;
            }
            (if changed { revision } else { before }, changed)
        };
        // An early return above drops the transaction, which undoes it.
        if changed {
            write.commit().map_err(backend)?;
            self.revision.send_replace(revision);
        } else {
            write.abort().map_err(backend)?;
        }
        Ok(Commit { revision, records })
    }

    fn revision(&self) -> Result<u64, StoreError> {
        Ok(*self.revision.borrow())
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

fn path_of(key: &Key) -> String {
    format!("{}\0{}\0{}", key.kind, key.namespace, key.name)
}

fn decode(path: &str, bytes: &[u8]) -> Result<Record, StoreError> {
    serde_json::from_slice(bytes).map_err(|_| StoreError::Corrupt { key: path.replace('\0', "/") })
}

fn backend(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Backend(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Expect, conformance};
    use serde_json::json;

    #[test]
    fn redb_store_conforms() {
        let dir = tempfile::tempdir().unwrap();
        let mut count = 0;
        conformance::check_all(|| {
            count += 1;
            Box::new(RedbStore::open(&dir.path().join(format!("{count}.redb"))).unwrap())
        });
    }

    #[test]
    fn reopened_store_has_everything_and_goes_on_counting() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        let key = Key::new("Gateway", "shop", "edge");
        let put = |n: u64| Change::Put { key: key.clone(), value: json!({"n": n}), expect: Expect::Any };
        {
            let store = RedbStore::open(&path).unwrap();
            store.commit(&[put(1)], 5).unwrap();
            assert!(RedbStore::open(&path).is_err(), "one process at a time");
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let store = RedbStore::open(&path).unwrap();
        assert_eq!((store.revision().unwrap(), *store.watch().borrow()), (1, 1));
        assert_eq!(store.get(&key).unwrap().unwrap().value, json!({"n": 1}));
        assert_eq!(store.commit(&[put(2)], 6).unwrap().revision, 2);
    }

    #[test]
    fn store_of_a_newer_format_is_not_opened() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.redb");
        {
            let store = RedbStore::open(&path).unwrap();
            let write = store.database.begin_write().unwrap();
            write.open_table(NUMBERS).unwrap().insert("format", FORMAT + 1).unwrap();
            write.commit().unwrap();
        }
        assert!(matches!(RedbStore::open(&path), Err(StoreError::Corrupt { .. })));
    }
}
