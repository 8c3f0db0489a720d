//! `CorsPolicy`.

use super::super::At;
use super::super::value::{runtime_fraction, string_match};
use outrigger_api::envoy::extensions::filters::http::cors::v3 as proto;
use outrigger_traffic::config::CorsPolicy;

pub(super) fn policy(message: &proto::CorsPolicy, at: &At<'_>) -> CorsPolicy {
    CorsPolicy {
        allow_origin: message
            .allow_origin_string_match
            .iter()
            .enumerate()
            .filter_map(|(i, m)| string_match(m, &at.item("allow_origin_string_match", i)))
            .collect(),
        allow_methods: message.allow_methods.clone(),
        allow_headers: message.allow_headers.clone(),
        expose_headers: message.expose_headers.clone(),
        max_age: message.max_age.clone(),
        allow_credentials: message.allow_credentials,
        enabled: message
            .filter_enabled
            .as_ref()
            .and_then(|f| runtime_fraction(f, &at.field("filter_enabled"))),
        shadow: message
            .shadow_enabled
            .as_ref()
            .and_then(|f| runtime_fraction(f, &at.field("shadow_enabled"))),
        allow_private_network_access: message.allow_private_network_access,
        forward_not_matching_preflights: message.forward_not_matching_preflights,
    }
}
