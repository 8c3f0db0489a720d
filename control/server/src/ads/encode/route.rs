//! `RouteConfiguration`.

use outrigger_api::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use outrigger_api::envoy::config::core::v3::{HeaderValue, HeaderValueOption, RoutingPriority};
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use outrigger_api::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use outrigger_api::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use outrigger_api::envoy::r#type::v3::Int64Range;
use outrigger_api::{any, metadata};
use outrigger_traffic::config::{
    Action, ClusterChoice, HashPolicy, HashSource, HeaderAppend, HeaderEdit, HeaderEdits, HeaderMatch,
    HeaderValueMatch, HostRewrite, PathMatch, PathRewrite, QueryMatch, QueryValueMatch, Redirect,
    ResetHeaderFormat, RetryOn, RetryPolicy, Route, RouteAction, RouteConfig, RouteMatch, VirtualHost,
    WeightedCluster,
};
use proto::route_action as ra;

use super::filter;
use super::metadata::metadata_match;
use super::mirror::{extension, internal_redirect, mirror, share_of};
use super::subset;
use super::tracing::route_tracing;
use super::value::{bytes, duration, limit, regex, string_match, substitution};

/// A table of routes.
pub fn route_config(value: &RouteConfig) -> proto::RouteConfiguration {
    let edits = Edits::of(&value.headers);
    proto::RouteConfiguration {
        name: value.name.clone(),
        virtual_hosts: value.virtual_hosts.iter().map(|host| virtual_host(host)).collect(),
        internal_only_headers: value.internal_only_headers.clone(),
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        request_headers_to_add: edits.request_add,
        request_headers_to_remove: edits.request_remove,
        validate_clusters: Some(value.validate_clusters),
        most_specific_header_mutations_wins: value.most_specific_header_mutations_wins,
        max_direct_response_body_size_bytes: None,
        ignore_port_in_host_matching: value.ignore_port_in_host_matching,
        request_mirror_policies: value.mirrors.iter().map(mirror).collect(),
        typed_per_filter_config: filter::overrides(value.filters.as_ref()),
    }
}

struct Edits {
    request_add: Vec<HeaderValueOption>,
    request_remove: Vec<String>,
    response_add: Vec<HeaderValueOption>,
    response_remove: Vec<String>,
}

impl Edits {
    fn of(value: &HeaderEdits) -> Self {
        Self {
            request_add: value.request_add.iter().map(header_edit).collect(),
            request_remove: value.request_remove.clone(),
            response_add: value.response_add.iter().map(header_edit).collect(),
            response_remove: value.response_remove.clone(),
        }
    }
}

pub(super) fn header_edit(value: &HeaderEdit) -> HeaderValueOption {
    let action = match value.append {
        HeaderAppend::AppendIfExistsOrAdd => HeaderAppendAction::AppendIfExistsOrAdd,
        HeaderAppend::AddIfAbsent => HeaderAppendAction::AddIfAbsent,
        HeaderAppend::OverwriteIfExistsOrAdd => HeaderAppendAction::OverwriteIfExistsOrAdd,
        HeaderAppend::OverwriteIfExists => HeaderAppendAction::OverwriteIfExists,
    };
    HeaderValueOption {
        header: Some(HeaderValue {
            key: value.name.clone(),
            value: value.value.clone(),
            raw_value: Vec::new(),
        }),
        append: None,
        append_action: action.into(),
        keep_empty_value: value.keep_empty_value,
    }
}

