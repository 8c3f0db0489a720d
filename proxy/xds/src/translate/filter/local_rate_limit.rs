//! `LocalRateLimit`, and the rules by which requests are told apart.

use super::super::At;
use super::super::route::headers::header_edits_of;
use super::super::route::matches::{header_match, query_match};
use super::super::value::{duration, header_name, runtime_fraction};
use outrigger_api::envoy::config::core::v3::RuntimeFractionalPercent;
use outrigger_api::envoy::config::route::v3 as route;
use outrigger_api::envoy::extensions::common::ratelimit::v3 as common;
use outrigger_api::envoy::extensions::filters::http::local_ratelimit::v3 as proto;
use outrigger_api::envoy::r#type::metadata::v3::MetadataKey;
use outrigger_api::envoy::r#type::v3::TokenBucket as ProtoBucket;
use outrigger_traffic::config::{
    Fraction, LocalDescriptor, LocalRateLimit, RateLimitAction, RateLimitRule, TokenBucket, VirtualHostRules,
};
use route::rate_limit::action::ActionSpecifier as A;
use std::time::Duration;

pub(super) fn limit(message: &proto::LocalRateLimit, at: &At<'_>) -> LocalRateLimit {
    at.field("stat_prefix").need_text(&message.stat_prefix);
    let share = |from: Option<&RuntimeFractionalPercent>, field: &str| {
        from.and_then(|f| runtime_fraction(f, &at.field(field))).unwrap_or(Fraction::ZERO)
    };
    let descriptors = message.descriptors.iter().enumerate();
    LocalRateLimit {
        status: message.status.as_ref().map_or(429, |status| status_of(status.code)),
        bucket: message.token_bucket.as_ref().map(|b| bucket(b, &at.field("token_bucket"))),
        descriptors: descriptors.map(|(i, d)| descriptor(d, &at.item("descriptors", i))).collect(),
        enabled: share(message.filter_enabled.as_ref(), "filter_enabled"),
        enforced: share(message.filter_enforced.as_ref(), "filter_enforced"),
        request_add_when_not_enforced: header_edits_of(
            &message.request_headers_to_add_when_not_enforced,
            "request_headers_to_add_when_not_enforced",
            at,
        ),
        response_add: header_edits_of(&message.response_headers_to_add, "response_headers_to_add", at),
        stage: message.stage,
        rate_limit_headers: match common::XRateLimitHeadersRfcVersion::try_from(
            message.enable_x_ratelimit_headers,
        ) {
            Ok(common::XRateLimitHeadersRfcVersion::Off) => false,
            Ok(common::XRateLimitHeadersRfcVersion::DraftVersion03) => true,
            Err(_) => {
                at.field("enable_x_ratelimit_headers").refuse("is not known");
                false
            }
        },
        virtual_host: match common::VhRateLimitsOptions::try_from(message.vh_rate_limits) {
            Ok(common::VhRateLimitsOptions::Override) => VirtualHostRules::Override,
            Ok(common::VhRateLimitsOptions::Include) => VirtualHostRules::Include,
            Ok(common::VhRateLimitsOptions::Ignore) => VirtualHostRules::Ignore,
            Err(_) => {
                at.field("vh_rate_limits").refuse("is not known");
                VirtualHostRules::Override
            }
        },
        always_consume_default: message.always_consume_default_token_bucket.unwrap_or(true),
        per_connection: message.local_rate_limit_per_downstream_connection,
        as_resource_exhausted: message.rate_limited_as_resource_exhausted,
        rules: weighed(&message.rate_limits, at),
    }
}

/// A status below 400 counts as none, as in Envoy.
fn status_of(code: i32) -> u16 {
    u16::try_from(code).ok().filter(|status| *status >= 400).unwrap_or(429)
}

fn bucket(message: &ProtoBucket, at: &At<'_>) -> TokenBucket {
    let interval = at.field("fill_interval");
    TokenBucket {
        max_tokens: message.max_tokens,
        tokens_per_fill: message.tokens_per_fill.unwrap_or(1),
        fill_interval: interval
            .need(message.fill_interval.as_ref())
            .and_then(|d| duration(d, &interval))
            .unwrap_or(Duration::from_secs(1)),
    }
}

fn descriptor(message: &common::LocalRateLimitDescriptor, at: &At<'_>) -> LocalDescriptor {
    let at_bucket = at.field("token_bucket");
    LocalDescriptor {
        entries: message.entries.iter().map(|e| (e.key.clone(), e.value.clone())).collect(),
        bucket: at_bucket.need(message.token_bucket.as_ref()).map_or(
            TokenBucket { max_tokens: 1, tokens_per_fill: 1, fill_interval: Duration::from_secs(1) },
            |b| bucket(b, &at_bucket),
        ),
    }
}

/// `rate_limits` of the filter itself.
fn weighed(list: &[route::RateLimit], at: &At<'_>) -> Vec<RateLimitRule> {
    let rules = rules(list, at);
    for (i, _) in rules.iter().enumerate().filter(|(_, rule)| rule.hits == Some(0)) {
        let at = at.item("rate_limits", i);
        at.field("hits_addend").field("number").refuse("must not be 0 here: Envoy refuses all such requests");
    }
    rules
}

/// `rate_limits` of a route or virtual host.
pub(in crate::translate) fn rules_of_level(list: &[route::RateLimit], at: &At<'_>) -> Vec<RateLimitRule> {
    for (i, _) in list.iter().enumerate().filter(|(_, rule)| rule.hits_addend.is_some()) {
        at.item("rate_limits", i)
            .field("hits_addend")
            .refuse("only counts in the `rate_limits` of a filter; elsewhere Envoy ignores it");
    }
    rules(list, at)
}

