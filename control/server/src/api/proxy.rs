//! Proxies and workloads: who is there, and what each proxy holds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::error::ApiError;
use crate::publish::Found;
use crate::publish::wait::Waited;
use crate::publish::world::WorkloadLine;

/// Longest wait, in seconds.
const WAIT_SECONDS_MAX: u64 = 600;

/// `?version=`, `?timeout=`
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct WaitQuery {
    version: u64,
    #[serde(default = "default_wait")]
    timeout: u64,
}

fn default_wait() -> u64 {
    30
}

/// `?namespace=`
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub struct WorkloadQuery {
    namespace: Option<String>,
}

/// `GET /api/v1/proxies`
pub async fn list(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({"items": api.publisher.proxies(), "revision": api.publisher.world().revision}))
}

/// `GET /api/v1/proxies/{id}/config`
pub async fn config(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let missing = || ApiError::NotFound(format!("a configuration for proxy {id}"));
    let key = match api.publisher.resolve(&id) {
        Found::One(key) => key,
        Found::None => return Err(missing()),
        Found::Several(keys) => {
            let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
            let text = format!("several identities use this node id; name one of {}", names.join(", "));
            return Err(ApiError::Invalid(text));
        }
    };
    let planned = api.publisher.config_of(&key).ok_or_else(missing)?;
    let mut config = serde_json::to_value(&planned.config).map_err(|error| {
        tracing::error!(%error, "configuration not shown");
        ApiError::Internal
    })?;
    redact(&mut config);
    let notices: Vec<Value> = planned
        .notices
        .iter()
        .map(|notice| json!({"resource": notice.resource, "text": notice.text}))
        .collect();
    Ok(Json(json!({
        "name": key.to_string(), "id": key.id, "namespace": key.namespace, "serviceAccount": key.service_account,
        "version": planned.version, "config": config, "notices": notices,
    })))
}

/// `GET /api/v1/sources`
pub async fn sources(State(api): State<Arc<Api>>) -> Json<Value> {
    Json(json!({"items": api.catalog.statuses()}))
}

/// `GET /api/v1/workloads`
pub async fn workloads(
    State(api): State<Arc<Api>>,
    query: Result<Query<WorkloadQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Value>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    let proxies = api.publisher.proxies();
    let connected: HashSet<(&str, &str, &str)> = proxies
        .iter()
        .filter(|proxy| proxy.connected)
        .map(|proxy| (proxy.namespace.as_str(), proxy.service_account.as_str(), proxy.id.as_str()))
        .collect();
    let workloads = api.catalog.current();
    let lines: Vec<WorkloadLine<'_>> = workloads
        .iter()
        .filter(|workload| query.namespace.as_ref().is_none_or(|namespace| workload.namespace == *namespace))
        .map(|workload| WorkloadLine {
            workload,
            proxy_connected: connected.contains(&(
                workload.namespace.as_str(),
                workload.service_account.as_str(),
                workload.node_id.as_str(),
            )),
        })
        .collect();
    Ok(Json(json!({"items": lines})))
}

/// `GET /api/v1/wait`
pub async fn wait(
    State(api): State<Arc<Api>>,
    query: Result<Query<WaitQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<Waited>, ApiError> {
    let Query(query) = query.map_err(|rejection| ApiError::Invalid(rejection.body_text()))?;
    if query.timeout > WAIT_SECONDS_MAX {
        return Err(ApiError::Invalid(format!("timeout: at most {WAIT_SECONDS_MAX} seconds")));
    }
    let known = api.store.watch();
    let newest = *known.borrow();
    if query.version > newest {
        return Err(ApiError::Invalid(format!("version: the newest is {newest}")));
    }
    Ok(Json(api.publisher.wait(query.version, Duration::from_secs(query.timeout)).await))
}

/// Replaces every private key: whoever may read configurations need not be able to impersonate.
fn redact(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "key_pem" { *value = json!("[redacted]") } else { redact(value) }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_traffic::config::{Secret, SecretValue, TlsCertificate};

    #[test]
    fn private_keys_are_not_shown() {
        let certificate = TlsCertificate { chain_pem: "CHAIN".to_owned(), key_pem: "PRIVATE".to_owned() };
        let secret = Secret { name: "edge".to_owned(), value: SecretValue::Certificate(certificate) };
        let mut shown = serde_json::to_value([secret]).unwrap();
        redact(&mut shown);
        let text = shown.to_string();
        assert!(text.contains("CHAIN") && !text.contains("PRIVATE"), "{text}");
    }
}
