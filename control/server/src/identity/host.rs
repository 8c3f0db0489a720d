//! Hosts: which machine a certificate was first given to, and whether it may still use it.
//!
//! A join token can be made for a host. The certificate it gives, and every one that is signed on the strength of that
//! one, carries the host's mark in its subject (`CN=rack7#2`: name and generation); the identity stays the SPIFFE id
//! alone. A host that is revoked gets a new generation: what was signed for the old one opens nothing here any more,
//! no configuration, no registration, no renewal. A certificate without a mark is bound to no host.
//!
//! Peers do not look at the mark: a certificate in the hands of a revoked host is accepted by other proxies until it
//! ends, which is at most the life of a workload certificate.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, watch};

use super::spiffe::is_label;
use crate::clock::UnixMs;
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which hosts are kept.
pub const KIND: &str = "~Host";

/// Most hosts, revoked ones too: these are not forgotten, or their certificates would be good again.
pub const HOSTS_MAX: usize = 10_000;

/// Most addresses of one host.
pub const ADDRESSES_MAX: usize = 64;

/// Name and generation of a host, as certificates carry them.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostMark {
    /// A DNS label.
    pub name: String,
    /// Grows with every revocation.
    pub generation: u32,
}

impl HostMark {
    /// Reads what [`fmt::Display`] writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (name, generation) = text.split_once('#')?;
        let generation = generation.parse().ok()?;
        let mark = Self { name: name.to_owned(), generation };
        (is_label(name) && mark.to_string() == text).then_some(mark)
    }
}

impl fmt::Display for HostMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.name, self.generation)
    }
}

/// What is kept of a host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostRecord {
    /// The one that counts.
    pub generation: u32,
    /// Addresses its workloads may announce. Empty: any.
    pub addresses: BTreeSet<IpAddr>,
    /// When it was revoked; `None`: it is in the mesh, or may join.
    pub revoked_at: Option<UnixMs>,
}

/// Why a host was not made or found.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Not a name.
    #[error("host {0:?} must be a DNS label: 1 to 63 characters of a-z, 0-9 and '-'")]
    Name(String),
    /// [`HOSTS_MAX`] or [`ADDRESSES_MAX`].
    #[error("at most {HOSTS_MAX} hosts, and {ADDRESSES_MAX} addresses of one, can be kept")]
    TooMany,
    /// There is none of this name, or it was revoked.
    #[error("host {0:?} is not known, or was revoked")]
    Unknown(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

type Table = BTreeMap<String, HostRecord>;

/// All hosts; clones share them.
#[derive(Clone)]
pub struct Hosts {
    store: SharedStore,
    table: Arc<watch::Sender<Arc<Table>>>,
    changing: Arc<Mutex<()>>,
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosts").field("count", &self.table.borrow().len()).finish()
    }
}

impl Hosts {
    /// Reads what is kept. Nobody else may change the hosts of this store.
    ///
    /// *Errors*: the store's; [`StoreError::Corrupt`] for one that cannot be read.
    pub async fn open(store: SharedStore) -> Result<Self, StoreError> {
        let mut table = Table::new();
        for record in store.list(Some(KIND.to_owned()), None).await? {
            let corrupt = StoreError::Corrupt { key: record.key.to_string() };
            table.insert(record.key.name, serde_json::from_value(record.value).map_err(|_| corrupt)?);
        }
        let table = Arc::new(watch::Sender::new(Arc::new(table)));
        Ok(Self { store, table, changing: Arc::default() })
    }

    /// All of them, by name.
    pub fn list(&self) -> Arc<BTreeMap<String, HostRecord>> {
        self.table.borrow().clone()
    }

    /// Makes a host, or changes its addresses. One that was revoked may join again, with new certificates.
    ///
    /// *Errors*: [`HostError::Name`], [`HostError::TooMany`], the store's.
    pub async fn put(
        &self,
        name: &str,
        addresses: BTreeSet<IpAddr>,
        now: UnixMs,
    ) -> Result<HostRecord, HostError> {
        if !is_label(name) {
            return Err(HostError::Name(name.to_owned()));
        }
        let _alone = self.changing.lock().await;
        let held = self.list();
        let known = held.get(name);
        if addresses.len() > ADDRESSES_MAX || (known.is_none() && held.len() >= HOSTS_MAX) {
            return Err(HostError::TooMany);
        }
        let generation = known.map_or(1, |known| known.generation);
        let record = HostRecord { generation, addresses, revoked_at: None };
        self.keep(name, &record, now).await?;
        Ok(record)
    }

    /// Ends what was given to a host so far.
    ///
    /// *Errors*: [`HostError::Unknown`] when there is none of this name; the store's.
    pub async fn revoke(&self, name: &str, now: UnixMs) -> Result<HostRecord, HostError> {
        let _alone = self.changing.lock().await;
        let known = self.list().get(name).cloned().ok_or_else(|| HostError::Unknown(name.to_owned()))?;
        let generation = known.generation.saturating_add(1);
        let record = HostRecord { generation, revoked_at: Some(now), ..known };
        self.keep(name, &record, now).await?;
        Ok(record)
    }

