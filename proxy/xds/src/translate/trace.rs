//! Tracing of a connection manager.

use super::At;
use super::value::percent;
use outrigger_api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use outrigger_api::envoy::config::trace::v3::OpenTelemetryConfig;
use outrigger_api::envoy::config::trace::v3::tracing::http;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use outrigger_traffic::config::{Fraction, Tracing};

/// The tracing of a connection manager; `None` when it has no usable provider (noted).
pub(super) fn tracing(message: &hcm::Tracing, at: &At<'_>) -> Option<Tracing> {
    let share = |value: Option<_>, field: &str| match value {
        Some(value) => percent(value, &at.field(field)),
        None => Fraction::ONE,
    };
    let client_sampling = share(message.client_sampling, "client_sampling");
    let random_sampling = share(message.random_sampling, "random_sampling");
    let overall_sampling = share(message.overall_sampling, "overall_sampling");
    let at = at.field("provider");
    let provider = at.need(message.provider.as_ref())?;
    at.field("name").need_text(&provider.name);
    let at = at.field("typed_config");
    let http::ConfigType::TypedConfig(any) = at.need(provider.config_type.as_ref())?;
    let Some(telemetry) = at.unpack::<OpenTelemetryConfig>(any) else {
        at.refuse_type(any);
        return None;
    };
    let telemetry = telemetry.message()?;
    let at = at.field("grpc_service");
    let service = at.need(telemetry.grpc_service.as_ref())?;
    if !service.initial_metadata.is_empty() {
        at.field("initial_metadata").refuse("is not supported for spans");
    }
    let TargetSpecifier::EnvoyGrpc(target) = at.need(service.target_specifier.as_ref())?;
    let at = at.field("envoy_grpc");
    at.field("cluster_name").need_text(&target.cluster_name);
    if !target.authority.is_empty() {
        at.field("authority").refuse("is not supported for spans");
    }
    if target.retry_policy.is_some() {
        at.field("retry_policy").refuse("is not supported for spans");
    }
    Some(Tracing {
        client_sampling,
        random_sampling,
        overall_sampling,
        service_name: telemetry.service_name,
        collector_cluster: target.cluster_name.clone(),
    })
}
