//! Tracing of connection managers and routes.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::config::route::v3 as route;
use outrigger_api::envoy::config::trace::v3::tracing as trace;
use outrigger_api::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, zipkin_config};
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use outrigger_api::envoy::r#type::tracing::v3::{CustomTag as ProtoTag, custom_tag};
use outrigger_api::envoy::r#type::v3::FractionalPercent;
use outrigger_traffic::config::{CustomTag, Fraction, RouteTracing, SpanExport, Tracing};
use prost_types::Any;

use super::mirror::share_of;
use super::value::percent;

pub(super) fn tracing(value: &Tracing) -> hcm::Tracing {
    let (name, provider) = provider(value);
    hcm::Tracing {
        client_sampling: Some(percent(value.client_sampling)),
        random_sampling: Some(percent(value.random_sampling)),
        overall_sampling: Some(percent(value.overall_sampling)),
        verbose: value.spans.verbose,
        max_path_tag_length: Some(value.spans.path_bytes_max),
        custom_tags: value.spans.tags.iter().map(tag).collect(),
        provider: Some(trace::Http {
            name: name.to_owned(),
            config_type: Some(trace::http::ConfigType::TypedConfig(provider)),
        }),
        spawn_upstream_span: Some(value.spans.attempts),
        operation: value.spans.operation.clone(),
        upstream_operation: value.spans.upstream_operation.clone(),
    }
}

fn provider(value: &Tracing) -> (&'static str, Any) {
    let telemetry = OpenTelemetryConfig { service_name: value.service_name.clone(), ..Default::default() };
    match &value.export {
        SpanExport::OtlpGrpc => {
            let target = core::grpc_service::EnvoyGrpc {
                cluster_name: value.collector_cluster.clone(),
                ..core::grpc_service::EnvoyGrpc::default()
            };
            let service = core::GrpcService {
                initial_metadata: Vec::new(),
                timeout: None,
                target_specifier: Some(core::grpc_service::TargetSpecifier::EnvoyGrpc(target)),
            };
            let config = OpenTelemetryConfig { grpc_service: Some(service), ..telemetry };
            ("envoy.tracers.opentelemetry", any(&config))
        }
        SpanExport::OtlpHttp { host, path, headers } => {
            let header = |(name, text): &(String, String)| core::HeaderValueOption {
                header: Some(core::HeaderValue {
                    key: name.clone(),
                    value: text.clone(),
                    raw_value: Vec::new(),
                }),
                ..core::HeaderValueOption::default()
            };
            let service = core::HttpService {
                http_uri: Some(core::HttpUri {
                    uri: format!("http://{host}{path}"),
                    timeout: None,
                    http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(
                        value.collector_cluster.clone(),
                    )),
                }),
                request_headers_to_add: headers.iter().map(header).collect(),
            };
            let config = OpenTelemetryConfig { http_service: Some(service), ..telemetry };
            ("envoy.tracers.opentelemetry", any(&config))
        }
        SpanExport::Zipkin { host, path } => {
            let config = ZipkinConfig {
                collector_cluster: value.collector_cluster.clone(),
                collector_endpoint: path.clone(),
                trace_id_128bit: value.wide_trace_ids,
                shared_span_context: Some(false),
                collector_endpoint_version: zipkin_config::CollectorEndpointVersion::HttpJson.into(),
                collector_hostname: host.clone(),
                split_spans_for_request: true,
                trace_context_option: zipkin_config::TraceContextOption::UseB3WithW3cPropagation.into(),
            };
            ("envoy.tracers.zipkin", any(&config))
        }
    }
}

fn tag(value: &CustomTag) -> ProtoTag {
    use custom_tag::{Environment, Header, Type};
    let argument = |prefix: &str| value.value.strip_prefix(prefix)?.strip_suffix(")%").map(str::to_owned);
    // A default stands beside these two kinds alone.
    let default_value = value.default_value.clone();
    let kind = match (argument("%ENVIRONMENT("), argument("%REQ(")) {
        (Some(name), _) => Type::Environment(Environment { name, default_value }),
        (None, Some(name)) if !default_value.is_empty() => {
            Type::RequestHeader(Header { name, default_value })
        }
        (None, _) => Type::Value(value.value.clone()),
    };
    ProtoTag { tag: value.name.clone(), r#type: Some(kind) }
}

pub(super) fn route_tracing(value: &RouteTracing) -> route::Tracing {
    let share = |share: Option<Fraction>| -> Option<FractionalPercent> { share_of(share?).default_value };
    route::Tracing {
        client_sampling: share(value.client_sampling),
        random_sampling: share(value.random_sampling),
        overall_sampling: share(value.overall_sampling),
        custom_tags: value.tags.iter().map(tag).collect(),
        operation: value.operation.clone(),
        upstream_operation: value.upstream_operation.clone(),
    }
}
