//! What operators asked for, and what must survive a restart.
//!
//! A store keeps JSON values under `(kind, namespace, name)`. Every successful [`Store::commit`] has a
//! *revision*, one greater than the one before; a record's `resource_version` is the revision that wrote
//! it last. A commit happens as a whole or not at all, and is on disk when it returns.
//!
//! Backends: [`memory`] (tests) and [`redb`] (the product). Each passes the suite in `conformance`.
//! Calls block; asynchronous code goes through [`SharedStore`].

pub mod memory;

pub mod redb;

#[cfg(test)]
mod conformance;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use crate::clock::UnixMs;

/// Longest value, as JSON text, in bytes. etcd's limit for one request, which operators know.
pub const VALUE_BYTES_MAX: usize = 1_536 * 1024;

/// Longest kind, namespace or name, in bytes (a DNS name's limit).
pub const KEY_PART_BYTES_MAX: usize = 253;

/// Most changes in one commit.
pub const CHANGES_MAX: usize = 10_000;

/// Most records in one store.
pub const RECORDS_MAX: u64 = 1_000_000;

/// Where a record is kept.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct Key {
    /// For a resource its kind (`VirtualService`), for our own records a kind that begins with `~`.
    pub kind: String,
    /// Empty for what belongs to no namespace.
    pub namespace: String,
    /// Unique within kind and namespace.
    pub name: String,
}

impl Key {
    /// Puts a key together.
    pub fn new(kind: impl Into<String>, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into() }
    }

    /// Checks that the parts can be kept apart and have a bearable length.
    ///
    /// *Errors*: [`StoreError::Key`].
    pub fn check(&self) -> Result<(), StoreError> {
        let fits = |part: &str| part.len() <= KEY_PART_BYTES_MAX && !part.contains('\0');
        if self.kind.is_empty() || self.name.is_empty() {
            return Err(StoreError::Key { key: self.clone(), reason: "kind and name must not be empty" });
        }
        if !(fits(&self.kind) && fits(&self.namespace) && fits(&self.name)) {
            let reason = "kind, namespace and name have at most 253 bytes and no zero byte";
            return Err(StoreError::Key { key: self.clone(), reason });
        }
        Ok(())
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{}/{}", self.kind, self.name)
        } else {
            write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// A value and its history in numbers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Where it is kept.
    pub key: Key,
    /// The revision that wrote it last.
    pub resource_version: u64,
    /// How many times its value has changed; 1 at first.
    pub generation: u64,
    /// When it was first written.
    pub created_unix_ms: UnixMs,
    /// When it was last written.
    pub updated_unix_ms: UnixMs,
    /// The value.
    pub value: Value,
}

/// What must be true of a record for a change to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expect {
    /// Nothing.
    Any,
    /// There is none.
    Absent,
    /// There is one, last written at this revision.
    Version(u64),
}

/// One change of a commit.
#[derive(Clone, PartialEq, Debug)]
pub enum Change {
    /// Write a value. Writing the value that is there already changes nothing.
    Put {
        /// Where.
        key: Key,
        /// What.
        value: Value,
        /// On which condition.
        expect: Expect,
    },
    /// Remove a record. Removing one that is not there changes nothing under [`Expect::Any`].
    Delete {
        /// Which.
        key: Key,
        /// On which condition.
        expect: Expect,
    },
}

impl Change {
    /// The record it concerns.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// What a commit did.
#[derive(Clone, PartialEq, Debug)]
pub struct Commit {
    /// The store's revision afterwards. The same as before when nothing changed.
    pub revision: u64,
    /// For each change in order: the record as it is now, `None` after a removal.
    pub records: Vec<Option<Record>>,
}

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else has written, or not written, in between.
    #[error("{key} has changed: expected {expected:?}, found version {found:?}")]
    Conflict {
        /// The record.
        key: Key,
        /// What the caller assumed.
        expected: Expect,
        /// Its version, `None` when there is no record.
        found: Option<u64>,
    },
    /// The key cannot be used.
    #[error("{key}: {reason}")]
    Key {
        /// The key.
        key: Key,
        /// Why.
        reason: &'static str,
    },
    /// A limit of the store.
    #[error("{what} exceeds the limit of {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How much is allowed.
        limit: u64,
    },
    /// Another process, or a service in this one that is still ending, has the file open.
    #[error("the store is in use by another process")]
    InUse,
    /// The backend failed, e.g. the disk is full.
    #[error("store backend")]
    Backend(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What is on disk cannot be read.
    #[error("the store holds something unreadable under {key}")]
    Corrupt {
        /// Where.
        key: String,
    },
}