fn virtual_host(value: &VirtualHost) -> proto::VirtualHost {
    use proto::virtual_host::TlsRequirementType as T;
    let edits = Edits::of(&value.headers);
    proto::VirtualHost {
        name: value.name.clone(),
        domains: value.domains.clone(),
        routes: value.routes.iter().map(route).collect(),
        rate_limits: filter::rate_limits(&value.rate_limits),
        require_tls: if value.require_tls { T::All } else { T::None }.into(),
        request_headers_to_add: edits.request_add,
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        request_headers_to_remove: edits.request_remove,
        include_request_attempt_count: value.include_request_attempt_count,
        typed_per_filter_config: filter::overrides(value.filters.as_ref()),
        retry_policy: value.retry_policy.as_ref().map(retry_policy),
        per_request_buffer_limit_bytes: value.per_request_buffer_limit_bytes,
        include_attempt_count_in_response: value.include_attempt_count_in_response,
        request_mirror_policies: value.mirrors.iter().map(mirror).collect(),
        metadata: retry_metadata(value.retry_policy.as_ref()),
    }
}

fn retry_metadata(policy: Option<&RetryPolicy>) -> Option<outrigger_api::envoy::config::core::v3::Metadata> {
    metadata::of(&[], &[(metadata::RETRY_NON_IDEMPOTENT, policy.is_some_and(|p| p.retry_non_idempotent))])
}

fn route(value: &Route) -> proto::Route {
    use proto::route::Action as A;
    let edits = Edits::of(&value.headers);
    let (action, retries) = match &value.action {
        Action::Forward(to) => (A::Route(forward(to)), to.retry_policy.as_ref()),
        Action::Redirect(to) => (A::Redirect(redirect(to)), None),
        Action::Direct(response) => {
            let body = (!response.body.is_empty()).then(|| bytes(&response.body));
            (A::DirectResponse(proto::DirectResponseAction { status: response.status.into(), body }), None)
        }
    };
    proto::Route {
        r#match: Some(route_match(&value.matches)),
        metadata: retry_metadata(retries),
        decorator: value.decorator.clone().map(|operation| proto::Decorator { operation }),
        request_headers_to_add: edits.request_add,
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        request_headers_to_remove: edits.request_remove,
        typed_per_filter_config: filter::overrides(value.filters.as_ref()),
        name: value.name.clone(),
        tracing: value.tracing.as_ref().map(route_tracing),
        per_request_buffer_limit_bytes: value.per_request_buffer_limit_bytes,
        action: Some(action),
    }
}

pub(super) fn route_match(value: &RouteMatch) -> proto::RouteMatch {
    use proto::route_match::{ConnectMatcher, GrpcRouteMatchOptions, PathSpecifier as P};
    let path = match &value.path {
        PathMatch::Prefix(text) => P::Prefix(text.clone()),
        PathMatch::Exact(text) => P::Path(text.clone()),
        PathMatch::Regex(pattern) => P::SafeRegex(regex(pattern)),
        PathMatch::PathSeparatedPrefix(text) => P::PathSeparatedPrefix(text.clone()),
        PathMatch::Template(text) => P::PathMatchPolicy(extension(
            "envoy.path.match.uri_template.uri_template_matcher",
            &UriTemplateMatchConfig { path_template: text.clone() },
        )),
        PathMatch::Connect => P::ConnectMatcher(ConnectMatcher {}),
    };
    let fraction = value.fraction.map(share_of);
    proto::RouteMatch {
        case_sensitive: Some(value.case_sensitive),
        headers: value.headers.iter().map(header_match).collect(),
        query_parameters: value.query.iter().map(query_match).collect(),
        grpc: value.grpc.then_some(GrpcRouteMatchOptions {}),
        runtime_fraction: fraction,
        tls_context: value.tls.map(|tls| proto::route_match::TlsContextMatchOptions {
            presented: tls.presented,
            validated: tls.validated,
        }),
        path_specifier: Some(path),
        dynamic_metadata: value.metadata.iter().map(metadata_match).collect(),
    }
}

