//! `HttpConnectionManager`, and the HTTP options that clusters share.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::extensions::filters::http::router::v3::Router;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_traffic::config::{
    CodecType, EscapedSlashes, ForwardClientCert, Http1Options, Http2Options, HttpConnectionManager,
    KeyElement, RouteSource, ScopeTable, ScopedRoutes, ServerHeader, Underscores,
};
use proto::http_connection_manager as hcm;

use super::access_log::access_logs;
use super::tracing::tracing;
use super::value::{ads, duration, limit};
use super::{filter, route};

pub(super) fn http_connection_manager(value: &HttpConnectionManager) -> proto::HttpConnectionManager {
    let routes = match &value.routes {
        RouteSource::Named(name) => hcm::RouteSpecifier::Rds(proto::Rds {
            config_source: Some(ads()),
            route_config_name: name.clone(),
        }),
        RouteSource::Inline(table) => hcm::RouteSpecifier::RouteConfig(route::route_config(table)),
        RouteSource::Scoped(scoped) => hcm::RouteSpecifier::ScopedRoutes(scoped_routes(scoped)),
    };
    let details = value.set_client_cert_details;
    let scheme = value.scheme_override.clone().map(|scheme| core::SchemeHeaderTransformation {
        transformation: Some(core::scheme_header_transformation::Transformation::SchemeToOverwrite(scheme)),
    });
    let upgrade = |u: &outrigger_traffic::config::Upgrade| hcm::UpgradeConfig {
        upgrade_type: u.upgrade_type.clone(),
        enabled: Some(u.enabled),
    };
    proto::HttpConnectionManager {
        codec_type: match value.codec_type {
            CodecType::Auto => hcm::CodecType::Auto,
            CodecType::Http1 => hcm::CodecType::Http1,
            CodecType::Http2 => hcm::CodecType::Http2,
        }
        .into(),
        stat_prefix: value.stat_prefix.clone(),
        http_filters: http_filters(value),
        tracing: value.tracing.as_ref().map(tracing),
        http_protocol_options: Some(http1(&value.http1)),
        http2_protocol_options: Some(http2(&value.http2)),
        server_name: value.server_name.clone(),
        drain_timeout: Some(duration(value.drain_timeout)),
        access_log: access_logs(&value.access_log),
        use_remote_address: Some(value.use_remote_address),
        generate_request_id: Some(value.generate_request_id),
        forward_client_cert_details: forward_client_cert(value.forward_client_cert).into(),
        set_current_client_cert_details: Some(hcm::SetCurrentClientCertDetails {
            subject: Some(details.subject),
            cert: details.cert,
            dns: details.dns,
            uri: details.uri,
            chain: details.chain,
        }),
        xff_num_trusted_hops: value.xff_num_trusted_hops,
        skip_xff_append: value.skip_xff_append,
        via: value.via.clone(),
        upgrade_configs: value.upgrades.iter().map(upgrade).collect(),
        stream_idle_timeout: limit(value.stream_idle_timeout),
        request_timeout: value.request_timeout.map(duration),
        max_request_headers_kb: Some(value.max_request_headers_kb),
        normalize_path: Some(value.normalize_path),
        preserve_external_request_id: value.preserve_external_request_id,
        merge_slashes: value.merge_slashes,
        server_header_transformation: server_header(value.server_header).into(),
        common_http_protocol_options: Some(core::HttpProtocolOptions {
            idle_timeout: limit(value.idle_timeout),
            max_headers_count: Some(value.max_headers_count),
            max_connection_duration: value.max_connection_duration.map(duration),
            max_stream_duration: value.max_stream_duration.map(duration),
            max_requests_per_connection: value.max_requests_per_connection,
            headers_with_underscores_action: underscores(value.headers_with_underscores).into(),
        }),
        always_set_request_id_in_response: value.always_set_request_id_in_response,
        stream_error_on_invalid_http_message: Some(value.stream_error_on_invalid_http_message),
        // No planner makes one.
        local_reply_config: None,
        proxy_100_continue: value.proxy_100_continue,
        request_headers_timeout: value.request_headers_timeout.map(duration),
        path_with_escaped_slashes_action: escaped_slashes(value.escaped_slashes).into(),
        scheme_header_transformation: scheme,
        route_specifier: Some(routes),
        strip_matching_host_port: value.strip_matching_host_port,
        strip_trailing_host_dot: value.strip_trailing_host_dot,
        strip_port_mode: value.strip_any_host_port.then_some(hcm::StripPortMode::StripAnyHostPort(true)),
    }
}

fn http_filters(value: &HttpConnectionManager) -> Vec<proto::HttpFilter> {
    let mut list: Vec<proto::HttpFilter> = value.http_filters.iter().map(filter::filter).collect();
    let router = Router { suppress_envoy_headers: value.suppress_envoy_headers };
    list.push(proto::HttpFilter {
        name: "envoy.filters.http.router".to_owned(),
        is_optional: false,
        disabled: false,
        config_type: Some(proto::http_filter::ConfigType::TypedConfig(any(&router))),
    });
    list
}

