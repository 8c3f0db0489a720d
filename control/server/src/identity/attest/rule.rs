//! Which proofs may become an identity: a record for each service account, made by the operator.
//!
//! As a grant says what a service account may say of itself, a rule says who may be that service account (ADR 0020).

use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::UnixMs;
use crate::identity::spiffe::is_label;
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which rules are kept.
pub const KIND: &str = "~AttestationRule";

/// Most entries of a list.
pub const ENTRIES_MAX: usize = 64;

/// Longest name of a role (IAM quotas).
const ROLE_BYTES_MAX: usize = 64;

/// A role of an AWS account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AwsRole {
    /// Twelve digits.
    pub account: String,
    /// Its name, without the path.
    pub role: String,
}

/// A service account of a Kubernetes cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KubernetesAccount {
    /// Name of the discovery source that is the cluster.
    pub cluster: String,
    /// Its namespace there.
    pub namespace: String,
    /// Its name.
    pub service_account: String,
}

/// Whom a proof showed its bearer to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Somebody with this role.
    Aws(AwsRole),
    /// A pod with this service account.
    Kubernetes(KubernetesAccount),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aws(role) => write!(f, "AWS role {} of account {}", role.role, role.account),
            Self::Kubernetes(account) => {
                write!(
                    f,
                    "service account {}/{} of cluster {}",
                    account.namespace, account.service_account, account.cluster
                )
            }
        }
    }
}

/// See the module.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Rule {
    /// Roles that may.
    pub aws: BTreeSet<AwsRole>,
    /// Service accounts that may.
    pub kubernetes: BTreeSet<KubernetesAccount>,
}

impl Rule {
    /// Whether this caller may have the identity.
    pub fn allows(&self, caller: &Caller) -> bool {
        match caller {
            Caller::Aws(role) => self.aws.contains(role),
            Caller::Kubernetes(account) => self.kubernetes.contains(account),
        }
    }

    /// What is wrong with it, in words.
    ///
    /// *Errors*: the first field that cannot be.
    pub fn check(&self) -> Result<(), String> {
        if self.aws.len() > ENTRIES_MAX || self.kubernetes.len() > ENTRIES_MAX {
            return Err(format!("at most {ENTRIES_MAX} roles and service accounts"));
        }
        for AwsRole { account, role } in &self.aws {
            if account.len() != 12 || !account.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("aws: account {account:?} is not twelve digits"));
            }
            if !is_role(role) {
                return Err(format!(
                    "aws: role {role:?} is not the name of a role (without its path, no ARN)"
                ));
            }
        }
        for account in &self.kubernetes {
            for text in [&account.cluster, &account.namespace, &account.service_account] {
                if !is_label(text) {
                    return Err(format!("kubernetes: {text:?} must be a DNS label"));
                }
            }
        }
        Ok(())
    }
}

/// Whether this can be the name of a role (IAM: `[\w+=,.@-]`).
pub fn is_role(text: &str) -> bool {
    (1..=ROLE_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

/// The rule of a service account; the empty one, which allows nobody, when it has none.
///
/// *Errors*: the store's.
pub async fn read(store: &SharedStore, namespace: &str, account: &str) -> Result<Rule, StoreError> {
    match store.get(key(namespace, account)).await? {
        None => Ok(Rule::default()),
        Some(record) => serde_json::from_value(record.value)
            .map_err(|_| StoreError::Corrupt { key: record.key.to_string() }),
    }
}

/// All rules: namespace, service account, rule.
///
/// *Errors*: the store's.
pub async fn list(store: &SharedStore) -> Result<Vec<(String, String, Rule)>, StoreError> {
    let records = store.list(Some(KIND.to_owned()), None).await?;
    let read = |record: crate::store::Record| {
        let rule = serde_json::from_value(record.value)
            .map_err(|_| StoreError::Corrupt { key: record.key.to_string() })?;
        Ok((record.key.namespace, record.key.name, rule))
    };
    records.into_iter().map(read).collect()
}

/// Replaces the rule of a service account; `None` removes it.
///
/// *Errors*: the store's.
pub async fn write(
    store: &SharedStore,
    namespace: &str,
    account: &str,
    rule: Option<&Rule>,
    now: UnixMs,
) -> Result<(), StoreError> {
    let key = key(namespace, account);
    let change = match rule {
        None => Change::Delete { key, expect: Expect::Any },
        Some(rule) => {
            let value = serde_json::to_value(rule).map_err(|error| StoreError::Backend(Box::new(error)))?;
            Change::Put { key, value, expect: Expect::Any }
        }
    };
    store.commit(vec![change], now).await.map(drop)
}

fn key(namespace: &str, account: &str) -> Key {
    Key::new(KIND, namespace, account)
}