pub(super) fn header_match(value: &HeaderMatch) -> proto::HeaderMatcher {
    use proto::header_matcher::HeaderMatchSpecifier as H;
    let specifier = match &value.value {
        HeaderValueMatch::Present(present) => H::PresentMatch(*present),
        HeaderValueMatch::Text(text) => H::StringMatch(string_match(text)),
        HeaderValueMatch::Range(start, end) => H::RangeMatch(Int64Range { start: *start, end: *end }),
    };
    proto::HeaderMatcher {
        name: value.name.clone(),
        invert_match: value.invert,
        treat_missing_header_as_empty: value.treat_missing_as_empty,
        header_match_specifier: Some(specifier),
    }
}

pub(super) fn query_match(value: &QueryMatch) -> proto::QueryParameterMatcher {
    use proto::query_parameter_matcher::QueryParameterMatchSpecifier as Q;
    let specifier = match &value.value {
        QueryValueMatch::Present(present) => Q::PresentMatch(*present),
        QueryValueMatch::Text(text) => Q::StringMatch(string_match(text)),
    };
    proto::QueryParameterMatcher {
        name: value.name.clone(),
        query_parameter_match_specifier: Some(specifier),
    }
}

fn forward(value: &RouteAction) -> proto::RouteAction {
    use ra::{ClusterNotFoundResponseCode as N, HostRewriteSpecifier as H};
    let not_found = match value.cluster_not_found_status {
        404 => N::NotFound,
        500 => N::InternalServerError,
        _ => N::ServiceUnavailable,
    };
    let host = value.host_rewrite.as_ref().map(|rewrite| match rewrite {
        HostRewrite::Literal(host) => H::HostRewriteLiteral(host.clone()),
        HostRewrite::Auto => H::AutoHostRewrite(true),
        HostRewrite::Header(name) => H::HostRewriteHeader(name.clone()),
        HostRewrite::PathRegex { pattern, substitution: by } => {
            H::HostRewritePathRegex(substitution(pattern, by))
        }
        HostRewrite::Format(text) => H::HostRewrite(text.clone()),
    });
    let (prefix_rewrite, regex_rewrite) = path_rewrite(value.path_rewrite.as_ref());
    let path_rewrite_policy = match &value.path_rewrite {
        Some(PathRewrite::Template(text)) => Some(extension(
            "envoy.path.rewrite.uri_template.uri_template_rewriter",
            &UriTemplateRewriteConfig { path_template_rewrite: text.clone() },
        )),
        _ => None,
    };
    let path_rewrite = match &value.path_rewrite {
        Some(PathRewrite::Format(text)) => text.clone(),
        _ => String::new(),
    };
    let offset = Some(value.grpc_timeout_header_offset).filter(|offset| !offset.is_zero());
    let durations =
        (value.max_stream_duration.is_some() || value.grpc_timeout_header_max.is_some() || offset.is_some())
            .then(|| ra::MaxStreamDuration {
                max_stream_duration: value.max_stream_duration.map(duration),
                grpc_timeout_header_max: value.grpc_timeout_header_max.map(duration),
                grpc_timeout_header_offset: offset.map(duration),
            });
    let upgrade = |u: &outrigger_traffic::config::Upgrade| ra::UpgradeConfig {
        connect_config: (value.connect_ends && u.upgrade_type.eq_ignore_ascii_case("connect"))
            .then_some(ra::upgrade_config::ConnectConfig { allow_post: value.post_ends }),
        upgrade_type: u.upgrade_type.clone(),
        enabled: Some(u.enabled),
    };
    proto::RouteAction {
        prefix_rewrite,
        rate_limits: filter::rate_limits(&value.rate_limits),
        timeout: limit(value.timeout),
        retry_policy: value.retry_policy.as_ref().map(retry_policy),
        priority: if value.high_priority { RoutingPriority::High } else { RoutingPriority::Default }.into(),
        metadata_match: subset::demanded(&value.metadata_match),
        hash_policy: value.hash_policy.iter().map(hash_policy).collect(),
        cluster_not_found_response_code: not_found.into(),
        max_grpc_timeout: None,
        idle_timeout: value.idle_timeout.map(duration),
        upgrade_configs: value.upgrades.iter().map(upgrade).collect(),
        regex_rewrite,
        max_stream_duration: durations,
        append_x_forwarded_host: value.append_x_forwarded_host,
        request_mirror_policies: value.mirrors.iter().map(mirror).collect(),
        internal_redirect_policy: value.internal_redirect.as_ref().map(internal_redirect),
        path_rewrite_policy,
        path_rewrite,
        cluster_specifier: Some(cluster_choice(&value.cluster, value.split_header.as_ref())),
        host_rewrite_specifier: host,
    }
}

