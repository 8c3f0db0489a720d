//! Hosts: what join tokens are made for, and what can be thrown out as a whole.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use super::token::Body;
use crate::clock;
use crate::identity::host::HostRecord;

/// What is to be known of a host.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostRequest {
    #[serde(default)]
    addresses: BTreeSet<IpAddr>,
}

/// `PUT /api/v1/hosts/{name}`
pub async fn put(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Body<HostRequest>,
) -> Result<Json<Value>, ApiError> {
    let Json(asked) = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    let record = api.hosts.put(&name, asked.addresses, clock::unix_ms()).await?;
    tracing::info!(host = name, generation = record.generation, "host may join");
    Ok(Json(shown(&api, &name, &record)))
}

/// `GET /api/v1/hosts`
pub async fn list(State(api): State<Arc<Api>>) -> Json<Value> {
    let hosts = api.hosts.list();
    let items: Vec<Value> = hosts.iter().map(|(name, record)| shown(&api, name, record)).collect();
    Json(json!({"items": items}))
}

/// `DELETE /api/v1/hosts/{name}`
pub async fn revoke(State(api): State<Arc<Api>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let now = clock::unix_ms();
    // First, so that nothing is given or renewed meanwhile.
    let record = api.hosts.revoke(&name, now).await?;
    let tokens = api.tokens.withdraw_host(&name, now).await?;
    let workloads = api.registry.withdraw_host(&name).await?;
    tracing::info!(host = name, tokens, workloads, "host revoked");
    let mut answer = shown(&api, &name, &record);
    answer["tokensWithdrawn"] = json!(tokens);
    answer["workloadsWithdrawn"] = json!(workloads);
    Ok(Json(answer))
}

fn shown(api: &Api, name: &str, record: &HostRecord) -> Value {
    let workloads = api.catalog.current();
    let count = workloads.iter().filter(|workload| workload.host == name).count();
    json!({
        "name": name,
        "generation": record.generation,
        "addresses": record.addresses,
        "revokedAt": record.revoked_at.map(clock::rfc3339),
        "workloads": count,
    })
}
