//! A store that forgets everything at exit; for tests and for trying things out.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{
    Change, Commit, Key, Outcome, RECORDS_MAX, Record, Store, StoreError, VALUE_BYTES_MAX, check_count,
    decide,
};
use crate::clock::UnixMs;

/// Records in a map.
pub struct MemoryStore {
    state: Mutex<State>,
    revision: watch::Sender<u64>,
}

#[derive(Clone, Default)]
struct State {
    records: BTreeMap<Key, Record>,
    revision: u64,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self { state: Mutex::default(), revision: watch::Sender::new(0) }
    }
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError> {
        Ok(self.lock().records.get(key).cloned())
    }

    fn list(&self, kind: Option<&str>, namespace: Option<&str>) -> Result<Vec<Record>, StoreError> {
        let wanted = |key: &Key| {
            kind.is_none_or(|kind| key.kind == kind) && namespace.is_none_or(|ns| key.namespace == ns)
        };
        let state = self.lock();
        Ok(state.records.iter().filter(|(key, _)| wanted(key)).map(|(_, record)| record.clone()).collect())
    }

    fn commit(&self, changes: &[Change], now: UnixMs) -> Result<Commit, StoreError> {
        check_count(changes)?;
        let mut state = self.lock();
        let mut next = state.clone();
        let revision = next.revision.saturating_add(1);
        let mut changed = false;
        let mut records = Vec::with_capacity(changes.len());
        for change in changes {
            let key = change.key();
            match decide(change, next.records.get(key), revision, now)? {
                Some(Outcome::Write(record)) => {
                    if record.value.to_string().len() > VALUE_BYTES_MAX {
                        return Err(StoreError::Limit { what: "the value", limit: VALUE_BYTES_MAX as u64 });
                    }
                    next.records.insert(key.clone(), record);
                    changed = true;
                }
                Some(Outcome::Remove) => {
                    next.records.remove(key);
                    changed = true;
                }
                None => {}
            }
            records.push(next.records.get(key).cloned());
        }
        if next.records.len() as u64 > RECORDS_MAX {
            return Err(StoreError::Limit { what: "the number of records", limit: RECORDS_MAX });
        }
        if changed {
            next.revision = revision;
            *state = next;
            self.revision.send_replace(revision);
        }
        Ok(Commit { revision: state.revision, records })
    }

    fn revision(&self) -> Result<u64, StoreError> {
        Ok(self.lock().revision)
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn memory_store_conforms() {
        conformance::check_all(|| Box::new(MemoryStore::default()));
    }
}