fn hash_policy(value: &HashPolicy) -> ra::HashPolicy {
    use ra::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier as P, QueryParameter,
    };
    let specifier = match &value.source {
        HashSource::Header { name, rewrite } => P::Header(Header {
            header_name: name.clone(),
            regex_rewrite: rewrite.as_ref().map(|(pattern, by)| substitution(pattern, by)),
        }),
        HashSource::Cookie(cookie) => P::Cookie(Cookie {
            name: cookie.name.clone(),
            ttl: cookie.ttl.map(duration),
            path: cookie.path.clone(),
            attributes: cookie
                .attributes
                .iter()
                .map(|(name, value)| CookieAttribute { name: name.clone(), value: value.clone() })
                .collect(),
        }),
        HashSource::SourceIp => P::ConnectionProperties(ConnectionProperties { source_ip: true }),
        HashSource::Query(name) => P::QueryParameter(QueryParameter { name: name.clone() }),
    };
    ra::HashPolicy { terminal: value.terminal, policy_specifier: Some(specifier) }
}

fn path_rewrite(
    value: Option<&PathRewrite>,
) -> (String, Option<outrigger_api::envoy::r#type::matcher::v3::RegexMatchAndSubstitute>) {
    match value {
        // The latter two have fields of their own.
        None | Some(PathRewrite::Template(_) | PathRewrite::Format(_)) => (String::new(), None),
        Some(PathRewrite::Prefix(prefix)) => (prefix.clone(), None),
        Some(PathRewrite::Regex { pattern, substitution: by }) => {
            (String::new(), Some(substitution(pattern, by)))
        }
    }
}

fn cluster_choice(value: &ClusterChoice, split_header: Option<&String>) -> ra::ClusterSpecifier {
    match value {
        ClusterChoice::Single(name) => ra::ClusterSpecifier::Cluster(name.clone()),
        ClusterChoice::Header(name) => ra::ClusterSpecifier::ClusterHeader(name.clone()),
        ClusterChoice::Weighted(shares) => ra::ClusterSpecifier::WeightedClusters(proto::WeightedCluster {
            runtime_key_prefix: String::new(),
            clusters: shares.iter().map(share).collect(),
            total_weight: None,
            random_value_specifier: split_header
                .cloned()
                .map(proto::weighted_cluster::RandomValueSpecifier::HeaderName),
        }),
    }
}

fn share(value: &WeightedCluster) -> proto::weighted_cluster::ClusterWeight {
    use proto::weighted_cluster::cluster_weight::HostRewriteSpecifier as H;
    let edits = Edits::of(&value.headers);
    proto::weighted_cluster::ClusterWeight {
        name: value.name.clone(),
        cluster_header: value.cluster_header.clone().unwrap_or_default(),
        weight: Some(value.weight),
        metadata_match: subset::demanded(&value.metadata_match),
        request_headers_to_add: edits.request_add,
        response_headers_to_add: edits.response_add,
        response_headers_to_remove: edits.response_remove,
        request_headers_to_remove: edits.request_remove,
        host_rewrite_specifier: value.host_rewrite.clone().map(H::HostRewriteLiteral),
        typed_per_filter_config: filter::overrides(value.filters.as_ref()),
    }
}

