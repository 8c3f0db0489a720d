//! The registry: workloads that registered under a lease.
//!
//! Leases are kept in the store, so a restart of this service removes nobody: everybody found there gets
//! a grace period to be heard from again. A registration is on disk before it is answered. Heartbeats
//! are not written down, except when they change a workload's health.
//!
//! When *nobody* is heard of any more, it is this service that is cut off. Nobody is removed then, and
//! when somebody is heard again everybody gets the grace period: a network that comes back must not bring
//! proxies the news that all their endpoints are gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::lease::{self, Lease, LeaseError, LeaseTable};
use super::workload::{Health, Reach, Workload};
use crate::clock;
use crate::identity::{Claim, Identity, grant};
use crate::random::{self, NoRandomness};
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which leases are kept.
pub const KIND: &str = "~Lease";

/// How often expiry is tried again when the store fails.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Longest silence in which nobody is removed. After a day without a sign of anybody they are gone.
pub const SILENCE_MAX: Duration = Duration::from_secs(86_400);

/// What an operator chooses.
#[derive(Clone, Copy, Debug)]
pub struct RegistrySettings {
    /// How long a lease lasts without a heartbeat. Default 30 s.
    pub ttl: Duration,
    /// How long leases found at the start last without a heartbeat. Default 120 s: long enough for
    /// every proxy to reconnect with its longest back-off.
    pub grace: Duration,
    /// Which addresses workloads may have. Default: [`Reach::Network`].
    pub reach: Reach,
}

impl Default for RegistrySettings {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(30), grace: Duration::from_secs(120), reach: Reach::Network }
    }
}

/// Why a registration or heartbeat failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The workload says that it is somebody its certificate does not say it is.
    #[error("the certificate is for {identity}, the workload is {namespace}/{service_account}")]
    ForeignWorkload {
        /// What the certificate says.
        identity: Identity,
        /// What the announcement says.
        namespace: String,
        /// What the announcement says.
        service_account: String,
    },
    /// It says more of itself than its service account was granted.
    #[error(
        "{identity} may not say this of a workload: {}; grants are set with `outrigger token create`",
        .excess.join("; ")
    )]
    NotGranted {
        /// Whose workload.
        identity: Identity,
        /// What it may not say.
        excess: Vec<String>,
    },
    /// The table refused.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// No id could be made.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// Could not be written down.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A lease as it is kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    lease_id: String,
    identity: String,
    workload: Workload,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Health>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    seen: Option<Health>,
}

/// All workloads, shared: the list is replaced, never changed.
pub type Workloads = Arc<[Arc<Workload>]>;

/// See the module.
pub struct Registry {
    table: Mutex<LeaseTable>,
    /// Serialises what writes, so that the store and the table change in the same order.
    writing: tokio::sync::Mutex<()>,
    store: SharedStore,
    settings: RegistrySettings,
    workloads: watch::Sender<Workloads>,
    /// Wakes the expiry job when the next expiry may have come nearer.
    touched: tokio::sync::Notify,
    /// Tells the expiry job that somebody was heard of.
    heard: tokio::sync::Notify,
}

impl Registry {
    /// Reads the leases of the last run and gives each the grace period.
    ///
    /// *Errors*: the store's; [`StoreError::Corrupt`] for a lease that cannot be read.
    pub async fn open(store: SharedStore, settings: RegistrySettings) -> Result<Self, StoreError> {
        let mut table = LeaseTable::default();
        let now = Instant::now();
        let expires = lease::ends(now, settings.grace.max(settings.ttl));
        for record in store.list(Some(KIND.to_owned()), None).await? {
            let corrupt = || StoreError::Corrupt { key: record.key.to_string() };
            let kept: Kept = serde_json::from_value(record.value.clone()).map_err(|_| corrupt())?;
            let identity = Identity::parse(&kept.identity).map_err(|_| corrupt())?;
            let (workload, seen) = (kept.workload, kept.seen);
            let said = kept.said.unwrap_or(workload.health);
            table.insert(Lease { id: kept.lease_id, identity, workload, said, seen, expires }, now);
        }
        let workloads = watch::Sender::new(list(&table));
        let (table, writing) = (Mutex::new(table), tokio::sync::Mutex::default());
        Ok(Self {
            table,
            writing,
            store,
            settings,
            workloads,
            touched: tokio::sync::Notify::new(),
            heard: tokio::sync::Notify::new(),
        })
    }

    /// How long a lease lasts.
    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// Which addresses workloads may have.
    pub fn reach(&self) -> Reach {
        self.settings.reach
    }

    /// The workloads and their changes.
    pub fn workloads(&self) -> watch::Receiver<Workloads> {
        self.workloads.subscribe()
    }

