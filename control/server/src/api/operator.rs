//! Operators' tokens: who may call this API, and whether only to look.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::auth::{self, OperatorToken, Role};
use super::error::ApiError;
use super::token::Body;
use crate::clock;
use crate::store::{Change, Expect, Key};

/// Longest description, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 253;

/// Who an operator token is for.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OperatorTokenRequest {
    description: String,
    #[serde(default)]
    role: Role,
}

/// `POST /api/v1/operator-tokens`
pub async fn create(
    State(api): State<Arc<Api>>,
    body: Body<OperatorTokenRequest>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    if asked.description.is_empty() || asked.description.len() > DESCRIPTION_BYTES_MAX {
        return Err(ApiError::Invalid(format!("description: 1 to {DESCRIPTION_BYTES_MAX} bytes")));
    }
    let (token, kept) = auth::create(&api.store, &asked.description, asked.role, clock::unix_ms()).await?;
    tracing::info!(id = kept.id, description = kept.description, role = ?kept.role, "operator token made");
    let mut answer = shown(&kept);
    answer["token"] = json!(token);
    Ok(Json(answer))
}

/// `GET /api/v1/operator-tokens`
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let tokens = auth::list(&api.store).await?;
    let items: Vec<Value> = tokens.iter().map(shown).collect();
    Ok(Json(json!({"items": items})))
}

/// `DELETE /api/v1/operator-tokens/{id}`
pub async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let _one_at_a_time = api.changing_operators.lock().await;
    let held = auth::list(&api.store).await?;
    let meant = held.iter().find(|token| token.id == id);
    if meant.is_none() {
        return Err(ApiError::NotFound(format!("token {id}")));
    }
    if held.iter().all(|token| token.id == id || token.role != Role::Admin) {
        return Err(ApiError::Conflict(
            "this is the last administrator's token: without it nobody could make another".to_owned(),
        ));
    }
    let change = Change::Delete { key: Key::new(auth::KIND, "", &id), expect: Expect::Any };
    api.store.commit(vec![change], clock::unix_ms()).await?;
    tracing::info!(id, "operator token withdrawn");
    Ok(Json(json!({"id": id})))
}

fn shown(token: &OperatorToken) -> Value {
    json!({"id": token.id, "description": token.description, "role": token.role, "createdAt": clock::rfc3339(token.created_at)})
}
