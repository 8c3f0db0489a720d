//! HTTP filters, and what route tables say about them (`typed_per_filter_config`). One file per filter.

mod bandwidth_limit;
mod compression;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
mod header_mutation;
mod health_check;
mod jwt;
pub(super) mod local_rate_limit;
mod metadata;
mod rate_limit;
mod stateful_session;

use super::{At, rbac};
use outrigger_api::envoy::config::route::v3::FilterConfig as Wrapper;
use outrigger_api::envoy::extensions::filters::http as proto;
use outrigger_traffic::config::{
    FilterConfig, FilterOverride, FilterOverrides, HeaderMutationFilter, Rbac, RouteFilterConfig,
};
use prost_types::Any;
use std::collections::BTreeMap;

/// The settings of a filter; `None` where something is refused.
pub(super) fn filter(any: &Any, at: &At<'_>) -> Option<FilterConfig> {
    if let Some(message) = at.unpack::<proto::rbac::v3::Rbac>(any) {
        return message.message().map(|m| FilterConfig::Rbac(rbac::http_filter(&m, at)));
    }
    if let Some(message) = at.unpack::<proto::fault::v3::HttpFault>(any) {
        return message.message().map(|m| FilterConfig::Fault(Box::new(fault::fault(&m, at))));
    }
    if let Some(message) = at.unpack::<proto::cors::v3::Cors>(any) {
        return message.message().map(|_| FilterConfig::Cors);
    }
    if let Some(message) = at.unpack::<proto::bandwidth_limit::v3::BandwidthLimit>(any) {
        let limit = bandwidth_limit::limit(&message.message()?, at);
        return Some(FilterConfig::BandwidthLimit(Box::new(limit)));
    }
    if let Some(message) = at.unpack::<proto::csrf::v3::CsrfPolicy>(any) {
        return message.message().map(|m| FilterConfig::Csrf(Box::new(csrf::policy(&m, at))));
    }
    if let Some(message) = at.unpack::<proto::header_mutation::v3::HeaderMutation>(any) {
        let message = message.message()?;
        let mutations = header_mutation::mutations(message.mutations.as_ref(), at);
        let most_specific_wins = message.most_specific_header_mutations_wins;
        let filter = HeaderMutationFilter { mutations, most_specific_wins };
        return Some(FilterConfig::HeaderMutation(Box::new(filter)));
    }
    if let Some(message) = at.unpack::<proto::jwt_authn::v3::JwtAuthentication>(any) {
        return message.message().map(|m| FilterConfig::Jwt(Box::new(jwt::authn(&m, at))));
    }
    if let Some(message) = at.unpack::<proto::local_ratelimit::v3::LocalRateLimit>(any) {
        return message
            .message()
            .map(|m| FilterConfig::LocalRateLimit(Box::new(local_rate_limit::limit(&m, at))));
    }
    if let Some(message) = at.unpack::<proto::header_to_metadata::v3::Config>(any) {
        return message
            .message()
            .map(|m| FilterConfig::HeaderToMetadata(Box::new(metadata::from_headers(&m, at))));
    }
    if let Some(message) = at.unpack::<proto::ratelimit::v3::RateLimit>(any) {
        return message
            .message()
            .and_then(|m| rate_limit::limit(&m, at))
            .map(|limit| FilterConfig::RateLimit(Box::new(limit)));
    }
    if let Some(message) = at.unpack::<proto::ext_authz::v3::ExtAuthz>(any) {
        return message
            .message()
            .and_then(|m| ext_authz::authz(&m, at))
            .map(|authz| FilterConfig::ExtAuthz(Box::new(authz)));
    }
    if let Some(message) = at.unpack::<proto::set_metadata::v3::Config>(any) {
        return message.message().map(|m| FilterConfig::SetMetadata(metadata::fixed(&m, at)));
    }
    if let Some(message) = at.unpack::<proto::compressor::v3::Compressor>(any) {
        let compressor = compression::compressor(&message.message()?, at)?;
        return Some(FilterConfig::Compressor(Box::new(compressor)));
    }
    if let Some(message) = at.unpack::<proto::decompressor::v3::Decompressor>(any) {
        let decompressor = compression::decompressor(&message.message()?, at)?;
        return Some(FilterConfig::Decompressor(Box::new(decompressor)));
    }
    if let Some(message) = at.unpack::<proto::buffer::v3::Buffer>(any) {
        return message.message().map(|m| FilterConfig::Buffer(compression::buffer(&m, at)));
    }
    if let Some(message) = at.unpack::<proto::health_check::v3::HealthCheck>(any) {
        let filter = health_check::filter(&message.message()?, at);
        return Some(FilterConfig::HealthCheck(Box::new(filter)));
    }
    if let Some(message) = at.unpack::<proto::grpc_web::v3::GrpcWeb>(any) {
        return message.message().map(|_| FilterConfig::GrpcWeb);
    }
    if let Some(message) = at.unpack::<proto::stateful_session::v3::StatefulSession>(any) {
        let session = stateful_session::session(&message.message()?, at)?;
        return Some(FilterConfig::StatefulSession(Box::new(session)));
    }
    at.refuse_type(any);
    None
}

