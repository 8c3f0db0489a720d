//! Join tokens: how a host that has no certificate yet proves that it may have one.
//!
//! A token reads `ojt_ID_SECRET`. Kept are its id and the SHA-256 of the secret: 256 random bits need no
//! slow hash. A token gives exactly one identity, a number of times, until it expires. What that identity may
//! then say of itself is its [`Grant`], which may be set together with a token.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::grant::{self, Grant, GrantError};
use super::host::HostMark;
use super::spiffe::{Identity, IdentityError};
use crate::clock::UnixMs;
use crate::random::{self, NoRandomness};
use crate::store::{Change, Expect, Key, Record, SharedStore, Store, StoreError};

/// Kind under which tokens are kept.
pub const KIND: &str = "~JoinToken";

/// Longest token looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Most uses one token can be given.
pub const USES_MAX: u32 = 100_000;

/// How many dead tokens are removed in one commit: fewer than it may change, and few enough that nobody who joins
/// waits long for it.
const SWEEP_AT_ONCE: usize = 256;

/// What is kept of a token.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Public part.
    pub id: String,
    /// SHA-256 of the secret part, hexadecimal.
    pub secret_sha256: String,
    /// Whom it makes of its bearer.
    pub namespace: String,
    /// Whom it makes of its bearer.
    pub service_account: String,
    /// How many times it can still be used.
    pub uses_left: u32,
    /// From when on it cannot be used.
    pub expires_at: UnixMs,
    /// The host it is for; its mark goes into the certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostMark>,
}

/// Why a token was refused. The bearer is told only that it was; the reason goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Not a token, or none we know, or its secret is wrong.
    #[error("the join token is not valid")]
    Unknown,
    /// Too late.
    #[error("the join token has expired")]
    Expired,
    /// Used as often as it may be.
    #[error("the join token has been used up")]
    UsedUp,
    /// The limits of a token to be made.
    #[error("a join token has 1 to {USES_MAX} uses")]
    Uses,
    /// The grant of a token to be made.
    #[error(transparent)]
    Grant(#[from] GrantError),
    /// The identity of a token to be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a token is made for.
#[derive(Clone, Default, Debug)]
pub struct Purpose<'a> {
    /// When given, replaces the grant of the identity.
    pub grant: Option<&'a Grant>,
    /// The host that is to join with it.
    pub host: Option<HostMark>,
}

/// What a token gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Joined {
    /// Who its bearer is.
    pub identity: Identity,
    /// The host it was for.
    pub host: Option<HostMark>,
}

/// The tokens of a store. What changes one of them runs under one lock, so that any number of hosts may use the same
/// token at the same time: nobody finds it changed between looking and writing.
#[derive(Clone)]
pub struct JoinTokens {
    store: SharedStore,
    changing: Arc<Mutex<()>>,
}

impl JoinTokens {
    /// Of a store that nobody else changes the tokens of.
    pub fn new(store: SharedStore) -> Self {
        Self { store, changing: Arc::default() }
    }

    /// Makes a token and returns it. It cannot be shown again.
    ///
    /// *Errors*: [`JoinError::Uses`], [`JoinError::Grant`], [`JoinError::Random`], [`JoinError::Store`].
    pub async fn create(
        &self,
        identity: &Identity,
        uses: u32,
        expires_at: UnixMs,
        purpose: Purpose<'_>,
        now: UnixMs,
    ) -> Result<(String, JoinToken), JoinError> {
        if !(1..=USES_MAX).contains(&uses) {
            return Err(JoinError::Uses);
        }
        let (id, secret) = (random::hex::<8>()?, random::hex::<32>()?);
        let token = JoinToken {
            id: id.clone(),
            secret_sha256: random::to_hex(&Sha256::digest(secret.as_bytes())),
            namespace: identity.namespace().to_owned(),
            service_account: identity.service_account().to_owned(),
            uses_left: uses,
            expires_at,
            host: purpose.host,
        };
        let mut changes = vec![Change::Put { key: key(&id), value: value(&token)?, expect: Expect::Absent }];
        if let Some(grant) = purpose.grant {
            changes.push(grant::change(identity.namespace(), identity.service_account(), grant)?);
        }
        self.store.commit(changes, now).await?;
        Ok((format!("ojt_{id}_{secret}"), token))
    }

