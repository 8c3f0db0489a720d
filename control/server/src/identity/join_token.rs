//! Join tokens: how a host that has no certificate yet proves that it may have one.
//!
//! A token reads `ojt_ID_SECRET`. Kept are its id and the SHA-256 of the secret: 256 random bits need no
//! slow hash. A token gives exactly one identity, a number of times, until it expires.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::spiffe::{Identity, IdentityError};
use crate::clock::UnixMs;
use crate::random::{self, NoRandomness};
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which tokens are kept.
pub const KIND: &str = "~JoinToken";

/// Longest token looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 256;

/// Most uses one token can be given.
pub const USES_MAX: u32 = 100_000;

/// How many dead tokens are removed in one commit: fewer than it may change, and few enough that one that changes
/// meanwhile keeps only few others waiting.
const SWEEP_AT_ONCE: usize = 256;

/// How often a use is tried again when others use the same token at the same time.
const TRIES_MAX: u32 = 32;

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

/// Makes a token and returns it. It cannot be shown again.
///
/// *Errors*: [`JoinError::Uses`], [`JoinError::Random`], [`JoinError::Store`].
pub async fn create(
    store: &SharedStore,
    identity: &Identity,
    uses: u32,
    expires_at: UnixMs,
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
    };
    let value = serde_json::to_value(&token).map_err(|error| StoreError::Backend(Box::new(error)))?;
    let change = Change::Put { key: key(&id), value, expect: Expect::Absent };
    store.commit(vec![change], now).await?;
    Ok((format!("ojt_{id}_{secret}"), token))
}