    /// Gives a lease to a workload and returns its id.
    ///
    /// *Errors*: [`RegistryError`].
    pub async fn register(&self, identity: &Identity, workload: Workload) -> Result<String, RegistryError> {
        self.register_in(identity, workload, &BTreeMap::new()).await
    }

    /// As [`Registry::register`], for a workload that has these labels from its group: what the operator says of it needs
    /// no grant.
    ///
    /// *Errors*: [`RegistryError`].
    pub async fn register_in(
        &self,
        identity: &Identity,
        workload: Workload,
        vouched: &BTreeMap<String, String>,
    ) -> Result<String, RegistryError> {
        if workload.namespace != identity.namespace()
            || workload.service_account != identity.service_account()
        {
            return Err(RegistryError::ForeignWorkload {
                identity: identity.clone(),
                namespace: workload.namespace,
                service_account: workload.service_account,
            });
        }
        let grant = grant::read(&self.store, &workload.namespace, &workload.service_account).await?;
        let mut labels = workload.labels.clone();
        labels.retain(|key, value| vouched.get(key) != Some(value));
        let claim = Claim { service: &workload.service, labels: &labels, gateway: workload.gateway };
        let excess = grant.excess(claim);
        if !excess.is_empty() {
            return Err(RegistryError::NotGranted { identity: identity.clone(), excess });
        }
        let _writing = self.writing.lock().await;
        self.lock().check(identity, &workload)?;
        let id = random::hex::<16>()?;
        let now = Instant::now();
        let expires = lease::ends(now, self.settings.ttl);
        let said = workload.health;
        let seen = {
            let table = self.lock();
            let held = table.of_instance(identity, &workload.host, &workload.instance_id);
            held.ok().and_then(|held| held.seen)
        };
        let lease = Lease { id: id.clone(), identity: identity.clone(), workload, said, seen, expires };
        self.keep(&lease).await?;
        let workload = &lease.workload;
        tracing::info!(%identity, instance = workload.instance_id, address = %workload.address, "workload registered");
        self.lock().insert(lease, now);
        self.publish();
        self.touched.notify_one();
        self.heard.notify_one();
        Ok(id)
    }

    /// Notes a health that the host of an instance saw.
    ///
    /// *Errors*: as [`Registry::withdraw`], and [`LeaseError::Unknown`] when the instance is not there; the store's: the
    /// health counts all the same.
    pub async fn report(
        &self,
        identity: &Identity,
        host: &str,
        instance_id: &str,
        health: Health,
    ) -> Result<(), RegistryError> {
        let changed = self.lock().note_seen(identity, host, instance_id, health)?;
        if changed.is_some() {
            tracing::info!(%identity, instance = instance_id, ?health, "host says of its workload");
            self.publish();
            let _writing = self.writing.lock().await;
            let held = self.lock().of_instance(identity, host, instance_id).ok().cloned();
            if let Some(lease) = held {
                self.keep(&lease).await?;
            }
        }
        Ok(())
    }

    /// Renews a lease and notes the workload's health.
    ///
    /// *Errors*: [`LeaseError::Unknown`], [`LeaseError::NotYours`]; the store's when the health changed
    /// and could not be written down: it counts all the same.
    pub async fn heartbeat(
        &self,
        identity: &Identity,
        lease_id: &str,
        health: Option<Health>,
    ) -> Result<(), RegistryError> {
        let changed = {
            let mut table = self.lock();
            table.renew(lease_id, identity, Instant::now(), self.settings.ttl)?;
            health.is_some_and(|health| table.note_health(lease_id, health))
        };
        self.heard.notify_one();
        if changed {
            // Peers first: a draining instance must stop being chosen, whatever the disk does.
            self.publish();
            let _writing = self.writing.lock().await;
            let held = self.lock().find(lease_id, identity).cloned();
            if let Ok(lease) = held {
                self.keep(&lease).await?;
            }
        }
        Ok(())
    }

    /// Namespace and name of the WorkloadGroup that a lease's workload belongs to.
    pub fn group_of(&self, lease_id: &str) -> Option<(String, String)> {
        let table = self.lock();
        let workload = &table.by_id(lease_id)?.workload;
        (!workload.group.is_empty()).then(|| (workload.namespace.clone(), workload.group.clone()))
    }

    /// Ends a lease. One that is gone already is no error.
    ///
    /// *Errors*: [`LeaseError::NotYours`]; the store's: the workload is gone from the list all the same.
    pub async fn deregister(&self, identity: &Identity, lease_id: &str) -> Result<(), RegistryError> {
        match self.lock().find(lease_id, identity) {
            Err(LeaseError::Unknown) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => {}
        }
        self.drop_leases(&[lease_id.to_owned()], None, "workload deregistered").await?;
        Ok(())
    }