    /// All tokens.
    ///
    /// *Errors*: the store's.
    pub async fn list(&self) -> Result<Vec<JoinToken>, StoreError> {
        let records = self.store.list(Some(KIND.to_owned()), None).await?;
        Ok(records.into_iter().filter_map(|record| serde_json::from_value(record.value).ok()).collect())
    }

    /// Uses a token once and returns what it gives.
    ///
    /// Any number of bearers may come at once; as many win as there are uses left. *Cancel safety*: a use that has
    /// begun goes on when the caller leaves.
    ///
    /// *Errors*: [`JoinError`]; nothing is used up then.
    pub async fn redeem(&self, trust_domain: &str, text: &str, now: UnixMs) -> Result<Joined, JoinError> {
        let (id, secret) = split(text).ok_or(JoinError::Unknown)?;
        let offered = random::to_hex(&Sha256::digest(secret.as_bytes()));
        // Looked at before the lock is taken: who knows no secret makes nobody wait.
        let held = self.store.get(key(id)).await?;
        checked(held, &offered)?;
        let (id, trust_domain) = (id.to_owned(), trust_domain.to_owned());
        self.alone(move |store| {
            let (version, mut token) = checked(store.get(&key(&id))?, &offered)?;
            if token.expires_at <= now {
                return Err(JoinError::Expired);
            }
            token.uses_left = token.uses_left.checked_sub(1).ok_or(JoinError::UsedUp)?;
            let identity = Identity::new(&trust_domain, &token.namespace, &token.service_account)?;
            let expect = Expect::Version(version);
            store.commit(&[Change::Put { key: key(&id), value: value(&token)?, expect }], now)?;
            Ok(Joined { identity, host: token.host })
        })
        .await
    }

    /// Withdraws all tokens that were made for a host; returns how many.
    ///
    /// *Errors*: the store's.
    pub async fn withdraw_host(&self, host: &str, now: UnixMs) -> Result<usize, JoinError> {
        let tokens = self.list().await?;
        let meant = |token: &&JoinToken| token.host.as_ref().is_some_and(|mark| mark.name == host);
        let mut count = 0;
        for token in tokens.iter().filter(meant) {
            count += usize::from(self.withdraw(&token.id, now).await?);
        }
        Ok(count)
    }

    /// Withdraws a token. Returns whether there was one.
    ///
    /// *Errors*: the store's.
    pub async fn withdraw(&self, id: &str, now: UnixMs) -> Result<bool, JoinError> {
        let key = key(id);
        self.alone(move |store| {
            let known = store.get(&key)?.is_some();
            store.commit(&[Change::Delete { key, expect: Expect::Any }], now)?;
            Ok(known)
        })
        .await
    }

    /// Removes tokens that can no longer be used; returns how many.
    ///
    /// *Errors*: the store's.
    pub async fn sweep(&self, now: UnixMs) -> Result<usize, JoinError> {
        let records = self.store.list(Some(KIND.to_owned()), None).await?;
        let dead: Vec<Change> = records
            .into_iter()
            .filter(|record| {
                serde_json::from_value::<JoinToken>(record.value.clone())
                    .map_or(true, |token| token.expires_at <= now || token.uses_left == 0)
            })
            // A dead token stays dead, so it does not matter when it was looked at.
            .map(|record| Change::Delete { expect: Expect::Any, key: record.key })
            .collect();
        for part in dead.chunks(SWEEP_AT_ONCE) {
            let part = part.to_vec();
            self.alone(move |store| Ok(store.commit(&part, now).map(drop)?)).await?;
        }
        Ok(dead.len())
    }

