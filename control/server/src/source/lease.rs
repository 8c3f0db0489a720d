//! The table of leases: who is registered, and until when without a sign of life.
//!
//! Pure: times are arguments, and it only says what is to be done. A lease is known by an id that only
//! its holder has, and by the instance it stands for; registering the same instance again replaces the
//! lease, so an application that restarted is never there twice.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::workload::{Health, Workload};
use crate::identity::Identity;

/// Most leases. Each costs about a kilobyte here and an endpoint in every proxy that may see it.
pub const LEASES_MAX: usize = 50_000;

/// One lease.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Known to its holder only.
    pub id: String,
    /// Who holds it.
    pub identity: Identity,
    /// What it stands for. Its health is the worse of the next two.
    pub workload: Workload,
    /// Its health as its proxy says.
    pub said: Health,
    /// Its health as its host says; `None`: it does not.
    pub seen: Option<Health>,
    /// When it ends without a heartbeat.
    pub expires: Instant,
}

impl Lease {
    /// Makes the workload's health what is known of it; returns whether that is another one.
    fn settle(&mut self) -> bool {
        let health = match (self.said, self.seen) {
            (Health::Draining, _) | (_, Some(Health::Draining)) => Health::Draining,
            (Health::Unhealthy, _) | (_, Some(Health::Unhealthy)) => Health::Unhealthy,
            (Health::Healthy, Some(Health::Healthy) | None) => Health::Healthy,
        };
        std::mem::replace(&mut self.workload.health, health) != health
    }
}

/// Namespace and instance id.
pub type InstanceKey = (String, String);

/// Why a lease was not given or renewed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LeaseError {
    /// [`LEASES_MAX`] reached.
    #[error("{LEASES_MAX} workloads are registered, which is the limit")]
    Full,
    /// Another identity holds the lease, or this instance's lease.
    #[error("the lease belongs to another identity")]
    NotYours,
    /// There is no such lease (any more).
    #[error("no such lease")]
    Unknown,
}

/// See the module.
#[derive(Default)]
pub struct LeaseTable {
    by_instance: BTreeMap<InstanceKey, Lease>,
    by_id: HashMap<String, InstanceKey>,
    /// When anybody was heard of last: a registration or a heartbeat.
    heard: Option<Instant>,
}

impl LeaseTable {
    /// Whether `identity` may register this instance.
    ///
    /// *Errors*: [`LeaseError::Full`]; [`LeaseError::NotYours`] while another identity, or another host, holds it.
    pub fn check(&self, identity: &Identity, workload: &Workload) -> Result<(), LeaseError> {
        match self.by_instance.get(&key_of(workload)) {
            Some(held) if held.identity != *identity || is_elsewhere(held, &workload.host) => {
                Err(LeaseError::NotYours)
            }
            Some(_) => Ok(()),
            None if self.by_instance.len() >= LEASES_MAX => Err(LeaseError::Full),
            None => Ok(()),
        }
    }

    /// Enters a lease, in place of an earlier one for the same instance; its holder was heard of at `now`.
    pub fn insert(&mut self, mut lease: Lease, now: Instant) {
        self.heard = Some(now);
        let key = key_of(&lease.workload);
        if let Some(old) = self.by_instance.get(&key) {
            self.by_id.remove(&old.id);
            // What the host saw does not change because the proxy registered again.
            lease.seen = lease.seen.or(old.seen);
        }
        lease.settle();
        self.by_id.insert(lease.id.clone(), key.clone());
        self.by_instance.insert(key, lease);
    }

    /// Renews a lease whose holder was heard of at `now`.
    ///
    /// *Errors*: [`LeaseError::Unknown`], [`LeaseError::NotYours`].
    pub fn renew(
        &mut self,
        id: &str,
        identity: &Identity,
        now: Instant,
        ttl: Duration,
    ) -> Result<&Lease, LeaseError> {
        let key = self.by_id.get(id).ok_or(LeaseError::Unknown)?;
        let lease = self.by_instance.get_mut(key).ok_or(LeaseError::Unknown)?;
        if lease.identity != *identity {
            return Err(LeaseError::NotYours);
        }
        lease.expires = lease.expires.max(ends(now, ttl));
        self.heard = Some(now);
        Ok(lease)
    }

