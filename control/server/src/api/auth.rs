//! Operators' tokens: `oat_ID_SECRET`, of which the id and the SHA-256 of the secret are kept.
//!
//! Refusals take the same time whether the id is known or not.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::Method;
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::Api;
use super::error::ApiError;
use crate::clock::UnixMs;
use crate::random;
use crate::store::{Change, Expect, Key, SharedStore, StoreError};

/// Kind under which tokens are kept.
pub const KIND: &str = "~OperatorToken";

/// Longest `Authorization` value looked at, in bytes.
const HEADER_BYTES_MAX: usize = 512;

/// Longest a request may take that is not a wait.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// What a token opens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything.
    #[default]
    Admin,
    /// What changes nothing.
    Viewer,
}

impl Role {
    /// Whether a request of this method is open to it. What changes something is never a GET or HEAD here.
    fn allows(self, method: &Method) -> bool {
        match self {
            Self::Admin => true,
            Self::Viewer => method.is_safe(),
        }
    }
}

/// What is kept of a token.
#[derive(Clone, Serialize, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct OperatorToken {
    /// Public part.
    pub id: String,
    /// SHA-256 of the secret part, hexadecimal.
    pub secret_sha256: String,
    /// For people.
    pub description: String,
    /// Milliseconds since 1970.
    pub created_at: UnixMs,
    /// What it opens. Absent in records of versions that had no roles.
    #[serde(default)]
    pub role: Role,
}

/// Makes a token and returns it. It cannot be shown again.
///
/// *Errors*: the store's; a lack of randomness as [`StoreError::Backend`].
pub async fn create(
    store: &SharedStore,
    description: &str,
    role: Role,
    now: UnixMs,
) -> Result<(String, OperatorToken), StoreError> {
    let (text, token, change) = make(description, role, now)?;
    store.commit(vec![change], now).await?;
    Ok((text, token))
}

/// A token, what is kept of it, and the change that makes it good.
///
/// *Errors*: a lack of randomness as [`StoreError::Backend`].
pub fn make(
    description: &str,
    role: Role,
    now: UnixMs,
) -> Result<(String, OperatorToken, Change), StoreError> {
    let failed = |error: random::NoRandomness| StoreError::Backend(Box::new(error));
    let (id, secret) = (random::hex::<8>().map_err(failed)?, random::hex::<32>().map_err(failed)?);
    let token = OperatorToken {
        id: id.clone(),
        secret_sha256: random::to_hex(&Sha256::digest(secret.as_bytes())),
        description: description.to_owned(),
        created_at: now,
        role,
    };
    let value = serde_json::to_value(&token).map_err(|error| StoreError::Backend(Box::new(error)))?;
    let change = Change::Put { key: Key::new(KIND, "", &id), value, expect: Expect::Absent };
    Ok((format!("oat_{id}_{secret}"), token, change))
}

/// Whether there is none yet.
///
/// *Errors*: the store's.
pub async fn is_none_yet(store: &SharedStore) -> Result<bool, StoreError> {
    Ok(store.list(Some(KIND.to_owned()), None).await?.is_empty())
}

/// All tokens.
///
/// *Errors*: the store's.
pub async fn list(store: &SharedStore) -> Result<Vec<OperatorToken>, StoreError> {
    let records = store.list(Some(KIND.to_owned()), None).await?;
    Ok(records.into_iter().filter_map(|record| serde_json::from_value(record.value).ok()).collect())
}

/// What `text` opens; `None` when it is no token of ours.
///
/// *Errors*: the store's.
pub async fn verify(store: &SharedStore, text: &str) -> Result<Option<Role>, StoreError> {
    let Some((id, secret)) = text.strip_prefix("oat_").and_then(|rest| rest.split_once('_')) else {
        return Ok(None);
    };
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let offered = random::to_hex(&Sha256::digest(secret.as_bytes()));
    let record = store.get(Key::new(KIND, "", id)).await?;
    let token = record.and_then(|record| serde_json::from_value::<OperatorToken>(record.value).ok());
    let role = token.as_ref().map(|token| token.role);
    let kept = token.map_or_else(|| "0".repeat(64), |token| token.secret_sha256);
    Ok(role.filter(|_| bool::from(kept.as_bytes().ct_eq(offered.as_bytes()))))
}

/// Lets a request through only with a token that opens it.
pub async fn require(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let offered = request
        .headers()
        .get(AUTHORIZATION)
        .filter(|value| value.len() <= HEADER_BYTES_MAX)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim().to_owned());
    let known = match offered {
        Some(token) => verify(&api.store, &token).await,
        None => Ok(None),
    };
    match known {
        Ok(Some(role)) if role.allows(request.method()) => next.run(request).await,
        Ok(Some(_)) => ApiError::Forbidden.into_response(),
        Ok(None) => {
            api.metrics.operator_unauthorized.fetch_add(1, Ordering::Relaxed);
            ApiError::Unauthorized.into_response()
        }
        Err(error) => ApiError::from(error).into_response(),
    }
}

/// Bounds every request that is not meant to wait.
pub async fn bound(request: Request, next: Next) -> Response {
    if request.uri().path() == super::route::WAIT {
        return next.run(request).await;
    }
    match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn only_the_whole_token_is_good() {
        let store = SharedStore::new(MemoryStore::default());
        let (first, _) = create(&store, "test", Role::Viewer, 0).await.unwrap();
        assert_eq!(verify(&store, &first).await.unwrap(), Some(Role::Viewer));
        let kept = store.list(None, None).await.unwrap()[0].value.to_string();
        assert!(!kept.contains(first.rsplit('_').next().unwrap()));
        for wrong in
            ["", "oat_", "oat__", &first[..first.len() - 1], &first.replace("oat_", "ojt_"), "oat_00_00"]
        {
            assert_eq!(verify(&store, wrong).await.unwrap(), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn record_of_a_version_without_roles_is_an_administrators() {
        let store = SharedStore::new(MemoryStore::default());
        let (text, token, change) = make("first start", Role::Viewer, 0).unwrap();
        let Change::Put { key, mut value, expect } = change else { panic!("a put") };
        assert!(value.as_object_mut().unwrap().shift_remove("role").is_some());
        store.commit(vec![Change::Put { key, value, expect }], 0).await.unwrap();
        assert_eq!(verify(&store, &text).await.unwrap(), Some(Role::Admin));
        assert_eq!(list(&store).await.unwrap()[0].id, token.id);
    }

    #[test]
    fn viewer_may_look_and_change_nothing() {
        for (method, open) in
            [("GET", true), ("HEAD", true), ("POST", false), ("DELETE", false), ("PUT", false)]
        {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!((Role::Viewer.allows(&method), Role::Admin.allows(&method)), (open, true), "{method}");
        }
    }
}
