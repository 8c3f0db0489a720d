//! Resources: apply, list, get, delete.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use outrigger_plan::Kind;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use crate::publish::Applied;
use crate::store::Key;

/// `?dryRun=`, `?resourceVersion=`
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeQuery {
    #[serde(default)]
    dry_run: bool,
    resource_version: Option<u64>,
}

/// `?namespace=`
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    namespace: Option<String>,
}

/// `POST /api/v1/apply`
pub async fn apply(
    State(api): State<Arc<Api>>,
    query: Result<Query<ChangeQuery>, axum::extract::rejection::QueryRejection>,
    body: Result<String, axum::extract::rejection::StringRejection>,
) -> Result<Json<Applied>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    let body = body.map_err(|rejection| match rejection.status() {
        http::StatusCode::PAYLOAD_TOO_LARGE => {
            ApiError::TooLarge(format!("a body has at most {} bytes", super::route::BODY_BYTES_MAX))
        }
        _ => ApiError::Invalid(rejection.body_text()),
    })?;
    if query.resource_version.is_some() {
        return Err(ApiError::Invalid("resourceVersion belongs into the resource's metadata".to_owned()));
    }
    Ok(Json(api.publisher.apply(body, query.dry_run).await?))
}

/// `GET /api/v1/resources`
pub async fn list_all(
    State(api): State<Arc<Api>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    listed(&api, None, query.namespace).await
}

/// `GET /api/v1/resources/{kind}`
pub async fn list(
    State(api): State<Arc<Api>>,
    Path(kind): Path<String>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    listed(&api, Some(kind_of(&kind)?), query.namespace).await
}

/// `GET /api/v1/resources/{kind}/{namespace}/{name}`
pub async fn get(
    State(api): State<Arc<Api>>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let key = Key::new(kind_of(&kind)?.name(), namespace, name);
    let record = api.store.get(key.clone()).await?.ok_or_else(|| ApiError::NotFound(key.to_string()))?;
    Ok(Json(crate::publish::Resource::from(record).shown()))
}

/// `DELETE /api/v1/resources/{kind}/{namespace}/{name}`
pub async fn delete(
    State(api): State<Arc<Api>>,
    Path((kind, namespace, name)): Path<(String, String, String)>,
    query: Result<Query<ChangeQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Applied>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    let key = Key::new(kind_of(&kind)?.name(), namespace, name);
    Ok(Json(api.publisher.delete(key, query.resource_version, query.dry_run).await?))
}

async fn listed(api: &Api, kind: Option<Kind>, namespace: Option<String>) -> Result<Json<Value>, ApiError> {
    let records = api.store.list(kind.map(|kind| kind.name().to_owned()), namespace).await?;
    let resources = crate::publish::World::resources_of(records);
    let items: Vec<Value> = resources.values().map(|resource| resource.shown()).collect();
    Ok(Json(json!({"items": items})))
}

/// Only kinds of resources: our own records are nobody's business.
fn kind_of(text: &str) -> Result<Kind, ApiError> {
    Kind::parse(text).ok_or_else(|| {
        let known: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        ApiError::Invalid(format!("unknown kind {text:?}; known are {}", known.join(", ")))
    })
}