    /// Notes a health. Returns whether it is another one than before.
    pub fn note_health(&mut self, id: &str, health: Health) -> bool {
        let lease = self.by_id.get(id).and_then(|key| self.by_instance.get_mut(key));
        lease.is_some_and(|lease| {
            lease.said = health;
            lease.settle()
        })
    }

    /// Notes a health that the host of an instance saw. Returns the lease, if the health is another one than before.
    ///
    /// *Errors*: as [`LeaseTable::of_instance`].
    pub fn note_seen(
        &mut self,
        identity: &Identity,
        host: &str,
        instance_id: &str,
        health: Health,
    ) -> Result<Option<Lease>, LeaseError> {
        let id = self.of_instance(identity, host, instance_id)?.id.clone();
        let lease = self.by_id.get(&id).and_then(|key| self.by_instance.get_mut(key));
        let lease = lease.ok_or(LeaseError::Unknown)?;
        lease.seen = Some(health);
        Ok(lease.settle().then(|| lease.clone()))
    }

    /// A lease by its id, whosoever it is.
    pub fn by_id(&self, id: &str) -> Option<&Lease> {
        self.by_id.get(id).and_then(|key| self.by_instance.get(key))
    }

    /// A lease by its id.
    ///
    /// *Errors*: [`LeaseError::Unknown`], [`LeaseError::NotYours`].
    pub fn find(&self, id: &str, identity: &Identity) -> Result<&Lease, LeaseError> {
        let key = self.by_id.get(id).ok_or(LeaseError::Unknown)?;
        let lease = self.by_instance.get(key).ok_or(LeaseError::Unknown)?;
        if lease.identity == *identity { Ok(lease) } else { Err(LeaseError::NotYours) }
    }

    /// The lease of an instance in `identity`'s namespace, for somebody on `host`.
    ///
    /// *Errors*: [`LeaseError::Unknown`], [`LeaseError::NotYours`].
    pub fn of_instance(
        &self,
        identity: &Identity,
        host: &str,
        instance_id: &str,
    ) -> Result<&Lease, LeaseError> {
        let key = (identity.namespace().to_owned(), instance_id.to_owned());
        let lease = self.by_instance.get(&key).ok_or(LeaseError::Unknown)?;
        let ours = lease.identity == *identity && !is_elsewhere(lease, host);
        if ours { Ok(lease) } else { Err(LeaseError::NotYours) }
    }

    /// Takes a lease out, if it still has this id.
    pub fn remove(&mut self, id: &str) -> Option<Lease> {
        let key = self.by_id.remove(id)?;
        self.by_instance.remove(&key)
    }

    /// Ids of the leases that have ended.
    pub fn expired(&self, now: Instant) -> Vec<String> {
        self.by_instance.values().filter(|lease| lease.expires <= now).map(|lease| lease.id.clone()).collect()
    }

    /// Whether nobody at all has been heard of for `silence`, although there are several who should be.
    /// Then it is rather we who are cut off than all of them who are gone.
    pub fn is_silent(&self, now: Instant, silence: Duration) -> bool {
        self.by_instance.len() > 1 && self.heard.is_none_or(|heard| ends(heard, silence) <= now)
    }

    /// Lets no lease end before `expires`.
    pub fn extend_all(&mut self, expires: Instant) {
        for lease in self.by_instance.values_mut() {
            lease.expires = lease.expires.max(expires);
        }
    }

    /// When the next lease ends.
    pub fn next_expiry(&self) -> Option<Instant> {
        self.by_instance.values().map(|lease| lease.expires).min()
    }

    /// All leases, by namespace and instance.
    pub fn iter(&self) -> impl Iterator<Item = &Lease> {
        self.by_instance.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_instance.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_instance.is_empty()
    }
}

/// Whether a lease was given to another host. A certificate that is bound to no host tells nothing.
fn is_elsewhere(lease: &Lease, host: &str) -> bool {
    !lease.workload.host.is_empty() && !host.is_empty() && lease.workload.host != host
}

/// What a lease is for.
pub fn key_of(workload: &Workload) -> InstanceKey {
    (workload.namespace.clone(), workload.instance_id.clone())
}

/// The end of a lease of length `ttl` that begins now.
pub fn ends(now: Instant, ttl: Duration) -> Instant {
    now.checked_add(ttl).unwrap_or(now)
}