/// What a level says about filters.
pub(super) fn overrides(configs: &BTreeMap<String, Any>, at: &At<'_>) -> Option<FilterOverrides> {
    let mut found = FilterOverrides::new();
    for (name, any) in configs {
        let at = at.key("typed_per_filter_config", name);
        if let Some(word) = word(any, &at) {
            found.insert(name.clone(), word);
        }
    }
    (!found.is_empty()).then_some(found)
}

/// Settings, or a wrapper that says whether the filter runs and may hold settings. Source: Envoy: `FilterConfig`.
fn word(any: &Any, at: &At<'_>) -> Option<FilterOverride> {
    let Some(wrapper) = at.unpack::<Wrapper>(any) else { return settings(any, at) };
    let wrapper = wrapper.message()?;
    if wrapper.disabled {
        return Some(FilterOverride::Off);
    }
    let at = at.field("config");
    match at.need(wrapper.config.as_ref())? {
        nothing if nothing.type_url.is_empty() => Some(FilterOverride::On),
        any => settings(any, &at),
    }
}

fn settings(any: &Any, at: &At<'_>) -> Option<FilterOverride> {
    let settings = if let Some(message) = at.unpack::<proto::rbac::v3::RbacPerRoute>(any) {
        let rules = |r: &proto::rbac::v3::Rbac| -> Rbac { rbac::http_filter(r, &at.field("rbac")) };
        RouteFilterConfig::Rbac(message.message()?.rbac.as_ref().map(rules))
    } else if let Some(message) = at.unpack::<proto::fault::v3::HttpFault>(any) {
        RouteFilterConfig::Fault(Box::new(fault::fault(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::cors::v3::CorsPolicy>(any) {
        RouteFilterConfig::Cors(Box::new(cors::policy(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::bandwidth_limit::v3::BandwidthLimit>(any) {
        let limit = bandwidth_limit::limit(&message.message()?, at);
        RouteFilterConfig::BandwidthLimit(Box::new(limit))
    } else if let Some(message) = at.unpack::<proto::csrf::v3::CsrfPolicy>(any) {
        RouteFilterConfig::Csrf(Box::new(csrf::policy(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::header_mutation::v3::HeaderMutationPerRoute>(any) {
        let mutations = header_mutation::mutations(message.message()?.mutations.as_ref(), at);
        RouteFilterConfig::HeaderMutation(Box::new(mutations))
    } else if let Some(message) = at.unpack::<proto::jwt_authn::v3::PerRouteConfig>(any) {
        RouteFilterConfig::Jwt(jwt::route(&message.message()?, at)?)
    } else if let Some(message) = at.unpack::<proto::local_ratelimit::v3::LocalRateLimit>(any) {
        RouteFilterConfig::LocalRateLimit(Box::new(local_rate_limit::limit(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::ratelimit::v3::RateLimitPerRoute>(any) {
        RouteFilterConfig::RateLimit(Box::new(rate_limit::route(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::ext_authz::v3::ExtAuthzPerRoute>(any) {
        RouteFilterConfig::ExtAuthz(ext_authz::route(&message.message()?, at)?)
    } else if let Some(message) = at.unpack::<proto::header_to_metadata::v3::Config>(any) {
        RouteFilterConfig::HeaderToMetadata(Box::new(metadata::from_headers(&message.message()?, at)))
    } else if let Some(message) = at.unpack::<proto::compressor::v3::CompressorPerRoute>(any) {
        RouteFilterConfig::Compressor(compression::compressor_route(&message.message()?, at)?)
    } else if let Some(message) = at.unpack::<proto::buffer::v3::BufferPerRoute>(any) {
        use proto::buffer::v3::buffer_per_route::Override as O;
        RouteFilterConfig::Buffer(match at.need(message.message()?.r#override.as_ref())? {
            O::Disabled(true) => None,
            O::Disabled(false) => {
                at.field("disabled").refuse("must be true");
                return None;
            }
            O::Buffer(buffer) => Some(compression::buffer(buffer, &at.field("buffer"))),
        })
    } else if let Some(message) = at.unpack::<proto::stateful_session::v3::StatefulSessionPerRoute>(any) {
        let route = stateful_session::route(&message.message()?, at)?;
        RouteFilterConfig::StatefulSession(Box::new(route))
    } else {
        at.refuse_type(any);
        return None;
    };
    Some(FilterOverride::with(settings))
}
