//! HTTP filters and what routes say about them. Filters that no planner makes are not encoded: they would be refused by
//! every proxy, which is safer than being left out.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3::RuntimeFractionalPercent;
use outrigger_api::envoy::config::route::v3::{self as route, FilterConfig as Wrapper};
use outrigger_api::envoy::extensions::filters::common::fault::v3 as common;
use outrigger_api::envoy::extensions::filters::http::cors::v3 as cors;
use outrigger_api::envoy::extensions::filters::http::fault::v3 as fault;
use outrigger_api::envoy::extensions::filters::http::rbac::v3::RbacPerRoute;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_api::envoy::r#type::metadata::v3::MetadataKey;
use outrigger_api::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment::Segment};
use outrigger_api::envoy::r#type::v3::FractionalPercent;
use outrigger_api::envoy::r#type::v3::fractional_percent::DenominatorType;
use outrigger_traffic::config::{
    CorsPolicy, Fault, FaultAbort, FaultDelay, FilterConfig, FilterOverride, FilterOverrides, Fraction,
    HttpFilter, RateLimitAction, RateLimitRule, RouteFilterConfig,
};
use prost_types::Any;
use std::collections::BTreeMap;

use super::jwt;
use super::rbac;
use super::route::{header_match, query_match};
use super::value::{duration, string_match};

pub(super) fn filter(value: &HttpFilter) -> proto::HttpFilter {
    let config = match &value.config {
        FilterConfig::Rbac(rules) => any(&rbac::http_filter(rules)),
        FilterConfig::Fault(rules) => any(&http_fault(rules)),
        FilterConfig::Jwt(authn) => any(&jwt::authn(authn)),
        FilterConfig::Cors => any(&cors::Cors {}),
        _ => unknown(&value.name),
    };
    proto::HttpFilter {
        name: value.name.clone(),
        is_optional: false,
        disabled: value.disabled,
        config_type: Some(proto::http_filter::ConfigType::TypedConfig(config)),
    }
}

/// A message without a type: proxies refuse it.
fn unknown(name: &str) -> Any {
    tracing::error!(filter = name, "filter cannot be encoded");
    Any::default()
}

pub(super) fn overrides(value: Option<&FilterOverrides>) -> BTreeMap<String, Any> {
    value.into_iter().flatten().map(|(name, word)| (name.clone(), word_of(name, word))).collect()
}

fn word_of(name: &str, word: &FilterOverride) -> Any {
    match word {
        FilterOverride::Off => any(&Wrapper { disabled: true, ..Wrapper::default() }),
        FilterOverride::On => any(&Wrapper { config: Some(Any::default()), ..Wrapper::default() }),
        FilterOverride::With(settings) => match &**settings {
            RouteFilterConfig::Rbac(rules) => {
                any(&RbacPerRoute { rbac: rules.as_ref().map(rbac::http_filter) })
            }
            RouteFilterConfig::Fault(rules) => any(&http_fault(rules)),
            RouteFilterConfig::Cors(policy) => any(&cors_policy(policy)),
            _ => unknown(name),
        },
    }
}

fn http_fault(value: &Fault) -> fault::HttpFault {
    use fault::fault_abort::ErrorType as E;
    let abort = value.abort.as_ref().map(|abort| {
        let (error, share) = match abort {
            FaultAbort::Http(status, share) => (E::HttpStatus((*status).into()), share),
            FaultAbort::Grpc(status, share) => (E::GrpcStatus(*status), share),
            FaultAbort::Header(share) => (E::HeaderAbort(fault::fault_abort::HeaderAbort {}), share),
        };
        fault::FaultAbort { error_type: Some(error), percentage: Some(fractional(*share)) }
    });
    fault::HttpFault {
        delay: value.delay.as_ref().map(fault_delay),
        abort,
        upstream_cluster: value.upstream_cluster.clone(),
        headers: value.headers.iter().map(header_match).collect(),
        downstream_nodes: value.downstream_nodes.clone(),
        max_active_faults: value.max_active_faults,
        // No planner makes one.
        response_rate_limit: None,
    }
}

fn cors_policy(value: &CorsPolicy) -> cors::CorsPolicy {
    let share = |share: Option<Fraction>| {
        share.map(|share| RuntimeFractionalPercent {
            default_value: Some(fractional(share)),
            runtime_key: String::new(),
        })
    };
    cors::CorsPolicy {
        allow_origin_string_match: value.allow_origin.iter().map(string_match).collect(),
        allow_methods: value.allow_methods.clone(),
        allow_headers: value.allow_headers.clone(),
        expose_headers: value.expose_headers.clone(),
        max_age: value.max_age.clone(),
        allow_credentials: value.allow_credentials,
        filter_enabled: share(value.enabled),
        shadow_enabled: share(value.shadow),
        allow_private_network_access: value.allow_private_network_access,
        forward_not_matching_preflights: value.forward_not_matching_preflights,
    }
}

