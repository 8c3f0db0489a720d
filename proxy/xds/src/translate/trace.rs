//! Tracing of a connection manager, and of routes.

use super::At;
use super::value::{fractional, header_name, percent};
use outrigger_api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use outrigger_api::envoy::config::core::v3::http_uri::HttpUpstreamType;
use outrigger_api::envoy::config::core::v3::{GrpcService, HttpService};
use outrigger_api::envoy::config::route::v3 as route;
use outrigger_api::envoy::config::trace::v3::tracing::http;
use outrigger_api::envoy::config::trace::v3::{OpenTelemetryConfig, ZipkinConfig, zipkin_config};
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager as hcm;
use outrigger_api::envoy::r#type::tracing::v3::{CustomTag as ProtoTag, custom_tag};
use outrigger_traffic::config::{CustomTag, Fraction, RouteTracing, SpanExport, SpanOptions, Tracing};

/// The tracing of a connection manager; `None` when it has no usable provider (noted).
pub(super) fn tracing(message: &hcm::Tracing, at: &At<'_>) -> Option<Tracing> {
    // Envoy's runtime keys of the three shares.
    let share = |value: Option<_>, field: &str, key: &str| {
        let given = value.map_or(Fraction::ONE, |value| percent(value, &at.field(field)));
        at.runtime().share(key, given)
    };
    let defaults = SpanOptions::default();
    let shares = Tracing {
        client_sampling: share(message.client_sampling, "client_sampling", "tracing.client_enabled"),
        random_sampling: share(message.random_sampling, "random_sampling", "tracing.random_sampling"),
        overall_sampling: share(message.overall_sampling, "overall_sampling", "tracing.global_enabled"),
        spans: SpanOptions {
            tags: tags(&message.custom_tags, at),
            path_bytes_max: message.max_path_tag_length.unwrap_or(defaults.path_bytes_max),
            verbose: message.verbose,
            attempts: message.spawn_upstream_span.unwrap_or(defaults.attempts),
            operation: message.operation.clone(),
            upstream_operation: message.upstream_operation.clone(),
        },
        ..Tracing::default()
    };
    let at = at.field("provider");
    let provider = at.need(message.provider.as_ref())?;
    at.field("name").need_text(&provider.name);
    let at = at.field("typed_config");
    let http::ConfigType::TypedConfig(any) = at.need(provider.config_type.as_ref())?;
    if let Some(telemetry) = at.unpack::<OpenTelemetryConfig>(any) {
        return open_telemetry(&telemetry.message()?, shares, &at);
    }
    if let Some(zipkin) = at.unpack::<ZipkinConfig>(any) {
        return to_zipkin(&zipkin.message()?, shares, &at);
    }
    at.refuse_type(any);
    None
}

fn open_telemetry(message: &OpenTelemetryConfig, shares: Tracing, at: &At<'_>) -> Option<Tracing> {
    let (collector_cluster, export) = match (&message.grpc_service, &message.http_service) {
        (Some(_), Some(_)) => {
            at.field("http_service").refuse("cannot be given together with `grpc_service`");
            return None;
        }
        (None, Some(service)) => over_http(service, &at.field("http_service"))?,
        (grpc, None) => {
            let at = at.field("grpc_service");
            (over_grpc(at.need(grpc.as_ref())?, &at)?, SpanExport::OtlpGrpc)
        }
    };
    Some(Tracing { service_name: message.service_name.clone(), collector_cluster, export, ..shares })
}