    /// Runs work under the lock, where it may block, to its end.
    async fn alone<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Store) -> Result<T, JoinError> + Send + 'static,
    ) -> Result<T, JoinError> {
        let (store, changing) = (self.store.clone(), Arc::clone(&self.changing));
        let done = tokio::task::spawn_blocking(move || {
            let _alone = changing.lock().unwrap_or_else(PoisonError::into_inner);
            work(store.blocking())
        });
        done.await.unwrap_or_else(|error| Err(StoreError::Backend(Box::new(error)).into()))
    }
}

/// The token of a record and its version, if `offered` is the hash of its secret. The comparison is made without a
/// record too, so that both take the same time.
fn checked(record: Option<Record>, offered: &str) -> Result<(u64, JoinToken), JoinError> {
    let (version, token) = match record {
        Some(record) => match serde_json::from_value::<JoinToken>(record.value) {
            Ok(token) => (record.resource_version, Some(token)),
            Err(_) => return Err(StoreError::Corrupt { key: record.key.to_string() }.into()),
        },
        None => (0, None),
    };
    let kept = token.as_ref().map_or_else(|| "0".repeat(64), |token| token.secret_sha256.clone());
    let same = bool::from(kept.as_bytes().ct_eq(offered.as_bytes()));
    token.filter(|_| same).map(|token| (version, token)).ok_or(JoinError::Unknown)
}

fn value(token: &JoinToken) -> Result<serde_json::Value, StoreError> {
    serde_json::to_value(token).map_err(|error| StoreError::Backend(Box::new(error)))
}

fn key(id: &str) -> Key {
    Key::new(KIND, "", id)
}

