//! What a service account may say of its workloads.
//!
//! A certificate proves namespace and service account; service name, labels and "I am a gateway" are what a workload says
//! of itself. A grant, made by the operator, bounds that: one compromised workload can then not take another service's
//! traffic, nor be selected by a Gateway and be sent its certificate and key.
//!
//! Without a grant of its own a service account may be the service of its own name, and no gateway.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::spiffe::is_label;
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which grants are kept.
pub const KIND: &str = "~Grant";

/// Most services, labels, and values of one label.
pub const ENTRIES_MAX: usize = 64;

/// Stands for every service of the namespace.
pub const ANY_SERVICE: &str = "*";

/// Longest label key (Kubernetes: 253 for the prefix, a slash, 63) and value, bytes.
const KEY_BYTES_MAX: usize = 317;
const VALUE_BYTES_MAX: usize = 63;

/// See the module.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Services its workloads may be instances of; [`ANY_SERVICE`]: all of the namespace. The label `app` may have
    /// these values too.
    pub services: BTreeSet<String>,
    /// Labels beyond `app` and `version`, with the values they may have. No value listed: any.
    pub labels: BTreeMap<String, BTreeSet<String>>,
    /// Whether its proxies may be gateways.
    pub gateway: bool,
}

/// Why a grant cannot be made.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrantError {
    /// Too many of something.
    #[error("at most {ENTRIES_MAX} services, labels, and values of a label can be granted")]
    TooMany,
    /// Not a service.
    #[error("service {0:?} is neither a DNS label nor \"*\"")]
    Service(String),
    /// Not a label.
    #[error("label {0:?}: a key has 1 to {KEY_BYTES_MAX} bytes and a value at most {VALUE_BYTES_MAX}")]
    Label(String),
}

/// What a workload, or a proxy without one, says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// Empty: none.
    pub service: &'a str,
    /// All labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Whether it is a gateway.
    pub gateway: bool,
}

impl Grant {
    /// What a service account may without a grant of its own.
    pub fn default_for(service_account: &str) -> Self {
        Self { services: [service_account.to_owned()].into(), ..Self::default() }
    }

    /// Everything that a claim has and this does not allow, in words for the one who made the claim.
    pub fn excess(&self, claim: Claim<'_>) -> Vec<String> {
        let mut excess = Vec::new();
        if !claim.service.is_empty() && !self.allows_service(claim.service) {
            let allowed: Vec<&str> = self.services.iter().map(String::as_str).collect();
            let allowed = if allowed.is_empty() { "none".to_owned() } else { allowed.join(", ") };
            excess.push(format!("service {:?} is not granted (granted: {allowed})", claim.service));
        }
        for (key, value) in claim.labels {
            if !self.allows_label(key, value) {
                excess.push(format!("label {key:?} with the value {value:?} is not granted"));
            }
        }
        if claim.gateway && !self.gateway {
            excess.push("being a gateway is not granted".to_owned());
        }
        excess
    }

    fn allows_service(&self, service: &str) -> bool {
        self.services.contains(service) || self.services.contains(ANY_SERVICE)
    }

    fn allows_label(&self, key: &str, value: &str) -> bool {
        let listed = self.labels.get(key).is_some_and(|values| values.is_empty() || values.contains(value));
        // A version tells apart instances of one service, which have the same identity or were granted the same name.
        listed || key == "version" || (key == "app" && self.allows_service(value))
    }

    fn check(&self) -> Result<(), GrantError> {
        let most = self.labels.values().map(BTreeSet::len).chain([self.services.len(), self.labels.len()]);
        if most.max().unwrap_or(0) > ENTRIES_MAX {
            return Err(GrantError::TooMany);
        }
        if let Some(bad) = self.services.iter().find(|name| !is_label(name) && *name != ANY_SERVICE) {
            return Err(GrantError::Service(bad.clone()));
        }
        let fits = |(key, values): &(&String, &BTreeSet<String>)| {
            !key.is_empty()
                && key.len() <= KEY_BYTES_MAX
                && values.iter().all(|value| value.len() <= VALUE_BYTES_MAX)
        };
        match self.labels.iter().find(|entry| !fits(entry)) {
            Some((key, _)) => Err(GrantError::Label(key.chars().take(KEY_BYTES_MAX).collect())),
            None => Ok(()),
        }
    }
}