fn over_grpc(service: &GrpcService, at: &At<'_>) -> Option<String> {
    if !service.initial_metadata.is_empty() {
        at.field("initial_metadata").refuse("is not supported for spans");
    }
    if service.timeout.is_some() {
        at.field("timeout").notice("the span exporter has its own");
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
    Some(target.cluster_name.clone())
}

fn over_http(service: &HttpService, at: &At<'_>) -> Option<(String, SpanExport)> {
    let mut headers = Vec::new();
    for (i, option) in service.request_headers_to_add.iter().enumerate() {
        let at = at.item("request_headers_to_add", i);
        let Some(header) = at.field("header").need(option.header.as_ref()) else { continue };
        let name = header_name(&header.key, false, &at.field("header"));
        let is_plain = header.raw_value.is_empty() && !header.value.contains(['%', '\r', '\n']);
        if !is_plain {
            at.field("header").refuse("only plain values are supported for spans");
        }
        headers.push((name, header.value.clone()));
    }
    let at = at.field("http_uri");
    let uri = at.need(service.http_uri.as_ref())?;
    if uri.timeout.is_some() {
        at.field("timeout").notice("the span exporter has its own");
    }
    let rest = uri.uri.split_once("://").map_or(uri.uri.as_str(), |(_, rest)| rest);
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let is_clean = |text: &str| text.bytes().all(|b| b > b' ' && b != 0x7f);
    if host.is_empty() || !is_clean(rest) {
        at.field("uri").refuse(format!("`{}` is not a usable URI", uri.uri));
    }
    let HttpUpstreamType::Cluster(cluster) = at.need(uri.http_upstream_type.as_ref())?;
    at.field("cluster").need_text(cluster);
    Some((cluster.clone(), SpanExport::OtlpHttp { host: host.to_owned(), path: path.to_owned(), headers }))
}

fn to_zipkin(message: &ZipkinConfig, shares: Tracing, at: &At<'_>) -> Option<Tracing> {
    use zipkin_config::CollectorEndpointVersion as V;
    at.field("collector_cluster").need_text(&message.collector_cluster);
    if !message.collector_endpoint.starts_with('/')
        || !message.collector_endpoint.bytes().all(|b| b > b' ' && b != 0x7f)
    {
        at.field("collector_endpoint").refuse("must be a path");
    }
    if V::try_from(message.collector_endpoint_version) != Ok(V::HttpJson) {
        at.field("collector_endpoint_version").refuse("must be HTTP_JSON");
    }
    if message.shared_span_context == Some(true) {
        at.field("shared_span_context").refuse("every proxy has spans of its own here");
    }
    let host = match message.collector_hostname.as_str() {
        "" => message.collector_cluster.clone(),
        name => name.to_owned(),
    };
    Some(Tracing {
        collector_cluster: message.collector_cluster.clone(),
        export: SpanExport::Zipkin { host, path: message.collector_endpoint.clone() },
        wide_trace_ids: message.trace_id_128bit,
        always_b3: true,
        ..shares
    })
}

/// The tracing of a route.
pub(super) fn route_tracing(message: &route::Tracing, at: &At<'_>) -> RouteTracing {
    let share = |value: Option<&_>, field: &str| value.map(|value| fractional(value, &at.field(field)));
    RouteTracing {
        client_sampling: share(message.client_sampling.as_ref(), "client_sampling"),
        random_sampling: share(message.random_sampling.as_ref(), "random_sampling"),
        overall_sampling: share(message.overall_sampling.as_ref(), "overall_sampling"),
        tags: tags(&message.custom_tags, at),
        operation: message.operation.clone(),
        upstream_operation: message.upstream_operation.clone(),
    }
}

fn tags(from: &[ProtoTag], at: &At<'_>) -> Vec<CustomTag> {
    from.iter().enumerate().filter_map(|(i, tag)| one_tag(tag, &at.item("custom_tags", i))).collect()
}

fn one_tag(message: &ProtoTag, at: &At<'_>) -> Option<CustomTag> {
    use custom_tag::Type as K;
    at.field("tag").need_text(&message.tag);
    let (value, default_value) = match at.need(message.r#type.as_ref())? {
        K::Literal(literal) => {
            at.field("literal").field("value").need_text(&literal.value);
            (literal.value.replace('%', "%%"), String::new())
        }
        K::Environment(variable) => {
            at.field("environment").field("name").need_text(&variable.name);
            (format!("%ENVIRONMENT({})%", variable.name), variable.default_value.clone())
        }
        K::RequestHeader(header) => {
            let name = header_name(&header.name, true, &at.field("request_header").field("name"));
            (format!("%REQ({name})%"), header.default_value.clone())
        }
        K::Value(format) => {
            at.field("value").need_text(format);
            (format.clone(), String::new())
        }
    };
    Some(CustomTag { name: message.tag.clone(), value, default_value })
}