fn split(text: &str) -> Option<(&str, &str)> {
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let (id, secret) = text.trim().strip_prefix("ojt_")?.split_once('_')?;
    let is_hex = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_hexdigit());
    (is_hex(id) && is_hex(secret)).then_some((id, secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    const DOMAIN: &str = "cluster.local";

    fn tokens() -> JoinTokens {
        JoinTokens::new(SharedStore::new(MemoryStore::default()))
    }

    fn identity() -> Identity {
        Identity::new(DOMAIN, "shop", "cart").unwrap()
    }

    #[tokio::test]
    async fn counted_token_gives_its_identity_that_many_times() {
        let tokens = tokens();
        let (token, kept) = tokens.create(&identity(), 2, 1_000, Purpose::default(), 0).await.unwrap();
        let on_disk = serde_json::to_string(&kept).unwrap();
        assert!(!on_disk.contains(token.rsplit('_').next().unwrap()), "the secret is not kept");
        for _ in 0..2 {
            assert_eq!(tokens.redeem(DOMAIN, &token, 999).await.unwrap().identity, identity());
        }
        assert!(matches!(tokens.redeem(DOMAIN, &token, 999).await, Err(JoinError::UsedUp)));
    }

    #[tokio::test]
    async fn expired_and_wrong_tokens_are_refused_and_use_nothing_up() {
        let tokens = tokens();
        let (token, _) = tokens.create(&identity(), 1, 1_000, Purpose::default(), 0).await.unwrap();
        assert!(matches!(tokens.redeem(DOMAIN, &token, 1_000).await, Err(JoinError::Expired)));
        let mut wrong = token.clone();
        let last = if wrong.pop() == Some('0') { '1' } else { '0' };
        wrong.push(last);
        for text in [wrong.as_str(), "", "ojt_", "ojt_00_", "ojt_0011223344556677_ff", &"x".repeat(300)] {
            assert!(matches!(tokens.redeem(DOMAIN, text, 0).await, Err(JoinError::Unknown)), "{text}");
        }
        tokens.redeem(DOMAIN, &token, 999).await.unwrap();
    }

    #[tokio::test]
    async fn counted_token_offered_by_a_hundred_at_once_is_good_for_exactly_its_uses() {
        for uses in [1, 60, 100] {
            let tokens = tokens();
            let (token, kept) = tokens.create(&identity(), uses, 1_000, Purpose::default(), 0).await.unwrap();
            let mut jobs = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (tokens, token) = (tokens.clone(), token.clone());
                jobs.spawn(async move { tokens.redeem(DOMAIN, &token, 0).await });
            }
            // Sweeping meanwhile takes nothing away from anybody.
            tokens.sweep(0).await.unwrap();
            let (mut won, mut lost) = (0, 0);
            for outcome in jobs.join_all().await {
                match outcome {
                    Ok(_) => won += 1,
                    // Unknown: swept after its last use.
                    Err(JoinError::UsedUp | JoinError::Unknown) => lost += 1,
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!((won, lost), (uses, 100 - uses), "token {}", kept.id);
        }
    }

    #[tokio::test]
    async fn grant_given_with_a_token_is_the_identitys_and_one_without_leaves_it() {
        let tokens = tokens();
        let held = || grant::read(&tokens.store, "shop", "cart");
        assert_eq!(held().await.unwrap(), Grant::default_for("cart"));
        let grant = Grant { gateway: true, ..Grant::default_for("cart") };
        tokens.create(&identity(), 1, 10, Purpose { grant: Some(&grant), host: None }, 0).await.unwrap();
        tokens.create(&identity(), 1, 10, Purpose::default(), 0).await.unwrap();
        assert_eq!(held().await.unwrap(), grant);
        let bad = Grant { services: ["not a label".to_owned()].into(), ..grant.clone() };
        let refused = tokens.create(&identity(), 1, 10, Purpose { grant: Some(&bad), host: None }, 0).await;
        assert!(matches!(refused, Err(JoinError::Grant(_))));
        assert_eq!(held().await.unwrap(), grant);
    }

    #[tokio::test]
    async fn withdrawn_token_is_good_for_nothing() {
        let tokens = tokens();
        let (token, kept) = tokens.create(&identity(), 5, 1_000, Purpose::default(), 0).await.unwrap();
        assert!(tokens.withdraw(&kept.id, 0).await.unwrap());
        assert!(!tokens.withdraw(&kept.id, 0).await.unwrap());
        assert!(matches!(tokens.redeem(DOMAIN, &token, 0).await, Err(JoinError::Unknown)));
    }

    #[tokio::test]
    async fn dead_tokens_are_swept() {
        let tokens = tokens();
        tokens.create(&identity(), 1, 10, Purpose::default(), 0).await.unwrap();
        tokens.create(&identity(), 1, 1_000, Purpose::default(), 0).await.unwrap();
        assert_eq!(tokens.sweep(10).await.unwrap(), 1);
        assert_eq!(tokens.sweep(10).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn more_dead_tokens_than_one_commit_may_change_are_swept() {
        let tokens = tokens();
        let count = crate::store::CHANGES_MAX + 1;
        let put = |i: usize| Change::Put {
            key: key(&i.to_string()),
            value: serde_json::json!("no token"),
            expect: Expect::Any,
        };
        let all: Vec<Change> = (0..count).map(put).collect();
        for part in all.chunks(crate::store::CHANGES_MAX) {
            tokens.store.commit(part.to_vec(), 0).await.unwrap();
        }
        assert_eq!(tokens.sweep(10).await.unwrap(), count);
    }

    #[tokio::test]
    async fn number_of_uses_has_limits() {
        let tokens = tokens();
        assert!(matches!(
            tokens.create(&identity(), 0, 1, Purpose::default(), 0).await,
            Err(JoinError::Uses)
        ));
        assert!(tokens.create(&identity(), USES_MAX, 1, Purpose::default(), 0).await.is_ok());
        assert!(matches!(
            tokens.create(&identity(), USES_MAX + 1, 1, Purpose::default(), 0).await,
            Err(JoinError::Uses)
        ));
    }
}
