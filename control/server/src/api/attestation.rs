//! Attestation rules: which proofs may become which identity.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::token::Body;
use crate::clock;
use crate::identity::Identity;
use crate::identity::attest::rule::{self, Rule};

/// `GET /api/v1/attestation-rules`
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let rules = rule::list(&api.store).await?;
    let line = |(namespace, account, rule): (String, String, Rule)| json!({"namespace": namespace, "serviceAccount": account, "rule": rule});
    let items: Vec<Value> = rules.into_iter().map(line).collect();
    Ok(Json(json!({"items": items})))
}

/// `PUT /api/v1/attestation-rules/{namespace}/{serviceAccount}`
pub async fn put(
    State(api): State<Arc<Api>>,
    Path((namespace, account)): Path<(String, String)>,
    body: Body<Rule>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    asked.check().map_err(ApiError::Invalid)?;
    let domain = &api.authority.settings().trust_domain;
    let identity = Identity::new(domain, &namespace, &account);
    let identity = identity.map_err(|error| ApiError::Invalid(error.to_string()))?;
    rule::write(&api.store, &namespace, &account, Some(&asked), clock::unix_ms()).await?;
    tracing::info!(%identity, rule = ?asked, "attestation rule set");
    Ok(Json(json!({"namespace": namespace, "serviceAccount": account, "rule": asked})))
}

/// `DELETE /api/v1/attestation-rules/{namespace}/{serviceAccount}`
pub async fn delete(
    State(api): State<Arc<Api>>,
    Path((namespace, account)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    if rule::read(&api.store, &namespace, &account).await? == Rule::default() {
        return Err(ApiError::NotFound(format!("attestation rule of {namespace}/{account}")));
    }
    rule::write(&api.store, &namespace, &account, None, clock::unix_ms()).await?;
    tracing::info!(namespace, account, "attestation rule removed");
    Ok(Json(json!({"namespace": namespace, "serviceAccount": account})))
}