fn redirect(value: &Redirect) -> proto::RedirectAction {
    use proto::redirect_action::{
        PathRewriteSpecifier as P, RedirectResponseCode as C, SchemeRewriteSpecifier as S,
    };
    let code = match value.status {
        302 => C::Found,
        303 => C::SeeOther,
        307 => C::TemporaryRedirect,
        308 => C::PermanentRedirect,
        _ => C::MovedPermanently,
    };
    let path = match (&value.path, &value.path_rewrite) {
        (Some(path), _) => Some(P::PathRedirect(path.clone())),
        (None, Some(PathRewrite::Prefix(prefix))) => Some(P::PrefixRewrite(prefix.clone())),
        (None, Some(PathRewrite::Regex { pattern, substitution: by })) => {
            Some(P::RegexRewrite(substitution(pattern, by)))
        }
        // A redirect has no other rewrites.
        (None, None | Some(PathRewrite::Template(_) | PathRewrite::Format(_))) => None,
    };
    proto::RedirectAction {
        host_redirect: value.host.clone().unwrap_or_default(),
        response_code: code.into(),
        strip_query: value.strip_query,
        port_redirect: value.port.map(u32::from).unwrap_or_default(),
        path_rewrite_specifier: path,
        scheme_rewrite_specifier: value.scheme.clone().map(S::SchemeRedirect),
    }
}

fn retry_policy(value: &RetryPolicy) -> proto::RetryPolicy {
    use proto::retry_policy as r;
    let predicate = || r::RetryHostPredicate {
        name: "envoy.retry_host_predicates.previous_hosts".to_owned(),
        config_type: Some(r::retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
    };
    let rate_limited = value.rate_limited.as_ref().map(|limited| r::RateLimitedRetryBackOff {
        reset_headers: limited
            .reset_headers
            .iter()
            .map(|header| r::ResetHeader {
                name: header.name.clone(),
                format: match header.format {
                    ResetHeaderFormat::Seconds => r::ResetHeaderFormat::Seconds,
                    ResetHeaderFormat::UnixTimestamp => r::ResetHeaderFormat::UnixTimestamp,
                }
                .into(),
            })
            .collect(),
        max_interval: Some(duration(limited.max_interval)),
    });
    proto::RetryPolicy {
        retry_on: retry_on(value.retry_on),
        num_retries: Some(value.num_retries),
        per_try_timeout: value.per_try_timeout.map(duration),
        retry_host_predicate: value.avoid_previous_hosts.then(predicate).into_iter().collect(),
        host_selection_retry_max_attempts: value.host_selection_max_attempts.into(),
        retriable_status_codes: value.retriable_status_codes.iter().map(|code| u32::from(*code)).collect(),
        retry_back_off: Some(r::RetryBackOff {
            base_interval: Some(duration(value.base_interval)),
            max_interval: Some(duration(value.max_interval)),
        }),
        retriable_headers: value.retriable_headers.iter().map(header_match).collect(),
        retriable_request_headers: value.retriable_request_headers.iter().map(header_match).collect(),
        rate_limited_retry_back_off: rate_limited,
        per_try_idle_timeout: value.per_try_idle_timeout.map(duration),
    }
}

fn retry_on(on: RetryOn) -> String {
    let words = [
        (on.server_error, "5xx"),
        (on.gateway_error, "gateway-error"),
        (on.reset, "reset"),
        (on.reset_before_request, "reset-before-request"),
        (on.connect_failure, "connect-failure"),
        (on.refused_stream, "refused-stream"),
        (on.retriable_4xx, "retriable-4xx"),
        (on.retriable_status_codes, "retriable-status-codes"),
        (on.retriable_headers, "retriable-headers"),
        (on.envoy_ratelimited, "envoy-ratelimited"),
        (on.grpc_cancelled, "cancelled"),
        (on.grpc_deadline_exceeded, "deadline-exceeded"),
        (on.grpc_internal, "internal"),
        (on.grpc_resource_exhausted, "resource-exhausted"),
        (on.grpc_unavailable, "unavailable"),
    ];
    let on: Vec<&str> = words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
    on.join(",")
}
