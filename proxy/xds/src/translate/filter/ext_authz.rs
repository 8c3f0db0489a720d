//! `ExtAuthz`.

use super::super::At;
use super::super::metadata::metadata_match;
use super::super::service;
use super::super::value::{header_name, runtime_fraction, string_match};
use outrigger_api::envoy::config::core::v3::ApiVersion;
use outrigger_api::envoy::extensions::filters::http::ext_authz::v3 as proto;
use outrigger_api::envoy::r#type::matcher::v3::ListStringMatcher;
use outrigger_traffic::config::{
    AuthzBody, AuthzCheck, AuthzHttp, AuthzService, ExtAuthz, ExtAuthzRoute, Fraction, StringMatch,
};
use std::time::Duration;

/// Time for a call where nothing is said. Source: Envoy.
const TIMEOUT: Duration = Duration::from_millis(200);

pub(super) fn authz(message: &proto::ExtAuthz, at: &At<'_>) -> Option<ExtAuthz> {
    use proto::ext_authz::Services as S;
    let names = |list: &Option<ListStringMatcher>, field: &str| {
        list.as_ref().map(|list| names(list, &at.field(field)))
    };
    let mut allowed_headers = names(&message.allowed_headers, "allowed_headers");
    let service = match at.need(message.services.as_ref())? {
        S::GrpcService(service) => {
            if message.transport_api_version != i32::from(ApiVersion::V3) {
                at.field("transport_api_version").refuse("must be V3");
            }
            AuthzService::Grpc(service::grpc(service, TIMEOUT, &at.field("grpc_service"))?)
        }
        S::HttpService(service) => {
            let at = at.field("http_service");
            let older = service.authorization_request.as_ref().and_then(|r| r.allowed_headers.as_ref());
            if let Some(older) = older {
                let at_request = at.field("authorization_request");
                let at = at_request.field("allowed_headers");
                if allowed_headers.is_some() {
                    at.refuse("cannot be given together with the filter's own");
                }
                allowed_headers = Some(self::names(older, &at));
            }
            AuthzService::Http(Box::new(http(service, &at)?))
        }
    };
    if allowed_headers.is_some() && message.disallowed_headers.is_some() {
        at.field("disallowed_headers").refuse("cannot be given together with `allowed_headers`");
    }
    Some(ExtAuthz {
        service,
        failure_allow: message.failure_mode_allow,
        failure_allow_header: message.failure_mode_allow_header_add,
        clear_route_cache: message.clear_route_cache,
        status_on_error: status(message.status_on_error.as_ref().map_or(0, |s| s.code)),
        enabled: match &message.filter_enabled {
            Some(share) => runtime_fraction(share, &at.field("filter_enabled")).unwrap_or(Fraction::ONE),
            None => Fraction::ONE,
        },
        enabled_metadata: message
            .filter_enabled_metadata
            .as_ref()
            .and_then(|m| metadata_match(m, &at.field("filter_enabled_metadata"))),
        deny_at_disable: message
            .deny_at_disable
            .as_ref()
            .and_then(|flag| flag.default_value)
            .unwrap_or(false),
        include_peer_certificate: message.include_peer_certificate,
        include_tls_session: message.include_tls_session,
        metadata_namespaces: message.metadata_context_namespaces.clone(),
        allowed_headers,
        disallowed_headers: names(&message.disallowed_headers, "disallowed_headers").unwrap_or_default(),
        ingest_metadata: message.enable_dynamic_metadata_ingestion.unwrap_or(true),
        body: message.with_request_body.as_ref().map(body),
        raw_headers: message.encode_raw_headers,
        denied_body_max: message.max_denied_response_body_bytes,
    })
}

fn body(message: &proto::BufferSettings) -> AuthzBody {
    AuthzBody {
        bytes_max: message.max_request_bytes,
        partial: message.allow_partial_message,
        as_bytes: message.pack_as_bytes,
    }
}

