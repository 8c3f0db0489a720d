//! `HttpConnectionManager`, and the HTTP options that clusters share.

use super::value::{duration, limit_or};
use super::{At, access_log, extension, filter, local_reply, route, scoped, source, trace};
use crate::ads::Kind;
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::extensions::filters::http::router::v3::Router;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_traffic::config::{
    CodecType, EscapedSlashes, ForwardClientCert, Http1Options, Http2Options, HttpConnectionManager,
    HttpFilter, RouteSource, ServerHeader, SetClientCertDetails, Underscores, Upgrade,
};
use proto::http_connection_manager as hcm;
use std::time::Duration;

/// Largest window and stream count of HTTP/2 (RFC 9113 §6.5.2).
const H2_MAX: u32 = (1 << 31) - 1;
/// Smallest window that Envoy accepts: the protocol's initial one.
const H2_WINDOW_MIN: u32 = 65_535;

/// A connection manager; `None` when it has no routes (noted).
pub(super) fn http_connection_manager(
    message: &proto::HttpConnectionManager,
    at: &At<'_>,
) -> Option<HttpConnectionManager> {
    at.field("stat_prefix").need_text(&message.stat_prefix);
    let mut manager = HttpConnectionManager::new(message.stat_prefix.clone(), route_source(message, at)?);
    manager.codec_type = match hcm::CodecType::try_from(message.codec_type) {
        Ok(hcm::CodecType::Auto) => CodecType::Auto,
        Ok(hcm::CodecType::Http1) => CodecType::Http1,
        Ok(hcm::CodecType::Http2) => CodecType::Http2,
        Err(_) => {
            at.field("codec_type").refuse("is not known");
            CodecType::Auto
        }
    };
    manager.http_filters = http_filters(&message.http_filters, &mut manager.suppress_envoy_headers, at);
    if let Some(options) = &message.http_protocol_options {
        manager.http1 = http1(options, &at.field("http_protocol_options"));
    }
    if let Some(options) = &message.http2_protocol_options {
        manager.http2 = http2(options, &at.field("http2_protocol_options"));
    }
    limits(message, &mut manager, at);
    identity_and_headers(message, &mut manager, at);
    manager.upgrades = upgrades(&message.upgrade_configs, at);
    manager.access_log = access_log::access_logs(&message.access_log, at);
    manager.tracing = message.tracing.as_ref().and_then(|t| trace::tracing(t, &at.field("tracing")));
    manager.stream_error_on_invalid_http_message =
        message.stream_error_on_invalid_http_message.unwrap_or(false);
    manager.local_reply = message
        .local_reply_config
        .as_ref()
        .map(|one| local_reply::local_reply(one, &at.field("local_reply_config")));
    manager.proxy_100_continue = message.proxy_100_continue;
    Some(manager)
}

fn route_source(message: &proto::HttpConnectionManager, at: &At<'_>) -> Option<RouteSource> {
    match &message.route_specifier {
        Some(hcm::RouteSpecifier::Rds(rds)) => {
            let at = at.field("rds");
            at.field("route_config_name").need_text(&rds.route_config_name);
            let from = at.field("config_source");
            if let Some(config_source) = from.need(rds.config_source.as_ref()) {
                source::want(Kind::RouteConfig, &rds.route_config_name, config_source, &from);
            }
            Some(RouteSource::Named(rds.route_config_name.clone()))
        }
        Some(hcm::RouteSpecifier::RouteConfig(table)) => {
            Some(RouteSource::Inline(route::route_config(table, true, &at.field("route_config"))))
        }
        Some(hcm::RouteSpecifier::ScopedRoutes(scoped)) => scoped::routes(scoped, &at.field("scoped_routes"))
            .map(|scoped| RouteSource::Scoped(Box::new(scoped))),
        None => {
            at.refuse("`route_config`, `rds` or `scoped_routes` is required");
            None
        }
    }
}

fn limits(message: &proto::HttpConnectionManager, manager: &mut HttpConnectionManager, at: &At<'_>) {
    if let Some(kb) = message.max_request_headers_kb {
        if !(1..=8192).contains(&kb) {
            at.field("max_request_headers_kb").refuse("must be between 1 and 8192");
        }
        manager.max_request_headers_kb = kb;
    }
    if let Some(options) = &message.common_http_protocol_options {
        let at = at.field("common_http_protocol_options");
        if let Some(count) = options.max_headers_count {
            if count == 0 {
                at.field("max_headers_count").refuse("must be greater than 0");
            }
            manager.max_headers_count = count;
        }
        manager.idle_timeout =
            limit_or(options.idle_timeout.as_ref(), manager.idle_timeout, &at.field("idle_timeout"));
        manager.max_connection_duration =
            limit_or(options.max_connection_duration.as_ref(), None, &at.field("max_connection_duration"));
        manager.max_stream_duration =
            limit_or(options.max_stream_duration.as_ref(), None, &at.field("max_stream_duration"));
        manager.headers_with_underscores = underscores(options, &at);
        manager.max_requests_per_connection = options.max_requests_per_connection.filter(|n| *n > 0);
    }
    manager.stream_idle_timeout = limit_or(
        message.stream_idle_timeout.as_ref(),
        manager.stream_idle_timeout,
        &at.field("stream_idle_timeout"),
    );
    manager.request_timeout = limit_or(message.request_timeout.as_ref(), None, &at.field("request_timeout"));
    manager.request_headers_timeout =
        limit_or(message.request_headers_timeout.as_ref(), None, &at.field("request_headers_timeout"));
    if let Some(timeout) = &message.drain_timeout {
        manager.drain_timeout =
            duration(timeout, &at.field("drain_timeout")).unwrap_or(manager.drain_timeout);
    }
}