fn underscores(value: Underscores) -> core::http_protocol_options::HeadersWithUnderscoresAction {
    use core::http_protocol_options::HeadersWithUnderscoresAction as A;
    match value {
        Underscores::Allow => A::Allow,
        Underscores::RejectRequest => A::RejectRequest,
        Underscores::DropHeader => A::DropHeader,
    }
}

fn forward_client_cert(value: ForwardClientCert) -> hcm::ForwardClientCertDetails {
    use hcm::ForwardClientCertDetails as F;
    match value {
        ForwardClientCert::Sanitize => F::Sanitize,
        ForwardClientCert::ForwardOnly => F::ForwardOnly,
        ForwardClientCert::AppendForward => F::AppendForward,
        ForwardClientCert::SanitizeSet => F::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly => F::AlwaysForwardOnly,
    }
}

fn server_header(value: ServerHeader) -> hcm::ServerHeaderTransformation {
    use hcm::ServerHeaderTransformation as S;
    match value {
        ServerHeader::Overwrite => S::Overwrite,
        ServerHeader::AppendIfAbsent => S::AppendIfAbsent,
        ServerHeader::PassThrough => S::PassThrough,
    }
}

fn escaped_slashes(value: EscapedSlashes) -> hcm::PathWithEscapedSlashesAction {
    use hcm::PathWithEscapedSlashesAction as E;
    match value {
        EscapedSlashes::KeepUnchanged => E::KeepUnchanged,
        EscapedSlashes::RejectRequest => E::RejectRequest,
        EscapedSlashes::UnescapeAndRedirect => E::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward => E::UnescapeAndForward,
    }
}

pub(super) fn http1(value: &Http1Options) -> core::Http1ProtocolOptions {
    core::Http1ProtocolOptions {
        allow_absolute_url: None,
        accept_http_10: value.accept_http_10,
        default_host_for_http_10: value.default_host_for_http_10.clone(),
        enable_trailers: value.enable_trailers,
    }
}

pub(super) fn http2(value: &Http2Options) -> core::Http2ProtocolOptions {
    core::Http2ProtocolOptions {
        hpack_table_size: Some(value.hpack_table_size),
        max_concurrent_streams: Some(value.max_concurrent_streams),
        initial_stream_window_size: Some(value.initial_stream_window_size),
        initial_connection_window_size: Some(value.initial_connection_window_size),
        allow_connect: value.allow_connect,
        connection_keepalive: value.keepalive_interval.map(|interval| core::KeepaliveSettings {
            interval: Some(duration(interval)),
            timeout: Some(duration(value.keepalive_timeout)),
        }),
    }
}

fn scoped_routes(value: &ScopedRoutes) -> proto::ScopedRoutes {
    use outrigger_api::envoy::config::route::v3 as routes;
    use proto::scoped_routes::scope_key_builder::FragmentBuilder;
    use proto::scoped_routes::scope_key_builder::fragment_builder as builder;
    use routes::scoped_route_configuration::{Key, key};
    let fragments = value.key.iter().map(|part| {
        let extract_type = match &part.element {
            KeyElement::Index(index) => builder::header_value_extractor::ExtractType::Index(*index),
            KeyElement::Value { separator, key } => builder::header_value_extractor::ExtractType::Element(
                builder::header_value_extractor::KvElement { separator: separator.clone(), key: key.clone() },
            ),
        };
        FragmentBuilder {
            r#type: Some(builder::Type::HeaderValueExtractor(builder::HeaderValueExtractor {
                name: part.header.clone(),
                element_separator: part.separator.clone(),
                extract_type: Some(extract_type),
            })),
        }
    });
    let scopes = value.scopes.iter().map(|scope| {
        let fragment =
            |text: &String| key::Fragment { r#type: Some(key::fragment::Type::StringKey(text.clone())) };
        let mut message = routes::ScopedRouteConfiguration {
            name: scope.name.clone(),
            key: Some(Key { fragments: scope.key.iter().map(fragment).collect() }),
            ..routes::ScopedRouteConfiguration::default()
        };
        match &scope.table {
            ScopeTable::Named(name) => message.route_configuration_name.clone_from(name),
            ScopeTable::Inline(table) => message.route_configuration = Some(route::route_config(table)),
        }
        message
    });
    proto::ScopedRoutes {
        name: "scopes".into(),
        scope_key_builder: Some(proto::scoped_routes::ScopeKeyBuilder { fragments: fragments.collect() }),
        rds_config_source: Some(ads()),
        config_specifier: Some(proto::scoped_routes::ConfigSpecifier::ScopedRouteConfigurationsList(
            proto::ScopedRouteConfigurationsList { scoped_route_configurations: scopes.collect() },
        )),
    }
}
