//! Tokens: for workloads that join, and for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{self, OperatorToken};
use super::error::ApiError;
use crate::clock;
use crate::identity::Identity;
use crate::identity::join_token::{self, JoinToken};
use crate::store::{Change, Expect, Key};

/// Longest life of a join token: 365 days.
const TTL_SECONDS_MAX: u64 = 365 * 86_400;

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 253;

type Body<T> = Result<Json<T>, axum::extract::rejection::JsonRejection>;

/// What a join token is to be good for.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinTokenRequest {
    namespace: String,
    service_account: String,
    #[serde(default = "one")]
    uses: u32,
    #[serde(default = "hour")]
    ttl_seconds: u64,
}

/// Who an operator token is for.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorTokenRequest {
    description: String,
}

fn one() -> u32 {
    1
}

fn hour() -> u64 {
    3_600
}

/// `POST /api/v1/tokens`
pub async fn create(
    State(api): State<Arc<Api>>,
    body: Body<JoinTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    if !(1..=TTL_SECONDS_MAX).contains(&asked.ttl_seconds) {
        return Err(ApiError::Invalid(format!("ttlSeconds: 1 to {TTL_SECONDS_MAX}")));
    }
    let domain = &api.authority.settings().trust_domain;
    let identity = Identity::new(domain, &asked.namespace, &asked.service_account)
        .map_err(|error| ApiError::Invalid(error.to_string()))?;
    let now = clock::unix_ms();
    let expires_at =
        now.saturating_add(i64::try_from(asked.ttl_seconds.saturating_mul(1_000)).unwrap_or(i64::MAX));
    let (token, kept) = join_token::create(&api.store, &identity, asked.uses, expires_at, now).await?;
    tracing::info!(%identity, id = kept.id, uses = asked.uses, "join token made");
    let mut answer = shown(&kept);
    answer["token"] = json!(token);
    answer["identity"] = json!(identity.to_string());
    Ok(Json(answer))
}

/// `GET /api/v1/tokens`
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let records = api.store.list(Some(join_token::KIND.to_owned()), None).await?;
    let tokens =
        records.into_iter().filter_map(|record| serde_json::from_value::<JoinToken>(record.value).ok());
    let items: Vec<Value> = tokens.map(|token| shown(&token)).collect();
    Ok(Json(json!({"items": items})))
}

/// `DELETE /api/v1/tokens/{id}`
pub async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    remove(&api, join_token::KIND, &id).await
}

/// `POST /api/v1/operator-tokens`
pub async fn create_operator(
    State(api): State<Arc<Api>>,
    body: Body<OperatorTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    if asked.description.is_empty() || asked.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::Invalid(format!("description: 1 to {DESCRIPTION_BYTES_MAX} bytes")));
    }
    let (token, kept) = auth::create(&api.store, &asked.description, clock::unix_ms()).await?;
    tracing::info!(id = kept.id, description = kept.description, "operator token made");
    let mut answer = shown_operator(&kept);
    answer["token"] = json!(token);
    Ok(Json(answer))
}

/// `GET /api/v1/operator-tokens`
pub async fn list_operator(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let records = api.store.list(Some(auth::KIND.to_owned()), None).await?;
    let tokens =
        records.into_iter().filter_map(|record| serde_json::from_value::<OperatorToken>(record.value).ok());
    let items: Vec<Value> = tokens.map(|token| shown_operator(&token)).collect();
    Ok(Json(json!({"items": items})))
}

/// `DELETE /api/v1/operator-tokens/{id}`
pub async fn delete_operator(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let held = api.store.list(Some(auth::KIND.to_owned()), None).await?;
    if held.len() == 1 && held.iter().any(|record| record.key.name == id) {
        return Err(ApiError::Conflict(
            "this is the last token: without it nobody could make another".to_owned(),
        ));
    }
    remove(&api, auth::KIND, &id).await
}

async fn remove(api: &Api, kind: &str, id: &str) -> Result<Json<Value>, ApiError> {
    let key = Key::new(kind, "", id);
    let held = api.store.get(key.clone()).await?.ok_or_else(|| ApiError::NotFound(format!("token {id}")))?;
    let change = Change::Delete { key, expect: Expect::Version(held.resource_version) };
    api.store.commit(vec![change], clock::unix_ms()).await?;
    tracing::info!(id, "token withdrawn");
    Ok(Json(json!({"id": id})))
}

fn shown(token: &JoinToken) -> Value {
    json!({
        "id": token.id,
        "namespace": token.namespace,
        "serviceAccount": token.service_account,
        "usesLeft": token.uses_left,
        "expiresAt": clock::rfc3339(token.expires_at),
    })
}

fn shown_operator(token: &OperatorToken) -> Value {
    json!({"id": token.id, "description": token.description, "createdAt": clock::rfc3339(token.created_at)})
}
