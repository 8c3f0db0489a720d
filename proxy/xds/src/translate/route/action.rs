//! What a route does.

use super::hash_policy::hash_policy;
use super::headers::header_edits;
use super::mirror::{internal_redirect, mirrors};
use super::retry;
use crate::translate::value::{duration, header_name, limit_or, port, regex};
use crate::translate::{At, files, filter, http_connection_manager, subset};
use outrigger_api::envoy::config::core::v3::RoutingPriority;
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::envoy::extensions::path::rewrite::uri_template::v3::UriTemplateRewriteConfig;
use outrigger_api::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use outrigger_traffic::config::{
    Action, ClusterChoice, DirectResponse, HostRewrite, PathRewrite, Redirect, RouteAction, WeightedCluster,
};
use proto::route_action as ra;
use std::time::Duration;

/// Forwarding; `None` when no cluster is named (noted).
pub(super) fn forward(message: &proto::RouteAction, non_idempotent: bool, at: &At<'_>) -> Option<Action> {
    let cluster = cluster_choice(message, at);
    let path_rewrite = path_rewrite(&message.prefix_rewrite, message.regex_rewrite.as_ref(), at);
    let path_rewrite = further_rewrite(message, path_rewrite, at);
    let mut action = RouteAction::to("");
    action.cluster_not_found_status =
        match ra::ClusterNotFoundResponseCode::try_from(message.cluster_not_found_response_code) {
            Ok(ra::ClusterNotFoundResponseCode::ServiceUnavailable) => 503,
            Ok(ra::ClusterNotFoundResponseCode::NotFound) => 404,
            Ok(ra::ClusterNotFoundResponseCode::InternalServerError) => 500,
            Err(_) => {
                at.field("cluster_not_found_response_code").refuse("is not known");
                503
            }
        };
    action.path_rewrite = path_rewrite;
    action.host_rewrite = host_rewrite(message, at);
    action.append_x_forwarded_host = message.append_x_forwarded_host;
    action.timeout = limit_or(message.timeout.as_ref(), action.timeout, &at.field("timeout"));
    action.idle_timeout = message.idle_timeout.as_ref().and_then(|v| duration(v, &at.field("idle_timeout")));
    stream_durations(message, &mut action, at);
    action.retry_policy = message
        .retry_policy
        .as_ref()
        .map(|p| retry::retry_policy(p, non_idempotent, &at.field("retry_policy")));
    for (i, upgrade) in message.upgrade_configs.iter().enumerate() {
        let at = at.item("upgrade_configs", i);
        http_connection_manager::upgrade(&upgrade.upgrade_type, upgrade.enabled, &mut action.upgrades, &at);
        if let Some(config) = &upgrade.connect_config {
            // Source: Envoy: non-CONNECT upgrades have none.
            if !upgrade.upgrade_type.eq_ignore_ascii_case("CONNECT") {
                at.field("connect_config").refuse("is for upgrades of type CONNECT");
            }
            action.connect_ends = true;
            action.post_ends |= config.allow_post;
        }
    }
    action.high_priority = match RoutingPriority::try_from(message.priority) {
        Ok(RoutingPriority::Default) => false,
        Ok(RoutingPriority::High) => true,
        Err(_) => {
            at.field("priority").refuse("is not known");
            false
        }
    };
    action.metadata_match = subset::lb_metadata(message.metadata_match.as_ref());
    action.hash_policy = hash_policy(&message.hash_policy, at);
    action.mirrors = mirrors(&message.request_mirror_policies, at);
    action.internal_redirect = message
        .internal_redirect_policy
        .as_ref()
        .map(|policy| internal_redirect(policy, &at.field("internal_redirect_policy")));
    if let Some(ra::ClusterSpecifier::WeightedClusters(weighted)) = &message.cluster_specifier
        && let Some(proto::weighted_cluster::RandomValueSpecifier::HeaderName(name)) =
            &weighted.random_value_specifier
    {
        let at = at.field("weighted_clusters");
        action.split_header = Some(header_name(name, true, &at.field("header_name")));
    }
    action.cluster = cluster?;
    action.rate_limits = filter::local_rate_limit::rules_of_level(&message.rate_limits, at);
    Some(Action::Forward(Box::new(action)))
}

