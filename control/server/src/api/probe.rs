//! What machines ask: is it alive, is it ready, what does it count.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;

use super::Api;
use super::error::ApiError;
use crate::store::Key;
use crate::telemetry::{self, Gauges};

/// `GET /healthz`
pub async fn health() -> &'static str {
    "ok\n"
}

/// `GET /readyz`
pub async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    api.store.get(Key::new(super::auth::KIND, "", "probe")).await?;
    Ok("ok\n")
}

/// `GET /metrics`
pub async fn metrics(State(api): State<Arc<Api>>) -> impl IntoResponse {
    let gauges = Gauges {
        workloads: api.registry.workloads().borrow().len(),
        proxies: api.publisher.connected_count(),
        revision: *api.store.watch().borrow(),
        trust_bundle_version: api.authority.trust_bundle().borrow().version,
    };
    let text = api.metrics.render(gauges) + &telemetry::render_sources(&api.catalog.statuses());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

/// Every path that is not in the table.
pub async fn nothing_here(uri: http::Uri) -> ApiError {
    ApiError::NotFound(format!("path {}", uri.path()))
}