/// None, or one that is no status, is 403, as in Envoy.
fn status(code: i32) -> u16 {
    u16::try_from(code).ok().filter(|code| (200..=599).contains(code)).unwrap_or(403)
}

fn http(message: &proto::HttpService, at: &At<'_>) -> Option<AuthzHttp> {
    let at_uri = at.field("server_uri");
    let target = at_uri.need(message.server_uri.as_ref()).and_then(|uri| service::http(uri, &at_uri))?;
    if !message.path_prefix.is_empty() && !message.path_prefix.starts_with('/') {
        at.field("path_prefix").refuse("must begin with a slash");
    }
    let added = message.authorization_request.iter().flat_map(|request| &request.headers_to_add);
    let at_request = at.field("authorization_request");
    let headers_to_add = added.enumerate().map(|(i, one)| {
        let at = at_request.item("headers_to_add", i);
        if one.value.contains(['%', '\r', '\n']) || !one.raw_value.is_empty() {
            at.field("value").refuse("only plain values are supported here");
        }
        (header_name(&one.key, false, &at.field("key")), one.value.clone())
    });
    let headers_to_add = headers_to_add.collect();
    let answers = message.authorization_response.clone().unwrap_or_default();
    let at_answer = at.field("authorization_response");
    let list = |list: &Option<ListStringMatcher>, field: &str| {
        list.as_ref().map(|list| names(list, &at_answer.field(field))).unwrap_or_default()
    };
    Some(AuthzHttp {
        target,
        path_prefix: message.path_prefix.clone(),
        headers_to_add,
        upstream_headers: list(&answers.allowed_upstream_headers, "allowed_upstream_headers"),
        upstream_headers_to_append: list(
            &answers.allowed_upstream_headers_to_append,
            "allowed_upstream_headers_to_append",
        ),
        client_headers: list(&answers.allowed_client_headers, "allowed_client_headers"),
        client_headers_on_success: list(
            &answers.allowed_client_headers_on_success,
            "allowed_client_headers_on_success",
        ),
        metadata_from_headers: list(&answers.dynamic_metadata_from_headers, "dynamic_metadata_from_headers"),
        retry: message.retry_policy.as_ref().map(|policy| service::retry(policy, &at.field("retry_policy"))),
    })
}

fn names(list: &ListStringMatcher, at: &At<'_>) -> Vec<StringMatch> {
    let each = list.patterns.iter().enumerate();
    each.filter_map(|(i, one)| {
        let mut one = string_match(one, &at.item("patterns", i))?;
        // Names of fields are compared in lower case.
        if let outrigger_traffic::config::StringPattern::Exact(name) = &mut one.pattern {
            *name = name.to_ascii_lowercase();
        }
        Some(one)
    })
    .collect()
}

pub(super) fn route(message: &proto::ExtAuthzPerRoute, at: &At<'_>) -> Option<ExtAuthzRoute> {
    use proto::ext_authz_per_route::Override as O;
    match at.need(message.r#override.as_ref())? {
        O::Disabled(true) => Some(ExtAuthzRoute::Disabled),
        O::Disabled(false) => {
            at.field("disabled").refuse("must be true");
            None
        }
        O::CheckSettings(settings) => {
            let own = settings.with_request_body.as_ref().map(body);
            if settings.disable_request_body_buffering && own.is_some() {
                at.field("check_settings")
                    .field("with_request_body")
                    .refuse("cannot be given together with `disable_request_body_buffering`");
            }
            if own.is_some_and(|body| body.as_bytes) {
                let at = at.field("check_settings");
                at.field("with_request_body")
                    .field("pack_as_bytes")
                    .notice("what the filter says holds, as in Envoy");
            }
            Some(ExtAuthzRoute::Check(AuthzCheck {
                extensions: settings.context_extensions.clone(),
                body: if settings.disable_request_body_buffering { Some(None) } else { own.map(Some) },
            }))
        }
    }
}