fn cluster_choice(message: &proto::RouteAction, at: &At<'_>) -> Option<ClusterChoice> {
    match &message.cluster_specifier {
        Some(ra::ClusterSpecifier::Cluster(name)) => {
            at.field("cluster").need_text(name);
            Some(ClusterChoice::Single(name.clone()))
        }
        Some(ra::ClusterSpecifier::ClusterHeader(name)) => {
            Some(ClusterChoice::Header(header_name(name, true, &at.field("cluster_header"))))
        }
        Some(ra::ClusterSpecifier::WeightedClusters(weighted)) => {
            Some(ClusterChoice::Weighted(shares(weighted, &at.field("weighted_clusters"))))
        }
        None => {
            at.refuse("`cluster`, `weighted_clusters` or `cluster_header` is required");
            None
        }
    }
}

fn shares(message: &proto::WeightedCluster, at: &At<'_>) -> Vec<WeightedCluster> {
    if message.clusters.is_empty() {
        at.field("clusters").refuse("at least one is required");
    }
    let mut sum = 0u64;
    let mut out = Vec::with_capacity(message.clusters.len());
    for (i, share) in message.clusters.iter().enumerate() {
        let at = at.item("clusters", i);
        let header = (!share.cluster_header.is_empty())
            .then(|| header_name(&share.cluster_header, true, &at.field("cluster_header")));
        match &header {
            None => at.field("name").need_text(&share.name),
            Some(_) if share.name.is_empty() => {}
            Some(_) => at.field("cluster_header").refuse("cannot be given together with `name`"),
        }
        let mut weight = share.weight.unwrap_or(0);
        if !message.runtime_key_prefix.is_empty() {
            let key = format!("{}.{}", message.runtime_key_prefix, share.name);
            weight = at.runtime().whole_u32(&key, weight);
        }
        sum += u64::from(weight);
        let host_rewrite = share.host_rewrite_specifier.as_ref().map(|s| match s {
            proto::weighted_cluster::cluster_weight::HostRewriteSpecifier::HostRewriteLiteral(host) => {
                host.clone()
            }
        });
        out.push(WeightedCluster {
            name: share.name.clone(),
            cluster_header: header,
            weight,
            headers: header_edits(
                &share.request_headers_to_add,
                &share.request_headers_to_remove,
                &share.response_headers_to_add,
                &share.response_headers_to_remove,
                &at,
            ),
            host_rewrite,
            filters: filter::overrides(&share.typed_per_filter_config, &at),
            metadata_match: subset::lb_metadata(share.metadata_match.as_ref()),
        });
    }
    if !message.clusters.is_empty() && (sum == 0 || sum > u64::from(u32::MAX)) {
        at.refuse("the sum of the weights must be between 1 and 4294967295");
    }
    if let Some(total) = message.total_weight
        && message.runtime_key_prefix.is_empty()
        && u64::from(total) != sum
    {
        at.field("total_weight").refuse(format!("is {total}, but the weights sum up to {sum}"));
    }
    out
}

fn host_rewrite(message: &proto::RouteAction, at: &At<'_>) -> Option<HostRewrite> {
    use ra::HostRewriteSpecifier as H;
    match message.host_rewrite_specifier.as_ref()? {
        H::HostRewriteLiteral(host) => Some(HostRewrite::Literal(host.clone())),
        H::AutoHostRewrite(on) => on.then_some(HostRewrite::Auto),
        H::HostRewriteHeader(name) => {
            Some(HostRewrite::Header(header_name(name, true, &at.field("host_rewrite_header"))))
        }
        H::HostRewritePathRegex(rewrite) => {
            let (pattern, substitution) = substitution(rewrite, &at.field("host_rewrite_path_regex"))?;
            Some(HostRewrite::PathRegex { pattern, substitution })
        }
        H::HostRewrite(format) => {
            at.field("host_rewrite").need_text(format);
            Some(HostRewrite::Format(format.clone()))
        }
    }
}

/// `max_stream_duration`, and `max_grpc_timeout`, which is its older form and means the same.
fn stream_durations(message: &proto::RouteAction, action: &mut RouteAction, at: &At<'_>) {
    let limit = |value: Option<&prost_types::Duration>, at: &At<'_>| -> Option<Duration> {
        value.and_then(|v| duration(v, at))
    };
    if let Some(max) = &message.max_stream_duration {
        let at = at.field("max_stream_duration");
        action.max_stream_duration =
            limit(max.max_stream_duration.as_ref(), &at.field("max_stream_duration"));
        action.grpc_timeout_header_max =
            limit(max.grpc_timeout_header_max.as_ref(), &at.field("grpc_timeout_header_max"));
        let offset = limit(max.grpc_timeout_header_offset.as_ref(), &at.field("grpc_timeout_header_offset"));
        action.grpc_timeout_header_offset = offset.unwrap_or_default();
    }
    if let Some(older) = limit(message.max_grpc_timeout.as_ref(), &at.field("max_grpc_timeout")) {
        if action.grpc_timeout_header_max.is_some_and(|newer| newer != older) {
            at.field("max_grpc_timeout").refuse("differs from `max_stream_duration.grpc_timeout_header_max`");
        }
        action.grpc_timeout_header_max = Some(older);
    }
}

