//! Join tokens: with them hosts join, and with them an operator says what a service account may claim.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use crate::clock;
use crate::identity::join_token::{JoinToken, Purpose};
use crate::identity::{Grant, Identity, grant};

/// Longest life of a join token: 365 days.
const TTL_SECONDS_MAX: u64 = 365 * 86_400;

/// A JSON body, or why it is none.
pub type Body<T> = Result<Json<T>, axum::extract::rejection::JsonRejection>;

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
    /// The host that is to join with it; it must be known.
    host: Option<String>,
    /// The next three, when any is given, replace the grant of the service account.
    services: Option<BTreeSet<String>>,
    labels: Option<BTreeMap<String, BTreeSet<String>>>,
    gateway: Option<bool>,
}

impl JoinTokenRequest {
    /// The grant asked for; `None`: the account keeps the one it has.
    fn grant(&self) -> Option<Grant> {
        if self.services.is_none() && self.labels.is_none() && self.gateway.is_none() {
            return None;
        }
        let default = Grant::default_for(&self.service_account);
        Some(Grant {
            services: self.services.clone().unwrap_or(default.services),
            labels: self.labels.clone().unwrap_or(default.labels),
            gateway: self.gateway.unwrap_or(default.gateway),
        })
    }
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
    let asked_grant = asked.grant();
    let host = asked.host.as_ref().map(|name| api.hosts.mark(name)).transpose()?;
    let purpose = Purpose { grant: asked_grant.as_ref(), host };
    let made = api.tokens.create(&identity, asked.uses, expires_at, purpose, now).await;
    let (token, kept) = made?;
    let held = grant::read(&api.store, &asked.namespace, &asked.service_account).await?;
    tracing::info!(%identity, id = kept.id, uses = asked.uses, grant = ?asked_grant, "join token made");
    let mut answer = shown(&kept);
    answer["token"] = json!(token);
    answer["identity"] = json!(identity.to_string());
    answer["grant"] = json!(held);
    Ok(Json(answer))
}

/// `GET /api/v1/tokens`
pub async fn list(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let items: Vec<Value> = api.tokens.list().await?.iter().map(shown).collect();
    Ok(Json(json!({"items": items})))
}

/// `DELETE /api/v1/tokens/{id}`
pub async fn delete(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    if !api.tokens.withdraw(&id, clock::unix_ms()).await? {
        return Err(ApiError::NotFound(format!("token {id}")));
    }
    tracing::info!(id, "join token withdrawn");
    Ok(Json(json!({"id": id})))
}

/// `GET /api/v1/grants`
pub async fn grants(State(api): State<Arc<Api>>) -> Result<Json<Value>, ApiError> {
    let grants = grant::list(&api.store).await?;
    let line = |(namespace, account, grant): (String, String, Grant)| json!({"namespace": namespace, "serviceAccount": account, "grant": grant});
    let items: Vec<Value> = grants.into_iter().map(line).collect();
    Ok(Json(json!({"items": items})))
}

fn shown(token: &JoinToken) -> Value {
    json!({
        "id": token.id,
        "namespace": token.namespace,
        "serviceAccount": token.service_account,
        "usesLeft": token.uses_left,
        "expiresAt": clock::rfc3339(token.expires_at),
        "host": token.host.as_ref().map(|mark| &mark.name),
    })
}
