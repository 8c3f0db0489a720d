//! The certificate authority, for operators.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use crate::clock;
use crate::identity::rotation::Stage;

/// How a rotation is to go.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateRequest {
    propagation_seconds: Option<u64>,
}

/// `GET /api/v1/ca`
pub async fn show(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(shown(&api))
}

/// `POST /api/v1/ca/rotate`
///
/// By default the new CA signs after the life of a workload certificate: whoever was away renews within
/// that time, and learns of the new CA by it, or is out of the mesh anyway.
pub async fn rotate(
    State(api): State<Arc<Api>>,
    body: Result<Option<Json<RotateRequest>>, axum::extract::rejection::JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let asked = body.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?.unwrap_or_default().0;
    let propagation =
        asked.propagation_seconds.map_or(api.authority.settings().svid_ttl, Duration::from_secs);
    let authority = Arc::clone(&api.authority);
    let rotated = tokio::task::spawn_blocking(move || authority.rotate(propagation, clock::unix_ms())).await;
    rotated.map_err(|error| {
        tracing::error!(%error, "rotation ended early");
        ApiError::Internal
    })??;
    tracing::info!(propagation_s = propagation.as_secs(), "rotation of the signing ca begun");
    Ok(Json(shown(&api)))
}

fn shown(api: &Api) -> Value {
    let bundle = api.authority.trust_bundle().borrow().clone();
    let settings = api.authority.settings();
    let signing: Vec<Value> = api
        .authority
        .status()
        .iter()
        .map(|line| {
            let (stage, until) = match line.stage {
                Stage::Published { signs_from } => ("PUBLISHED", Some(signs_from)),
                Stage::Signing => ("SIGNING", None),
                Stage::Retired { trusted_until } => ("RETIRED", Some(trusted_until)),
            };
            json!({
                "id": line.id,
                "stage": stage,
                "until": until.map(clock::rfc3339),
                "expiresAt": clock::rfc3339(line.expires_at),
            })
        })
        .collect();
    json!({
        "trustDomain": settings.trust_domain,
        "svidTtlSeconds": settings.svid_ttl.as_secs(),
        "rootCertificate": api.authority.root_pem(),
        "trustBundle": {"version": bundle.version, "pem": bundle.pem},
        "signing": signing,
    })
}