fn underscores(options: &core::HttpProtocolOptions, at: &At<'_>) -> Underscores {
    use core::http_protocol_options::HeadersWithUnderscoresAction as A;
    match A::try_from(options.headers_with_underscores_action) {
        Ok(A::Allow) => Underscores::Allow,
        Ok(A::RejectRequest) => Underscores::RejectRequest,
        Ok(A::DropHeader) => Underscores::DropHeader,
        Err(_) => {
            at.field("headers_with_underscores_action").refuse("is not known");
            Underscores::Allow
        }
    }
}

fn identity_and_headers(
    message: &proto::HttpConnectionManager,
    manager: &mut HttpConnectionManager,
    at: &At<'_>,
) {
    use hcm::{
        ForwardClientCertDetails as F, PathWithEscapedSlashesAction as E, ServerHeaderTransformation as S,
    };
    manager.server_header = match S::try_from(message.server_header_transformation) {
        Ok(S::Overwrite) => ServerHeader::Overwrite,
        Ok(S::AppendIfAbsent) => ServerHeader::AppendIfAbsent,
        Ok(S::PassThrough) => ServerHeader::PassThrough,
        Err(_) => {
            at.field("server_header_transformation").refuse("is not known");
            ServerHeader::Overwrite
        }
    };
    if !message.server_name.is_empty() {
        manager.server_name = message.server_name.clone();
    }
    manager.via = message.via.clone();
    manager.use_remote_address = message.use_remote_address.unwrap_or(false);
    manager.xff_num_trusted_hops = message.xff_num_trusted_hops;
    manager.skip_xff_append = message.skip_xff_append;
    manager.generate_request_id = message.generate_request_id.unwrap_or(true);
    manager.preserve_external_request_id = message.preserve_external_request_id;
    manager.always_set_request_id_in_response = message.always_set_request_id_in_response;
    manager.forward_client_cert = match F::try_from(message.forward_client_cert_details) {
        Ok(F::Sanitize) => ForwardClientCert::Sanitize,
        Ok(F::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(F::AppendForward) => ForwardClientCert::AppendForward,
        Ok(F::SanitizeSet) => ForwardClientCert::SanitizeSet,
        Ok(F::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Err(_) => {
            at.field("forward_client_cert_details").refuse("is not known");
            ForwardClientCert::Sanitize
        }
    };
    if let Some(details) = &message.set_current_client_cert_details {
        manager.set_client_cert_details = SetClientCertDetails {
            subject: details.subject.unwrap_or(false),
            cert: details.cert,
            chain: details.chain,
            dns: details.dns,
            uri: details.uri,
        };
    }
    manager.normalize_path = message.normalize_path.unwrap_or(false);
    manager.merge_slashes = message.merge_slashes;
    manager.escaped_slashes = match E::try_from(message.path_with_escaped_slashes_action) {
        Ok(E::ImplementationSpecificDefault | E::KeepUnchanged) => EscapedSlashes::KeepUnchanged,
        Ok(E::RejectRequest) => EscapedSlashes::RejectRequest,
        Ok(E::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(E::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Err(_) => {
            at.field("path_with_escaped_slashes_action").refuse("is not known");
            EscapedSlashes::KeepUnchanged
        }
    };
    manager.strip_any_host_port =
        matches!(message.strip_port_mode, Some(hcm::StripPortMode::StripAnyHostPort(true)));
    manager.strip_matching_host_port = message.strip_matching_host_port;
    manager.strip_trailing_host_dot = message.strip_trailing_host_dot;
    if manager.strip_any_host_port && manager.strip_matching_host_port {
        at.field("strip_matching_host_port").refuse("cannot be given together with `strip_any_host_port`");
    }
    if let Some(core::scheme_header_transformation::Transformation::SchemeToOverwrite(scheme)) =
        message.scheme_header_transformation.as_ref().and_then(|s| s.transformation.as_ref())
    {
        if scheme != "http" && scheme != "https" {
            at.field("scheme_header_transformation")
                .field("scheme_to_overwrite")
                .refuse("must be `http` or `https`");
        }
        manager.scheme_override = Some(scheme.clone());
    }
}

/// The filters before the router, which has to be the last one. Its one setting goes to `suppress_envoy_headers`.
fn http_filters(
    filters: &[proto::HttpFilter],
    suppress_envoy_headers: &mut bool,
    at: &At<'_>,
) -> Vec<HttpFilter> {
    let mut out = Vec::new();
    let mut router_last = false;
    for (i, one) in filters.iter().enumerate() {
        let at = at.item("http_filters", i);
        at.field("name").need_text(&one.name);
        let last = i + 1 == filters.len();
        if one.disabled && last {
            at.field("disabled").refuse("the router cannot be disabled");
        }
        let (any, at) = match &one.config_type {
            Some(proto::http_filter::ConfigType::TypedConfig(any)) => (any, at.field("typed_config")),
            Some(proto::http_filter::ConfigType::ConfigDiscovery(discovery)) => {
                let at = at.field("config_discovery");
                if last {
                    at.refuse("the last filter is the router, whose settings are written here");
                }
                let config = extension::discovered(&one.name, discovery, &at);
                out.push(HttpFilter { name: one.name.clone(), disabled: one.disabled, config });
                continue;
            }
            None => {
                // The name alone configures the router, whose settings are all optional.
                if one.name == "envoy.filters.http.router" && last {
                    router_last = true;
                } else {
                    at.field("typed_config").refuse("is required");
                }
                continue;
            }
        };
        if let Some(router) = at.unpack::<Router>(any) {
            if !last {
                at.refuse("the router must be the last filter");
            }
            router_last = last;
            *suppress_envoy_headers = router.message().is_some_and(|m| m.suppress_envoy_headers);
        } else if let Some(config) = filter::filter(any, &at) {
            out.push(HttpFilter { name: one.name.clone(), disabled: one.disabled, config });
        }
    }
    // Envoy accepts an empty list, with which it answers nothing; here the router is implied.
    if !router_last && !filters.is_empty() {
        at.field("http_filters").refuse("the last filter must be the router");
    }
    out
}

fn upgrades(configs: &[hcm::UpgradeConfig], at: &At<'_>) -> Vec<Upgrade> {
    let mut out: Vec<Upgrade> = Vec::new();
    for (i, config) in configs.iter().enumerate() {
        upgrade(&config.upgrade_type, config.enabled, &mut out, &at.item("upgrade_configs", i));
    }
    out
}

/// Adds an upgrade; types are unique without regard to case, as in Envoy.
pub(super) fn upgrade(name: &str, enabled: Option<bool>, out: &mut Vec<Upgrade>, at: &At<'_>) {
    let at = at.field("upgrade_type");
    at.need_text(name);
    if out.iter().any(|u| u.upgrade_type.eq_ignore_ascii_case(name)) {
        at.refuse(format!("`{name}` is given twice"));
    }
    out.push(Upgrade { upgrade_type: name.to_owned(), enabled: enabled.unwrap_or(true) });
}

/// `Http1ProtocolOptions`.
pub(super) fn http1(options: &core::Http1ProtocolOptions, at: &At<'_>) -> Http1Options {
    if options.allow_absolute_url == Some(false) {
        at.field("allow_absolute_url")
            .refuse("absolute-form targets must be accepted (RFC 9112 section 3.2.2)");
    }
    Http1Options {
        accept_http_10: options.accept_http_10,
        default_host_for_http_10: options.default_host_for_http_10.clone(),
        enable_trailers: options.enable_trailers,
    }
}

/// `Http2ProtocolOptions`.
pub(super) fn http2(options: &core::Http2ProtocolOptions, at: &At<'_>) -> Http2Options {
    let mut out = Http2Options::default();
    let bounded = |value: Option<u32>, default: u32, min: u32, field: &str| match value {
        None => default,
        Some(value) => {
            if !(min..=H2_MAX).contains(&value) {
                at.field(field).refuse(format!("must be between {min} and {H2_MAX}"));
            }
            value
        }
    };
    out.hpack_table_size = options.hpack_table_size.unwrap_or(out.hpack_table_size);
    out.max_concurrent_streams =
        bounded(options.max_concurrent_streams, out.max_concurrent_streams, 1, "max_concurrent_streams");
    out.initial_stream_window_size = bounded(
        options.initial_stream_window_size,
        out.initial_stream_window_size,
        H2_WINDOW_MIN,
        "initial_stream_window_size",
    );
    out.initial_connection_window_size = bounded(
        options.initial_connection_window_size,
        out.initial_connection_window_size,
        H2_WINDOW_MIN,
        "initial_connection_window_size",
    );
    out.allow_connect = options.allow_connect;
    if let Some(keepalive) = &options.connection_keepalive {
        let at = at.field("connection_keepalive");
        let least = |value: &prost_types::Duration, at: &At<'_>| {
            duration(value, at).inspect(|d| {
                if *d < Duration::from_millis(1) {
                    at.refuse("must be at least 0.001s");
                }
            })
        };
        out.keepalive_interval = keepalive.interval.as_ref().and_then(|v| least(v, &at.field("interval")));
        let at = at.field("timeout");
        if let Some(timeout) = at.need(keepalive.timeout.as_ref()).and_then(|v| least(v, &at)) {
            out.keepalive_timeout = timeout;
        }
    }
    out
}
