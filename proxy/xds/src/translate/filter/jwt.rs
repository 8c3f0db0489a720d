//! `JwtAuthentication`.

use super::super::At;
use super::super::files;
use super::super::route::matches::route_match;
use super::super::service;
use super::super::value::{duration, header_name, positive, positive_or, string_match};
use outrigger_api::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use outrigger_traffic::config::{JwtAuthn, JwtProvider, JwtRequirement, JwtRoute, RemoteJwks};
use std::time::Duration;

/// Deepest nesting of requirements.
const DEPTH_MAX: usize = 16;

pub(super) fn authn(message: &proto::JwtAuthentication, at: &At<'_>) -> JwtAuthn {
    let providers = message.providers.iter().map(|(name, one)| {
        let at = at.key("providers", name);
        (name.clone(), provider(one, &at))
    });
    let providers = providers.collect();
    let rules = message.rules.iter().enumerate();
    JwtAuthn {
        providers,
        rules: rules.filter_map(|(i, one)| rule(one, message, &at.item("rules", i))).collect(),
        requirements: message
            .requirement_map
            .iter()
            .filter_map(|(name, one)| {
                Some((name.clone(), requirement(one, 0, &at.key("requirement_map", name))?))
            })
            .collect(),
        bypass_cors_preflight: message.bypass_cors_preflight,
        strip_failure_response: message.strip_failure_response,
    }
}

fn provider(message: &proto::JwtProvider, at: &At<'_>) -> JwtProvider {
    use proto::jwt_provider::JwksSourceSpecifier as S;
    let mut remote_jwks = None;
    let keys = match at.need(message.jwks_source_specifier.as_ref()) {
        Some(S::LocalJwks(source)) => files::text(source, &at.field("local_jwks")),
        Some(S::RemoteJwks(source)) => {
            remote_jwks = remote(source, &at.field("remote_jwks"));
            None
        }
        None => None,
    };
    let skew = if message.clock_skew_seconds == 0 { 60 } else { message.clock_skew_seconds };
    let headers = message.from_headers.iter().enumerate();
    let claims = message.claim_to_headers.iter().enumerate();
    JwtProvider {
        issuer: message.issuer.clone(),
        audiences: message.audiences.clone(),
        subjects: message.subjects.as_ref().and_then(|s| string_match(s, &at.field("subjects"))),
        require_expiration: message.require_expiration,
        max_lifetime: message.max_lifetime.as_ref().and_then(|d| duration(d, &at.field("max_lifetime"))),
        remote_jwks,
        local_jwks: keys.unwrap_or_default(),
        forward: message.forward,
        from_headers: headers
            .map(|(i, h)| {
                let at = at.item("from_headers", i);
                (header_name(&h.name, true, &at.field("name")), h.value_prefix.clone())
            })
            .collect(),
        from_params: message.from_params.clone(),
        from_cookies: message.from_cookies.clone(),
        forward_payload_header: match message.forward_payload_header.as_str() {
            "" => String::new(),
            name => header_name(name, false, &at.field("forward_payload_header")),
        },
        pad_forward_payload_header: message.pad_forward_payload_header,
        clock_skew: Duration::from_secs(skew.into()),
        claim_to_headers: claims
            .map(|(i, c)| {
                let at = at.item("claim_to_headers", i);
                at.field("claim_name").need_text(&c.claim_name);
                (header_name(&c.header_name, false, &at.field("header_name")), c.claim_name.clone())
            })
            .collect(),
        clear_route_cache: message.clear_route_cache,
        payload_in_metadata: message.payload_in_metadata.clone(),
        header_in_metadata: message.header_in_metadata.clone(),
        space_delimited_claims: message
            .normalize_payload_in_metadata
            .as_ref()
            .map(|normalize| normalize.space_delimited_claims.clone())
            .unwrap_or_default(),
    }
}

fn remote(message: &proto::RemoteJwks, at: &At<'_>) -> Option<RemoteJwks> {
    let at_uri = at.field("http_uri");
    let target = at_uri.need(message.http_uri.as_ref()).and_then(|uri| service::http(uri, &at_uri))?;
    let mut keys = RemoteJwks::at(target);
    if let Some(cache) = &message.cache_duration {
        keys.cache = positive(cache, &at.field("cache_duration")).unwrap_or(keys.cache);
    }
    keys.ahead = message.async_fetch.as_ref().map(|ahead| {
        let at = at.field("async_fetch");
        if !ahead.fast_listener {
            at.field("fast_listener").notice("requests, not the listener, wait for the first keys");
        }
        positive_or(
            ahead.failed_refetch_duration.as_ref(),
            Duration::from_secs(1),
            &at.field("failed_refetch_duration"),
        )
    });
    keys.retry =
        message.retry_policy.as_ref().map(|policy| service::retry(policy, &at.field("retry_policy")));
    Some(keys)
}

fn rule(
    message: &proto::RequirementRule,
    filter: &proto::JwtAuthentication,
    at: &At<'_>,
) -> Option<(outrigger_traffic::config::RouteMatch, Option<JwtRequirement>)> {
    use proto::requirement_rule::RequirementType as R;
    let at_match = at.field("match");
    let matches = at_match.need(message.r#match.as_ref()).and_then(|m| route_match(m, &at_match))?;
    let needed = match &message.requirement_type {
        None => None,
        Some(R::Requires(one)) if one.requires_type.is_none() => None,
        Some(R::Requires(one)) => Some(requirement(one, 0, &at.field("requires"))?),
        Some(R::RequirementName(name)) => {
            let at = at.field("requirement_name");
            let Some(one) = filter.requirement_map.get(name) else {
                at.refuse(format!("`{name}` is not in requirement_map"));
                return None;
            };
            Some(requirement(one, 0, &at)?)
        }
    };
    Some((matches, needed))
}

fn requirement(message: &proto::JwtRequirement, depth: usize, at: &At<'_>) -> Option<JwtRequirement> {
    use proto::jwt_requirement::RequiresType as R;
    if depth > DEPTH_MAX {
        at.refuse(format!("nested deeper than {DEPTH_MAX}"));
        return None;
    }
    let several = |list: &[proto::JwtRequirement], field: &str| -> Option<Vec<JwtRequirement>> {
        let at = at.field(field);
        if list.len() < 2 {
            at.field("requirements").refuse("at least two are required");
        }
        let one = |(i, one)| requirement(one, depth + 1, &at.item("requirements", i));
        list.iter().enumerate().map(one).collect()
    };
    Some(match at.need(message.requires_type.as_ref())? {
        R::ProviderName(name) => JwtRequirement::Provider(name.clone(), Vec::new()),
        R::ProviderAndAudiences(one) => {
            JwtRequirement::Provider(one.provider_name.clone(), one.audiences.clone())
        }
        R::RequiresAny(list) => JwtRequirement::Any(several(&list.requirements, "requires_any")?),
        R::RequiresAll(list) => JwtRequirement::All(several(&list.requirements, "requires_all")?),
        R::AllowMissingOrFailed(_) => JwtRequirement::AllowMissingOrFailed,
        R::AllowMissing(_) => JwtRequirement::AllowMissing,
    })
}

pub(super) fn route(message: &proto::PerRouteConfig, at: &At<'_>) -> Option<JwtRoute> {
    use proto::per_route_config::RequirementSpecifier as S;
    match at.need(message.requirement_specifier.as_ref())? {
        S::Disabled(true) => Some(JwtRoute::Disabled),
        S::Disabled(false) => {
            at.field("disabled").refuse("must be true");
            None
        }
        S::RequirementName(name) => Some(JwtRoute::Requirement(name.clone())),
    }
}