/// A place to keep records.
pub trait Store: Send + Sync + 'static {
    /// One record.
    ///
    /// *Errors*: backend failures.
    fn get(&self, key: &Key) -> Result<Option<Record>, StoreError>;

    /// Records in the order of their keys; of one kind, or one kind and namespace, when given.
    ///
    /// *Errors*: backend failures.
    fn list(&self, kind: Option<&str>, namespace: Option<&str>) -> Result<Vec<Record>, StoreError>;

    /// Makes all changes or none.
    ///
    /// *Errors*: [`StoreError::Conflict`] for the first expectation that does not hold;
    /// [`StoreError::Key`], [`StoreError::Limit`]; backend failures.
    fn commit(&self, changes: &[Change], now: UnixMs) -> Result<Commit, StoreError>;

    /// The revision of the last commit; 0 when there was none.
    ///
    /// *Errors*: backend failures.
    fn revision(&self) -> Result<u64, StoreError>;

    /// The revision and its changes. A receiver may miss revisions in between, never the last one.
    fn watch(&self) -> watch::Receiver<u64>;
}

/// What both backends do for one change: the record that results, or why not.
///
/// `Ok(None)` means that nothing changes. `revision` is the one the commit will have.
fn decide(
    change: &Change,
    held: Option<&Record>,
    revision: u64,
    now: UnixMs,
) -> Result<Option<Outcome>, StoreError> {
    let (key, expect) = match change {
        Change::Put { key, expect, .. } | Change::Delete { key, expect } => (key, *expect),
    };
    key.check()?;
    let found = held.map(|record| record.resource_version);
    let holds = match expect {
        Expect::Any => true,
        Expect::Absent => found.is_none(),
        Expect::Version(version) => found == Some(version),
    };
    if !holds {
        return Err(StoreError::Conflict { key: key.clone(), expected: expect, found });
    }
    match (change, held) {
        (Change::Delete { .. }, None) => Ok(None),
        (Change::Delete { .. }, Some(_)) => Ok(Some(Outcome::Remove)),
        (Change::Put { value, .. }, Some(held)) if held.value == *value => Ok(None),
        (Change::Put { value, .. }, held) => Ok(Some(Outcome::Write(Record {
            key: key.clone(),
            resource_version: revision,
            generation: held.map_or(1, |record| record.generation.saturating_add(1)),
            created_unix_ms: held.map_or(now, |record| record.created_unix_ms),
            updated_unix_ms: now,
            value: value.clone(),
        }))),
    }
}

/// What becomes of a record.
enum Outcome {
    Write(Record),
    Remove,
}

fn check_count(changes: &[Change]) -> Result<(), StoreError> {
    if changes.len() > CHANGES_MAX {
        return Err(StoreError::Limit {
            what: "the number of changes in one commit",
            limit: CHANGES_MAX as u64,
        });
    }
    Ok(())
}

/// A store for asynchronous callers: every call runs on a thread where it may block.
#[derive(Clone)]
pub struct SharedStore(Arc<dyn Store>);

impl SharedStore {
    /// Shares a backend.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }

    /// The backend itself, for callers that may block.
    pub fn blocking(&self) -> &dyn Store {
        &*self.0
    }

    /// See [`Store::get`].
    ///
    /// *Errors*: as there.
    pub async fn get(&self, key: Key) -> Result<Option<Record>, StoreError> {
        self.run(move |store| store.get(&key)).await
    }

    /// See [`Store::list`].
    ///
    /// *Errors*: as there.
    pub async fn list(
        &self,
        kind: Option<String>,
        namespace: Option<String>,
    ) -> Result<Vec<Record>, StoreError> {
        self.run(move |store| store.list(kind.as_deref(), namespace.as_deref())).await
    }

    /// See [`Store::commit`]. *Cancel safety*: a commit that has begun goes on when the caller leaves.
    ///
    /// *Errors*: as there.
    pub async fn commit(&self, changes: Vec<Change>, now: UnixMs) -> Result<Commit, StoreError> {
        self.run(move |store| store.commit(&changes, now)).await
    }

    /// See [`Store::watch`].
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = Arc::clone(&self.0);
        match tokio::task::spawn_blocking(move || work(&*store)).await {
            Ok(result) => result,
            Err(error) => Err(StoreError::Backend(Box::new(error))),
        }
    }
}