/// `rate_limits` of the message here.
pub(in crate::translate) fn rules(list: &[route::RateLimit], at: &At<'_>) -> Vec<RateLimitRule> {
    let rule = |(i, message): (usize, &route::RateLimit)| {
        let at = at.item("rate_limits", i);
        let actions = message.actions.iter().enumerate();
        RateLimitRule {
            stage: message.stage.unwrap_or(0),
            actions: actions.filter_map(|(a, one)| action(one, &at.item("actions", a))).collect(),
            hits: message.hits_addend.as_ref().and_then(|hits| hits.number),
            limit: limit_of(message.limit.as_ref(), &at.field("limit")),
        }
    };
    list.iter().enumerate().map(rule).collect()
}

fn action(message: &route::rate_limit::Action, at: &At<'_>) -> Option<RateLimitAction> {
    let prefix =
        |length: Option<u32>, most: u8| length.map_or(most, |length| u8::try_from(length).unwrap_or(u8::MAX));
    Some(match at.need(message.action_specifier.as_ref())? {
        A::SourceCluster(_) => RateLimitAction::SourceCluster,
        A::Metadata(from) => metadata(from, &at.field("metadata"))?,
        A::DestinationCluster(_) => RateLimitAction::DestinationCluster,
        A::RequestHeaders(from) => {
            let at = at.field("request_headers");
            at.field("descriptor_key").need_text(&from.descriptor_key);
            RateLimitAction::RequestHeader {
                name: header_name(&from.header_name, true, &at.field("header_name")),
                key: from.descriptor_key.clone(),
                skip_if_absent: from.skip_if_absent,
            }
        }
        A::QueryParameters(from) => {
            let at = at.field("query_parameters");
            at.field("query_parameter_name").need_text(&from.query_parameter_name);
            at.field("descriptor_key").need_text(&from.descriptor_key);
            RateLimitAction::QueryParameter {
                name: from.query_parameter_name.clone(),
                key: from.descriptor_key.clone(),
                skip_if_absent: from.skip_if_absent,
            }
        }
        A::RemoteAddress(_) => RateLimitAction::RemoteAddress,
        A::MaskedRemoteAddress(from) => RateLimitAction::MaskedRemoteAddress(
            prefix(from.v4_prefix_mask_len, 32),
            prefix(from.v6_prefix_mask_len, 128),
        ),
        A::GenericKey(from) => {
            at.field("generic_key").field("descriptor_value").need_text(&from.descriptor_value);
            RateLimitAction::Generic(from.descriptor_key.clone(), from.descriptor_value.clone())
        }
        A::HeaderValueMatch(from) => {
            let at = at.field("header_value_match");
            let headers = from.headers.iter().enumerate();
            RateLimitAction::HeaderValueMatch {
                key: from.descriptor_key.clone(),
                value: from.descriptor_value.clone(),
                expect_match: from.expect_match.unwrap_or(true),
                headers: headers.filter_map(|(i, h)| header_match(h, &at.item("headers", i))).collect(),
            }
        }
        A::QueryParameterValueMatch(from) => {
            let at = at.field("query_parameter_value_match");
            let parameters = from.query_parameters.iter().enumerate();
            RateLimitAction::QueryValueMatch {
                key: from.descriptor_key.clone(),
                value: from.descriptor_value.clone(),
                expect_match: from.expect_match.unwrap_or(true),
                parameters: parameters
                    .filter_map(|(i, q)| query_match(q, &at.item("query_parameters", i)))
                    .collect(),
            }
        }
    })
}

/// Where a limit is left in place of the service's.
fn limit_of(message: Option<&route::rate_limit::Override>, at: &At<'_>) -> Vec<String> {
    use route::rate_limit::r#override::OverrideSpecifier as O;
    let Some(message) = message else { return Vec::new() };
    let Some(O::DynamicMetadata(from)) = at.need(message.override_specifier.as_ref()) else {
        return Vec::new();
    };
    path(from.metadata_key.as_ref(), &at.field("dynamic_metadata").field("metadata_key")).unwrap_or_default()
}

/// Namespace, and keys from there.
fn path(key: Option<&MetadataKey>, at: &At<'_>) -> Option<Vec<String>> {
    use outrigger_api::envoy::r#type::metadata::v3::metadata_key::path_segment::Segment;
    let key = at.need(key)?;
    at.field("key").need_text(&key.key);
    if key.path.is_empty() {
        at.field("path").refuse("must not be empty");
    }
    let mut path = vec![key.key.clone()];
    for (i, segment) in key.path.iter().enumerate() {
        let Segment::Key(name) = at.item("path", i).need(segment.segment.as_ref())?;
        path.push(name.clone());
    }
    Some(path)
}

fn metadata(message: &route::rate_limit::action::MetaData, at: &At<'_>) -> Option<RateLimitAction> {
    use route::rate_limit::action::meta_data::Source;
    at.field("descriptor_key").need_text(&message.descriptor_key);
    if message.source != i32::from(Source::Dynamic) {
        at.field("source").refuse("only DYNAMIC is supported");
    }
    Some(RateLimitAction::Metadata {
        key: message.descriptor_key.clone(),
        path: path(message.metadata_key.as_ref(), &at.field("metadata_key"))?,
        default: message.default_value.clone(),
        skip_if_absent: message.skip_if_absent,
    })
}