/// The change that makes a grant the one of a service account.
///
/// *Errors*: [`GrantError`].
pub fn change(namespace: &str, service_account: &str, grant: &Grant) -> Result<Change, GrantError> {
    grant.check()?;
    let value = serde_json::json!({
        "services": grant.services, "labels": grant.labels, "gateway": grant.gateway,
    });
    Ok(Change::Put { key: Key::new(KIND, namespace, service_account), value, expect: Expect::Any })
}

/// What a service account may.
///
/// *Errors*: the store's; [`StoreError::Corrupt`] for a grant that cannot be read: then nothing is granted.
pub async fn read(store: &SharedStore, namespace: &str, service_account: &str) -> Result<Grant, StoreError> {
    let key = Key::new(KIND, namespace, service_account);
    match store.get(key.clone()).await? {
        None => Ok(Grant::default_for(service_account)),
        Some(record) => {
            serde_json::from_value(record.value).map_err(|_| StoreError::Corrupt { key: key.to_string() })
        }
    }
}

/// All grants that were made: namespace, service account, grant.
///
/// *Errors*: as [`read`].
pub async fn list(store: &SharedStore) -> Result<Vec<(String, String, Grant)>, StoreError> {
    let records = store.list(Some(KIND.to_owned()), None).await?;
    let grant = |record: crate::store::Record| {
        let corrupt = StoreError::Corrupt { key: record.key.to_string() };
        let grant = serde_json::from_value(record.value).map_err(|_| corrupt)?;
        Ok((record.key.namespace, record.key.name, grant))
    };
    records.into_iter().map(grant).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn excess(grant: &Grant, service: &str, pairs: &[(&str, &str)], gateway: bool) -> usize {
        grant.excess(Claim { service, labels: &labels(pairs), gateway }).len()
    }

    #[test]
    fn service_account_without_a_grant_is_its_own_service_and_no_gateway() {
        let grant = Grant::default_for("cart");
        assert_eq!(excess(&grant, "cart", &[("app", "cart"), ("version", "v7")], false), 0);
        assert_eq!(excess(&grant, "", &[], false), 0);
        assert_eq!(excess(&grant, "payment", &[("app", "payment")], false), 2);
        assert_eq!(excess(&grant, "cart", &[("app", "gateway"), ("tier", "db")], true), 3);
    }

    #[test]
    fn what_is_granted_may_be_said_and_nothing_else() {
        let grant = Grant {
            services: ["cart".to_owned(), "basket".to_owned()].into(),
            labels: [
                ("istio".to_owned(), ["ingressgateway".to_owned()].into()),
                ("track".to_owned(), BTreeSet::new()),
            ]
            .into(),
            gateway: true,
        };
        let ours = [("istio", "ingressgateway"), ("track", "anything"), ("app", "basket")];
        assert_eq!(excess(&grant, "basket", &ours, true), 0);
        assert_eq!(excess(&grant, "basket", &[("istio", "egressgateway")], true), 1);
        assert_eq!(excess(&grant, "*", &[], false), 1, "a star is no service");
        let any = Grant { services: [ANY_SERVICE.to_owned()].into(), ..Grant::default() };
        assert_eq!(excess(&any, "payment", &[("app", "payment")], false), 0);
    }

    #[test]
    fn grant_passes_at_its_limits_and_not_one_past_them() {
        let names = |count: usize| (0..count).map(|i| format!("s{i}")).collect::<BTreeSet<String>>();
        let values = BTreeMap::from([("k".repeat(KEY_BYTES_MAX), ["v".repeat(VALUE_BYTES_MAX)].into())]);
        let at = Grant { services: names(ENTRIES_MAX), labels: values, gateway: false };
        assert_eq!(at.check(), Ok(()));
        let over = Grant { services: names(ENTRIES_MAX + 1), ..Grant::default() };
        assert_eq!(over.check(), Err(GrantError::TooMany));
        for (key, value) in [
            (String::new(), String::new()),
            ("k".repeat(KEY_BYTES_MAX + 1), String::new()),
            ("k".to_owned(), "v".repeat(VALUE_BYTES_MAX + 1)),
        ] {
            let bad = Grant { labels: BTreeMap::from([(key, [value].into())]), ..Grant::default() };
            assert!(matches!(bad.check(), Err(GrantError::Label(_))));
        }
        let bad = Grant { services: ["Not A Label".to_owned()].into(), ..Grant::default() };
        assert!(matches!(bad.check(), Err(GrantError::Service(_))));
    }
}