/// Uses a token once and returns the identity it gives.
///
/// Two bearers of a token with one use left race for the store; exactly one wins.
///
/// *Errors*: [`JoinError`]; nothing is used up then.
pub async fn redeem(
    store: &SharedStore,
    trust_domain: &str,
    text: &str,
    now: UnixMs,
) -> Result<Identity, JoinError> {
    let (id, secret) = split(text).ok_or(JoinError::Unknown)?;
    let offered = random::to_hex(&Sha256::digest(secret.as_bytes()));
    for _ in 0..TRIES_MAX {
        let record = store.get(key(id)).await?;
        let (version, token) = match record {
            Some(record) => match serde_json::from_value::<JoinToken>(record.value) {
                Ok(token) => (record.resource_version, Some(token)),
                Err(_) => return Err(StoreError::Corrupt { key: key(id).to_string() }.into()),
            },
            None => (0, None),
        };
        // The comparison is made for an unknown id too, so that both take the same time.
        let kept = token.as_ref().map_or_else(|| "0".repeat(64), |token| token.secret_sha256.clone());
        let same = bool::from(kept.as_bytes().ct_eq(offered.as_bytes()));
        let Some(mut token) = token.filter(|_| same) else { return Err(JoinError::Unknown) };
        if token.expires_at <= now {
            return Err(JoinError::Expired);
        }
        if token.uses_left == 0 {
            return Err(JoinError::UsedUp);
        }
        token.uses_left -= 1;
        let identity = Identity::new(trust_domain, &token.namespace, &token.service_account)?;
        let value = serde_json::to_value(&token).map_err(|error| StoreError::Backend(Box::new(error)))?;
        let change = Change::Put { key: key(id), value, expect: Expect::Version(version) };
        match store.commit(vec![change], now).await {
            Ok(_) => return Ok(identity),
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(JoinError::UsedUp)
}

/// Removes tokens that can no longer be used; returns how many.
///
/// *Errors*: the store's.
pub async fn sweep(store: &SharedStore, now: UnixMs) -> Result<usize, StoreError> {
    let records = store.list(Some(KIND.to_owned()), None).await?;
    let dead: Vec<Change> = records
        .into_iter()
        .filter(|record| {
            serde_json::from_value::<JoinToken>(record.value.clone())
                .map_or(true, |token| token.expires_at <= now || token.uses_left == 0)
        })
        .map(|record| Change::Delete { expect: Expect::Version(record.resource_version), key: record.key })
        .collect();
    let mut count = 0;
    for part in dead.chunks(SWEEP_AT_ONCE) {
        match store.commit(part.to_vec(), now).await {
            Ok(_) => count += part.len(),
            // Somebody used or withdrew one of them just now; the next sweep takes the rest.
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
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

    fn store() -> SharedStore {
        SharedStore::new(MemoryStore::default())
    }

    fn identity() -> Identity {
        Identity::new(DOMAIN, "shop", "cart").unwrap()
    }

    #[tokio::test]
    async fn counted_token_gives_its_identity_that_many_times() {
        let store = store();
        let (token, kept) = create(&store, &identity(), 2, 1_000, 0).await.unwrap();
        let on_disk = serde_json::to_string(&kept).unwrap();
        assert!(!on_disk.contains(token.rsplit('_').next().unwrap()), "the secret is not kept");
        for _ in 0..2 {
            assert_eq!(redeem(&store, DOMAIN, &token, 999).await.unwrap(), identity());
        }
        assert!(matches!(redeem(&store, DOMAIN, &token, 999).await, Err(JoinError::UsedUp)));
    }

    #[tokio::test]
    async fn expired_and_wrong_tokens_are_refused_and_use_nothing_up() {
        let store = store();
        let (token, _) = create(&store, &identity(), 1, 1_000, 0).await.unwrap();
        assert!(matches!(redeem(&store, DOMAIN, &token, 1_000).await, Err(JoinError::Expired)));
        let mut wrong = token.clone();
        let last = if wrong.pop() == Some('0') { '1' } else { '0' };
        wrong.push(last);
        for text in [wrong.as_str(), "", "ojt_", "ojt_00_", "ojt_0011223344556677_ff", &"x".repeat(300)] {
            assert!(matches!(redeem(&store, DOMAIN, text, 0).await, Err(JoinError::Unknown)), "{text}");
        }
        redeem(&store, DOMAIN, &token, 999).await.unwrap();
    }

    #[tokio::test]
    async fn single_token_offered_by_many_at_once_is_good_for_one() {
        let store = store();
        let (token, _) = create(&store, &identity(), 1, 1_000, 0).await.unwrap();
        let mut jobs = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (store, token) = (store.clone(), token.clone());
            jobs.spawn(async move { redeem(&store, DOMAIN, &token, 0).await.is_ok() });
        }
        let won = jobs.join_all().await.into_iter().filter(|won| *won).count();
        assert_eq!(won, 1);
    }

    #[tokio::test]
    async fn dead_tokens_are_swept() {
        let store = store();
        create(&store, &identity(), 1, 10, 0).await.unwrap();
        create(&store, &identity(), 1, 1_000, 0).await.unwrap();
        assert_eq!(sweep(&store, 10).await.unwrap(), 1);
        assert_eq!(sweep(&store, 10).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn more_dead_tokens_than_one_commit_may_change_are_swept() {
        let store = store();
        let count = crate::store::CHANGES_MAX + 1;
        let put = |i: usize| Change::Put {
            key: key(&i.to_string()),
            value: serde_json::json!("no token"),
            expect: Expect::Any,
        };
        let all: Vec<Change> = (0..count).map(put).collect();
        for part in all.chunks(crate::store::CHANGES_MAX) {
            store.commit(part.to_vec(), 0).await.unwrap();
        }
        assert_eq!(sweep(&store, 10).await.unwrap(), count);
    }

    #[tokio::test]
    async fn number_of_uses_has_limits() {
        let store = store();
        assert!(matches!(create(&store, &identity(), 0, 1, 0).await, Err(JoinError::Uses)));
        assert!(create(&store, &identity(), USES_MAX, 1, 0).await.is_ok());
        assert!(matches!(create(&store, &identity(), USES_MAX + 1, 1, 0).await, Err(JoinError::Uses)));
    }
}
