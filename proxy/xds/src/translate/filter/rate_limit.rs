//! `RateLimit`: limits that a service keeps.

use super::super::At;
use super::super::route::headers::header_edits_of;
use super::super::service;
use super::super::value::{duration, runtime_fraction};
use super::local_rate_limit::rules;
use outrigger_api::envoy::config::core::v3::{ApiVersion, RuntimeFractionalPercent};
use outrigger_api::envoy::extensions::filters::http::ratelimit::v3 as proto;
use outrigger_api::envoy::r#type::v3::HttpStatus;
use outrigger_traffic::config::{Fraction, RateLimit, RateLimitRoute, RateLimited, VirtualHostRules};
use std::time::Duration;

/// Time for a call where nothing is said. Source: Envoy.
const TIMEOUT: Duration = Duration::from_millis(20);

pub(super) fn limit(message: &proto::RateLimit, at: &At<'_>) -> Option<RateLimit> {
    use proto::rate_limit::XRateLimitHeadersRfcVersion as X;
    at.field("domain").need_text(&message.domain);
    let timeout = message.timeout.as_ref().and_then(|t| duration(t, &at.field("timeout")));
    let at_service = at.field("rate_limit_service");
    let service = at_service.need(message.rate_limit_service.as_ref())?;
    if service.transport_api_version != i32::from(ApiVersion::V3) {
        at_service.field("transport_api_version").refuse("must be V3");
    }
    let at_grpc = at_service.field("grpc_service");
    let grpc = at_grpc.need(service.grpc_service.as_ref())?;
    if grpc.timeout.is_some() {
        at_grpc.field("timeout").notice("the filter has its own");
    }
    let mut target = service::grpc(grpc, TIMEOUT, &at_grpc)?;
    target.timeout = timeout.unwrap_or(TIMEOUT);
    let share = |from: Option<&RuntimeFractionalPercent>, field: &str| {
        from.and_then(|f| runtime_fraction(f, &at.field(field))).unwrap_or(Fraction::ONE)
    };
    Some(RateLimit {
        domain: message.domain.clone(),
        target,
        stage: message.stage,
        requests: match message.request_type.as_str() {
            "" | "both" => RateLimited::All,
            "internal" => RateLimited::Internal,
            "external" => RateLimited::External,
            other => {
                at.field("request_type").refuse(format!("`{other}` is none of internal, external, both"));
                RateLimited::All
            }
        },
        failure_deny: match &message.failure_mode_deny_percent {
            Some(share) => {
                runtime_fraction(share, &at.field("failure_mode_deny_percent")).unwrap_or(Fraction::ONE)
            }
            None if message.failure_mode_deny => Fraction::ONE,
            None => Fraction::ZERO,
        },
        as_resource_exhausted: message.rate_limited_as_resource_exhausted,
        rate_limit_headers: match X::try_from(message.enable_x_ratelimit_headers) {
            Ok(X::Off) => false,
            Ok(X::DraftVersion03) => true,
            Err(_) => {
                at.field("enable_x_ratelimit_headers").refuse("is not known");
                false
            }
        },
        ratelimited_header: !message.disable_x_envoy_ratelimited_header,
        status: status(message.rate_limited_status.as_ref(), 400, 429),
        status_on_error: status(message.status_on_error.as_ref(), 200, 500),
        response_add: header_edits_of(&message.response_headers_to_add, "response_headers_to_add", at),
        enabled: share(message.filter_enabled.as_ref(), "filter_enabled"),
        enforced: share(message.filter_enforced.as_ref(), "filter_enforced"),
        rules: rules(&message.rate_limits, at),
    })
}

/// A status below `least` counts as none, as in Envoy.
fn status(status: Option<&HttpStatus>, least: u16, default: u16) -> u16 {
    let code = status.and_then(|status| u16::try_from(status.code).ok());
    code.filter(|code| (least..=599).contains(code)).unwrap_or(default)
}

pub(super) fn route(message: &proto::RateLimitPerRoute, at: &At<'_>) -> RateLimitRoute {
    use proto::rate_limit_per_route::VhRateLimitsOptions as V;
    RateLimitRoute {
        virtual_host: match V::try_from(message.vh_rate_limits) {
            Ok(V::Override) => VirtualHostRules::Override,
            Ok(V::Include) => VirtualHostRules::Include,
            Ok(V::Ignore) => VirtualHostRules::Ignore,
            Err(_) => {
                at.field("vh_rate_limits").refuse("is not known");
                VirtualHostRules::Override
            }
        },
        rules: rules(&message.rate_limits, at),
        domain: message.domain.clone(),
    }
}
