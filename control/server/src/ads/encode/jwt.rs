//! The JWT filter.

use outrigger_api::envoy::config::core::v3 as core;
use outrigger_api::envoy::extensions::filters::http::jwt_authn::v3 as proto;
use outrigger_traffic::config::{CallRetry, HttpTarget, JwtAuthn, JwtProvider, JwtRequirement, RemoteJwks};

use super::route::route_match;
use super::value::{duration, string_match};

pub(super) fn authn(value: &JwtAuthn) -> proto::JwtAuthentication {
    use proto::requirement_rule::RequirementType;
    proto::JwtAuthentication {
        providers: value.providers.iter().map(|(name, one)| (name.clone(), provider(one))).collect(),
        rules: value
            .rules
            .iter()
            .map(|(matches, needs)| proto::RequirementRule {
                r#match: Some(route_match(matches)),
                requirement_type: needs.as_ref().map(|needs| RequirementType::Requires(requirement(needs))),
            })
            .collect(),
        bypass_cors_preflight: value.bypass_cors_preflight,
        requirement_map: value.requirements.iter().map(|(name, r)| (name.clone(), requirement(r))).collect(),
        strip_failure_response: value.strip_failure_response,
    }
}

fn provider(value: &JwtProvider) -> proto::JwtProvider {
    use core::data_source::Specifier;
    use proto::jwt_provider::{JwksSourceSpecifier as S, NormalizePayload};
    let source = match &value.remote_jwks {
        Some(remote) => S::RemoteJwks(remote_jwks(remote)),
        None => S::LocalJwks(core::DataSource {
            specifier: Some(Specifier::InlineString(value.local_jwks.clone())),
        }),
    };
    let normalize = NormalizePayload { space_delimited_claims: value.space_delimited_claims.clone() };
    proto::JwtProvider {
        issuer: value.issuer.clone(),
        audiences: value.audiences.clone(),
        jwks_source_specifier: Some(source),
        forward: value.forward,
        from_headers: value
            .from_headers
            .iter()
            .map(|(name, prefix)| proto::JwtHeader { name: name.clone(), value_prefix: prefix.clone() })
            .collect(),
        from_params: value.from_params.clone(),
        forward_payload_header: value.forward_payload_header.clone(),
        payload_in_metadata: value.payload_in_metadata.clone(),
        // Whole seconds on the wire; zero would be the default of a minute.
        clock_skew_seconds: u32::try_from(value.clock_skew.as_secs()).unwrap_or(u32::MAX),
        pad_forward_payload_header: value.pad_forward_payload_header,
        from_cookies: value.from_cookies.clone(),
        header_in_metadata: value.header_in_metadata.clone(),
        claim_to_headers: value
            .claim_to_headers
            .iter()
            .map(|(header, claim)| proto::JwtClaimToHeader {
                header_name: header.clone(),
                claim_name: claim.clone(),
            })
            .collect(),
        clear_route_cache: value.clear_route_cache,
        normalize_payload_in_metadata: (!value.space_delimited_claims.is_empty()).then_some(normalize),
        subjects: value.subjects.as_ref().map(string_match),
        require_expiration: value.require_expiration,
        max_lifetime: value.max_lifetime.map(duration),
    }
}

fn remote_jwks(value: &RemoteJwks) -> proto::RemoteJwks {
    proto::RemoteJwks {
        http_uri: Some(http_uri(&value.target)),
        cache_duration: Some(duration(value.cache)),
        async_fetch: value.ahead.map(|after| proto::JwksAsyncFetch {
            fast_listener: true,
            failed_refetch_duration: Some(duration(after)),
        }),
        retry_policy: value.retry.map(retry),
    }
}

fn http_uri(value: &HttpTarget) -> core::HttpUri {
    let scheme = if value.https { "https" } else { "http" };
    core::HttpUri {
        uri: format!("{scheme}://{}{}", value.authority, value.path),
        timeout: Some(duration(value.timeout)),
        http_upstream_type: Some(core::http_uri::HttpUpstreamType::Cluster(value.cluster.clone())),
    }
}

fn retry(value: CallRetry) -> core::RetryPolicy {
    core::RetryPolicy {
        retry_back_off: Some(core::BackoffStrategy {
            base_interval: Some(duration(value.base_interval)),
            max_interval: Some(duration(value.max_interval)),
        }),
        num_retries: Some(value.retries),
    }
}

fn requirement(value: &JwtRequirement) -> proto::JwtRequirement {
    use proto::jwt_requirement::RequiresType as R;
    let list = |several: &[JwtRequirement]| several.iter().map(requirement).collect();
    let kind = match value {
        JwtRequirement::Provider(name, audiences) if audiences.is_empty() => R::ProviderName(name.clone()),
        JwtRequirement::Provider(name, audiences) => R::ProviderAndAudiences(proto::ProviderWithAudiences {
            provider_name: name.clone(),
            audiences: audiences.clone(),
        }),
        JwtRequirement::Any(several) => {
            R::RequiresAny(proto::JwtRequirementOrList { requirements: list(several) })
        }
        JwtRequirement::All(several) => {
            R::RequiresAll(proto::JwtRequirementAndList { requirements: list(several) })
        }
        JwtRequirement::AllowMissing => R::AllowMissing(()),
        JwtRequirement::AllowMissingOrFailed => R::AllowMissingOrFailed(()),
    };
    proto::JwtRequirement { requires_type: Some(kind) }
}
