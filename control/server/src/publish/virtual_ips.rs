//! Virtual addresses over a restart: those that do not follow from their names are kept in the store.
//!
//! An application may hold an address for as long as it likes. If two names that want the same one changed places, what is
//! meant for the one service would reach the other.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use outrigger_plan::VirtualIps;

use crate::clock;
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which they are kept: one record.
pub const KIND: &str = "~VirtualIps";

type Displaced = BTreeMap<String, Ipv4Addr>;

/// See the module.
pub struct VirtualIpKeeper {
    store: SharedStore,
    kept: Mutex<Displaced>,
}

impl VirtualIpKeeper {
    /// Reads what is kept.
    ///
    /// *Errors*: the store's; [`StoreError::Corrupt`] for a record that cannot be read.
    pub async fn open(store: SharedStore) -> Result<(Self, VirtualIps), StoreError> {
        let kept: Displaced = match store.get(key()).await? {
            None => Displaced::new(),
            Some(record) => serde_json::from_value(record.value)
                .map_err(|_| StoreError::Corrupt { key: key().to_string() })?,
        };
        let held = VirtualIps::of_displaced(kept.clone());
        Ok((Self { store, kept: Mutex::new(kept) }, held))
    }

    /// Keeps them, if they are others than before. May block. A failure is logged: the addresses count all the same, and
    /// are kept with the next that change.
    pub fn keep(&self, held: &VirtualIps) {
        let displaced = held.displaced();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if *kept == displaced {
            return;
        }
        let changed = serde_json::to_value(&displaced).map_err(|error| StoreError::Backend(Box::new(error)));
        let changed = changed.and_then(|value| {
            let change = Change::Put { key: key(), value, expect: Expect::Any };
            self.store.blocking().commit(&[change], clock::unix_ms())
        });
        match changed {
            Ok(_) => *kept = displaced,
            Err(error) => tracing::error!(%error, "virtual addresses not kept"),
        }
    }
}

fn key() -> Key {
    Key::new(KIND, "", "ipv4")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn names_keep_their_addresses_over_a_restart() {
        let store = SharedStore::new(MemoryStore::default());
        let names: Vec<String> = (0..2_000).map(|n| format!("s{n}.demo.mesh")).collect();
        let (keeper, mut held) = VirtualIpKeeper::open(store.clone()).await.unwrap();
        for some in names.chunks(500).rev() {
            held = VirtualIps::assign(some.iter().map(String::as_str), &held);
        }
        keeper.keep(&held);
        let written = store.get(key()).await.unwrap().unwrap().resource_version;
        keeper.keep(&held);
        assert_eq!(store.get(key()).await.unwrap().unwrap().resource_version, written, "nothing new");
        let (_, again) = VirtualIpKeeper::open(store.clone()).await.unwrap();
        assert_eq!(VirtualIps::assign(names.iter().map(String::as_str), &again), held);
        let bad = Change::Put { key: key(), value: serde_json::json!({"a": "b"}), expect: Expect::Any };
        store.commit(vec![bad], 0).await.unwrap();
        assert!(matches!(VirtualIpKeeper::open(store).await, Err(StoreError::Corrupt { .. })));
    }
}