    /// Ends the lease of an instance of `identity`'s own namespace, whoever holds its id, for somebody on `host`. An
    /// instance that is not there is no error.
    ///
    /// *Errors*: [`LeaseError::NotYours`] when the instance is another identity's, or another host's; the store's.
    pub async fn withdraw(
        &self,
        identity: &Identity,
        host: &str,
        instance_id: &str,
    ) -> Result<(), RegistryError> {
        let id = match self.lock().of_instance(identity, host, instance_id) {
            Err(LeaseError::Unknown) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(lease) => lease.id.clone(),
        };
        self.drop_leases(&[id], None, "workload withdrawn by its host").await?;
        Ok(())
    }

    /// Ends every lease that was given to a host; returns how many.
    ///
    /// *Errors*: the store's: the workloads are gone from the list all the same.
    pub async fn withdraw_host(&self, host: &str) -> Result<usize, StoreError> {
        let meant = |lease: &&Lease| lease.workload.host == host;
        let ids: Vec<String> = self.lock().iter().filter(meant).map(|lease| lease.id.clone()).collect();
        self.drop_leases(&ids, None, "workload's host was revoked").await?;
        Ok(ids.len())
    }

    /// Ends leases as their time comes, for ever.
    pub async fn expire(&self) {
        loop {
            let next = self.lock().next_expiry();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = sleep => {}
                () = self.touched.notified() => continue,
            }
            let now = Instant::now();
            let (silent, expired) = {
                let table = self.lock();
                (table.is_silent(now, self.settings.ttl), table.expired(now))
            };
            if silent && !expired.is_empty() {
                self.outlast_silence().await;
                continue;
            }
            if let Err(error) = self.drop_leases(&expired, Some(now), "workload's lease expired").await {
                tracing::error!(%error, "expired leases not removed from the store");
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }

    /// Keeps everybody until somebody is heard of, and for the grace period after that.
    async fn outlast_silence(&self) {
        let leases = self.lock().len();
        tracing::warn!(leases, "nobody is heard of any more: cut off, everybody is kept");
        let heard = async {
            while self.lock().is_silent(Instant::now(), self.settings.ttl) {
                self.heard.notified().await;
            }
        };
        if tokio::time::timeout(SILENCE_MAX, heard).await.is_ok() {
            let expires = lease::ends(Instant::now(), self.settings.grace);
            self.lock().extend_all(expires);
            tracing::info!("somebody is heard of again");
        } else {
            // All of them are gone; what is left of the table is one lease's worth of patience.
            let expired = self.lock().expired(Instant::now());
            if let Err(error) = self.drop_leases(&expired, None, "workload was silent for too long").await {
                tracing::error!(%error, "expired leases not removed from the store");
            }
        }
    }

    /// Takes leases out of the list, then out of the store. One that was replaced meanwhile stays, and so
    /// does one that was renewed when only those that had ended at `ended_at` are meant.
    async fn drop_leases(
        &self,
        ids: &[String],
        ended_at: Option<Instant>,
        why: &str,
    ) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        let gone: Vec<Lease> = {
            let mut table = self.lock();
            let ended: Vec<String> = ended_at.map(|at| table.expired(at)).unwrap_or_default();
            let meant = |id: &&String| ended_at.is_none() || ended.contains(id);
            ids.iter().filter(meant).filter_map(|id| table.remove(id)).collect()
        };
        if gone.is_empty() {
            return Ok(());
        }
        self.publish();
        let mut changes = Vec::with_capacity(gone.len());
        for lease in &gone {
            let workload = &lease.workload;
            tracing::info!(identity = %lease.identity, instance = workload.instance_id, "{why}");
            changes.push(Change::Delete { key: store_key(workload), expect: Expect::Any });
        }
        for part in changes.chunks(crate::store::CHANGES_MAX) {
            self.store.commit(part.to_vec(), clock::unix_ms()).await?;
        }
        Ok(())
    }

    async fn keep(&self, lease: &Lease) -> Result<(), StoreError> {
        let workload = &lease.workload;
        let kept = Kept {
            lease_id: lease.id.clone(),
            identity: lease.identity.to_string(),
            workload: workload.clone(),
            said: Some(lease.said),
            seen: lease.seen,
        };
        let value = serde_json::to_value(&kept).map_err(|error| StoreError::Backend(Box::new(error)))?;
        let change = Change::Put { key: store_key(workload), value, expect: Expect::Any };
        self.store.commit(vec![change], clock::unix_ms()).await.map(drop)
    }

    fn publish(&self) {
        let table = self.lock();
        self.workloads.send_replace(list(&table));
    }

    fn lock(&self) -> MutexGuard<'_, LeaseTable> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn list(table: &LeaseTable) -> Workloads {
    table.iter().map(|lease| Arc::new(lease.workload.clone())).collect()
}

fn store_key(workload: &Workload) -> Key {
    Key::new(KIND, &workload.namespace, &workload.instance_id)
}

#[cfg(test)]
#[path = "register_tests.rs"]
mod tests;