    /// The mark for a host that may join.
    ///
    /// *Errors*: [`HostError::Unknown`].
    pub fn mark(&self, name: &str) -> Result<HostMark, HostError> {
        match self.table.borrow().get(name) {
            Some(record) if record.revoked_at.is_none() => {
                Ok(HostMark { name: name.to_owned(), generation: record.generation })
            }
            _ => Err(HostError::Unknown(name.to_owned())),
        }
    }

    async fn keep(&self, name: &str, record: &HostRecord, now: UnixMs) -> Result<(), StoreError> {
        let value = serde_json::to_value(record).map_err(|error| StoreError::Backend(Box::new(error)))?;
        let change = Change::Put { key: Key::new(KIND, "", name), value, expect: Expect::Any };
        self.store.commit(vec![change], now).await?;
        self.table.send_modify(|table| {
            Arc::make_mut(table).insert(name.to_owned(), record.clone());
        });
        Ok(())
    }
}

/// The host a certificate was given to, as it stands now.
#[derive(Clone, Debug)]
pub struct Standing {
    /// What the certificate carries.
    pub mark: HostMark,
    /// What is known of hosts.
    pub hosts: Hosts,
}

impl Standing {
    /// Whether the host may still use its certificates.
    pub fn is_good(&self) -> bool {
        self.hosts.mark(&self.mark.name).is_ok_and(|mark| mark == self.mark)
    }

    /// Whether workloads of the host may announce this address.
    pub fn allows(&self, address: IpAddr) -> bool {
        let table = self.hosts.table.borrow();
        table
            .get(&self.mark.name)
            .is_some_and(|record| record.addresses.is_empty() || record.addresses.contains(&address))
    }

    /// Ends when the host may not use its certificates any more. *Cancel safety*: yes.
    pub async fn revoked(&self) {
        let mut table = self.hosts.table.subscribe();
        while self.is_good() {
            // The sender lives in `self.hosts`.
            let _ = table.changed().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    async fn hosts() -> Hosts {
        Hosts::open(SharedStore::new(MemoryStore::default())).await.unwrap()
    }

    #[test]
    fn mark_reads_back_and_nothing_else_is_one() {
        let mark = HostMark { name: "rack7".to_owned(), generation: 3 };
        assert_eq!(HostMark::parse(&mark.to_string()), Some(mark));
        for bad in ["", "rack7", "rack7#", "#1", "Rack7#1", "rack7#01", "rack7#+1", "rack7#1#2", "rack7#-1"] {
            assert_eq!(HostMark::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn revoked_host_stands_no_more_and_joins_again_with_another_mark() {
        let hosts = hosts().await;
        assert!(matches!(hosts.mark("rack7"), Err(HostError::Unknown(_))));
        hosts.put("rack7", BTreeSet::new(), 1).await.unwrap();
        let first = Standing { mark: hosts.mark("rack7").unwrap(), hosts: hosts.clone() };
        assert!(first.is_good());
        let watched = first.clone();
        let ended = tokio::spawn(async move { watched.revoked().await });
        hosts.revoke("rack7", 2).await.unwrap();
        ended.await.unwrap();
        assert!(!first.is_good() && hosts.mark("rack7").is_err());
        hosts.put("rack7", BTreeSet::new(), 3).await.unwrap();
        let second = Standing { mark: hosts.mark("rack7").unwrap(), hosts: hosts.clone() };
        assert!(second.is_good() && !first.is_good(), "what the host had before stays worthless");
        let again = Hosts::open(hosts.store.clone()).await.unwrap();
        assert_eq!(again.list(), hosts.list());
    }

    #[tokio::test]
    async fn addresses_of_a_host_bound_its_workloads() {
        let hosts = hosts().await;
        let address: IpAddr = "10.0.0.7".parse().unwrap();
        let other: IpAddr = "10.0.0.8".parse().unwrap();
        hosts.put("rack7", BTreeSet::new(), 0).await.unwrap();
        let standing = Standing { mark: hosts.mark("rack7").unwrap(), hosts: hosts.clone() };
        assert!(standing.allows(address) && standing.allows(other));
        hosts.put("rack7", [address].into(), 0).await.unwrap();
        assert!(standing.allows(address) && !standing.allows(other));
    }

    #[tokio::test]
    async fn host_passes_at_its_limits_and_not_one_past_them() {
        let hosts = hosts().await;
        let many = |count: u32| (0..count).map(|i| IpAddr::from((0x0a00_0000 + i).to_be_bytes())).collect();
        let most = u32::try_from(ADDRESSES_MAX).unwrap();
        assert!(hosts.put("a", many(most), 0).await.is_ok());
        assert!(matches!(hosts.put("a", many(most + 1), 0).await, Err(HostError::TooMany)));
        assert!(matches!(hosts.put("A", BTreeSet::new(), 0).await, Err(HostError::Name(_))));
        hosts.table.send_modify(|table| {
            let table = Arc::make_mut(table);
            let record = table["a"].clone();
            table.extend((1..HOSTS_MAX).map(|i| (format!("h{i}"), record.clone())));
        });
        assert!(matches!(hosts.put("one-more", BTreeSet::new(), 0).await, Err(HostError::TooMany)));
        assert!(hosts.put("h1", BTreeSet::new(), 0).await.is_ok(), "one that is known may change");
    }
}
