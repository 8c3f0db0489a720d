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
use crate::identity::ca::RootStatus;
use crate::identity::rotation::Stage;

/// How a rotation is to go.
#[derive(Deserialize, Default, Debug)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateRequest {
    propagation_seconds: Option<u64>,
    /// The root too.
    #[serde(default)]
    root: bool,
    /// How long the old root is known after the new signing CA has taken over. Only with `root`.
    root_overlap_seconds: Option<u64>,
}

/// How long an old root is known unless the operator says otherwise.
const ROOT_OVERLAP: Duration = Duration::from_secs(30 * 86_400);

/// Longest times of a rotation: the life of a signing CA, one year.
const SECONDS_MAX: u64 = 365 * 86_400;

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
    let overlap = asked.root_overlap_seconds.map_or(ROOT_OVERLAP, Duration::from_secs);
    if asked.root_overlap_seconds.is_some() && !asked.root {
        return Err(ApiError::Invalid("rootOverlapSeconds: only with root".to_owned()));
    }
    if [asked.propagation_seconds, asked.root_overlap_seconds].into_iter().flatten().any(|s| s > SECONDS_MAX)
    {
        return Err(ApiError::Invalid(format!("a rotation's times are at most {SECONDS_MAX} seconds")));
    }
    let authority = Arc::clone(&api.authority);
    let root = asked.root;
    let rotated = tokio::task::spawn_blocking(move || {
        let now = clock::unix_ms();
        if root {
            authority.rotate_root(propagation, overlap, now)
        } else {
            authority.rotate(propagation, now)
        }
    })
    .await;
    rotated.map_err(|error| {
        tracing::error!(%error, "rotation ended early");
        ApiError::Internal
    })??;
    tracing::info!(propagation_s = propagation.as_secs(), root, "rotation of the signing ca begun");
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
    let root = |root: &RootStatus| {
        json!({
            "id": root.id,
            "retiresAt": root.retires_at.map(clock::rfc3339),
            "expiresAt": clock::rfc3339(root.expires_at),
        })
    };
    let roots: Vec<Value> = api.authority.roots().iter().map(root).collect();
    json!({
        "trustDomain": settings.trust_domain,
        "svidTtlSeconds": settings.svid_ttl.as_secs(),
        "rootCertificate": api.authority.root_pem(),
        "trustBundle": {"version": bundle.version, "pem": bundle.pem},
        "signing": signing,
        "roots": roots,
    })
}