fn fractional(value: Fraction) -> FractionalPercent {
    FractionalPercent { numerator: value.millionths(), denominator: DenominatorType::Million.into() }
}

fn fault_delay(value: &FaultDelay) -> common::FaultDelay {
    use common::fault_delay::{FaultDelaySecifier as D, HeaderDelay};
    let delay = match value.fixed {
        Some(fixed) => D::FixedDelay(duration(fixed)),
        None => D::HeaderDelay(HeaderDelay {}),
    };
    common::FaultDelay { fault_delay_secifier: Some(delay), percentage: Some(fractional(value.percentage)) }
}

/// By what requests are told apart for rate limits.
pub(super) fn rate_limits(list: &[RateLimitRule]) -> Vec<route::RateLimit> {
    let rule = |rule: &RateLimitRule| route::RateLimit {
        stage: Some(rule.stage),
        actions: rule
            .actions
            .iter()
            .map(|action| route::rate_limit::Action { action_specifier: Some(rate_limit_action(action)) })
            .collect(),
        limit: limit_override(&rule.limit),
        hits_addend: rule.hits.map(|hits| route::rate_limit::HitsAddend { number: Some(hits) }),
    };
    list.iter().map(rule).collect()
}

/// Where a limit is left in place of the service's.
fn limit_override(path: &[String]) -> Option<route::rate_limit::Override> {
    use route::rate_limit::r#override::{DynamicMetadata, OverrideSpecifier};
    let from = DynamicMetadata { metadata_key: Some(metadata_key(path)?) };
    Some(route::rate_limit::Override { override_specifier: Some(OverrideSpecifier::DynamicMetadata(from)) })
}

/// A namespace, and keys from there.
fn metadata_key(path: &[String]) -> Option<MetadataKey> {
    let (namespace, keys) = path.split_first()?;
    let segment = |key: &String| PathSegment { segment: Some(Segment::Key(key.clone())) };
    Some(MetadataKey { key: namespace.clone(), path: keys.iter().map(segment).collect() })
}

fn rate_limit_action(value: &RateLimitAction) -> route::rate_limit::action::ActionSpecifier {
    use route::rate_limit::action::{self as a, ActionSpecifier as A};
    match value.clone() {
        RateLimitAction::SourceCluster => A::SourceCluster(a::SourceCluster {}),
        RateLimitAction::Metadata { key, path, default, skip_if_absent } => A::Metadata(a::MetaData {
            descriptor_key: key,
            metadata_key: metadata_key(&path),
            default_value: default,
            source: a::meta_data::Source::Dynamic.into(),
            skip_if_absent,
        }),
        RateLimitAction::DestinationCluster => A::DestinationCluster(a::DestinationCluster {}),
        RateLimitAction::RequestHeader { name, key, skip_if_absent } => {
            A::RequestHeaders(a::RequestHeaders { header_name: name, descriptor_key: key, skip_if_absent })
        }
        RateLimitAction::QueryParameter { name, key, skip_if_absent } => {
            A::QueryParameters(a::QueryParameters {
                query_parameter_name: name,
                descriptor_key: key,
                skip_if_absent,
            })
        }
        RateLimitAction::RemoteAddress => A::RemoteAddress(a::RemoteAddress {}),
        RateLimitAction::MaskedRemoteAddress(v4, v6) => A::MaskedRemoteAddress(a::MaskedRemoteAddress {
            v4_prefix_mask_len: Some(v4.into()),
            v6_prefix_mask_len: Some(v6.into()),
        }),
        RateLimitAction::Generic(key, value) => {
            A::GenericKey(a::GenericKey { descriptor_value: value, descriptor_key: key })
        }
        RateLimitAction::HeaderValueMatch { key, value, expect_match, headers } => {
            A::HeaderValueMatch(a::HeaderValueMatch {
                descriptor_value: value,
                expect_match: Some(expect_match),
                headers: headers.iter().map(header_match).collect(),
                descriptor_key: key,
            })
        }
        RateLimitAction::QueryValueMatch { key, value, expect_match, parameters } => {
            A::QueryParameterValueMatch(a::QueryParameterValueMatch {
                descriptor_value: value,
                expect_match: Some(expect_match),
                query_parameters: parameters.iter().map(query_match).collect(),
                descriptor_key: key,
            })
        }
    }
}