/// Rewrites by template or text, which exclude the others and one another.
fn further_rewrite(
    message: &proto::RouteAction,
    before: Option<PathRewrite>,
    at: &At<'_>,
) -> Option<PathRewrite> {
    let mut found = before;
    let mut take = |field: &str, rewrite: PathRewrite| {
        if found.is_some() {
            at.field(field).refuse("cannot be given together with another rewrite of the path");
        }
        found = Some(rewrite);
    };
    if let Some(policy) = &message.path_rewrite_policy
        && let Some(rewrite) = at.field("path_rewrite_policy").extension::<UriTemplateRewriteConfig>(policy)
    {
        take("path_rewrite_policy", PathRewrite::Template(rewrite.path_template_rewrite));
    }
    if !message.path_rewrite.is_empty() {
        take("path_rewrite", PathRewrite::Format(message.path_rewrite.clone()));
    }
    found
}

fn path_rewrite(prefix: &str, pattern: Option<&RegexMatchAndSubstitute>, at: &At<'_>) -> Option<PathRewrite> {
    if !prefix.is_empty() && pattern.is_some() {
        at.field("regex_rewrite").refuse("cannot be given together with `prefix_rewrite`");
    }
    if let Some(pattern) = pattern {
        let (pattern, substitution) = substitution(pattern, &at.field("regex_rewrite"))?;
        return Some(PathRewrite::Regex { pattern, substitution });
    }
    (!prefix.is_empty()).then(|| PathRewrite::Prefix(prefix.to_owned()))
}

pub(super) fn substitution(message: &RegexMatchAndSubstitute, at: &At<'_>) -> Option<(String, String)> {
    let at = at.field("pattern");
    let pattern = at.need(message.pattern.as_ref())?;
    Some((regex(pattern, &at), message.substitution.clone()))
}

/// A redirect.
pub(super) fn redirect(message: &proto::RedirectAction, at: &At<'_>) -> Action {
    use proto::redirect_action::{
        PathRewriteSpecifier as P, RedirectResponseCode as C, SchemeRewriteSpecifier as S,
    };
    let status = match C::try_from(message.response_code) {
        Ok(C::MovedPermanently) => 301,
        Ok(C::Found) => 302,
        Ok(C::SeeOther) => 303,
        Ok(C::TemporaryRedirect) => 307,
        Ok(C::PermanentRedirect) => 308,
        Err(_) => {
            at.field("response_code").refuse("is not known");
            301
        }
    };
    let scheme = match &message.scheme_rewrite_specifier {
        None | Some(S::HttpsRedirect(false)) => None,
        Some(S::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(S::SchemeRedirect(scheme)) => {
            let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
                && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
            if !valid {
                at.field("scheme_redirect").refuse("is not a scheme (RFC 3986 section 3.1)");
            }
            Some(scheme.clone())
        }
    };
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let (path, path_rewrite) = match &message.path_rewrite_specifier {
        None => (None, None),
        Some(P::PathRedirect(path)) => (given(path), None),
        Some(P::PrefixRewrite(prefix)) => (None, path_rewrite(prefix, None, at)),
        Some(P::RegexRewrite(pattern)) => (None, path_rewrite("", Some(pattern), at)),
    };
    Action::Redirect(Redirect {
        status,
        scheme,
        host: given(&message.host_redirect),
        // 0 is "not given" on the wire.
        port: Some(port(message.port_redirect, &at.field("port_redirect"))).filter(|p| *p != 0),
        path,
        path_rewrite,
        strip_query: message.strip_query,
    })
}

/// A response answered here.
pub(super) fn direct(message: &proto::DirectResponseAction, body_bytes_max: u32, at: &At<'_>) -> Action {
    let status = match u16::try_from(message.status) {
        Ok(status @ 200..=599) => status,
        _ => {
            at.field("status").refuse("must be between 200 and 599");
            500
        }
    };
    let at_body = at.field("body");
    let body = message.body.as_ref().and_then(|b| files::bytes(b, &at_body)).unwrap_or_default();
    if body.len() > body_bytes_max as usize {
        at_body.refuse(format!("has {} bytes; {body_bytes_max} are allowed", body.len()));
    }
    Action::Direct(DirectResponse { status, body, content_type: None })
}
