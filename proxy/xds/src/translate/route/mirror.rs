//! Copies of requests, and redirects that are followed.

use crate::translate::At;
use crate::translate::value::{header_name, runtime_fraction};
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use outrigger_api::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use outrigger_api::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use outrigger_traffic::config::{Fraction, InternalRedirect, Mirror, MirrorCluster};
use prost::Name;
use proto::route_action as ra;

/// Where copies go: `request_mirror_policies` of the message here.
pub(super) fn mirrors(policies: &[ra::RequestMirrorPolicy], at: &At<'_>) -> Vec<Mirror> {
    policies.iter().enumerate().map(|(i, p)| mirror(p, &at.item("request_mirror_policies", i))).collect()
}

fn mirror(message: &ra::RequestMirrorPolicy, at: &At<'_>) -> Mirror {
    let cluster = match (message.cluster.as_str(), message.cluster_header.as_str()) {
        ("", "") => {
            at.refuse("`cluster` or `cluster_header` is required");
            MirrorCluster::Single(String::new())
        }
        (name, "") => MirrorCluster::Single(name.to_owned()),
        ("", header) => MirrorCluster::Header(header_name(header, true, &at.field("cluster_header"))),
        (_, _) => {
            at.field("cluster_header").refuse("cannot be given together with `cluster`");
            MirrorCluster::Single(String::new())
        }
    };
    let fraction =
        message.runtime_fraction.as_ref().and_then(|f| runtime_fraction(f, &at.field("runtime_fraction")));
    Mirror {
        cluster,
        fraction: fraction.unwrap_or(Fraction::ONE),
        trace_sampled: message.trace_sampled,
        keep_host: message.disable_shadow_host_suffix_append,
        host_rewrite: (!message.host_rewrite_literal.is_empty())
            .then(|| message.host_rewrite_literal.clone()),
    }
}

/// Redirects that are followed.
pub(super) fn internal_redirect(message: &proto::InternalRedirectPolicy, at: &At<'_>) -> InternalRedirect {
    let mut policy =
        InternalRedirect { cross_scheme: message.allow_cross_scheme_redirect, ..Default::default() };
    policy.max = message.max_internal_redirects.unwrap_or(policy.max);
    if !message.redirect_response_codes.is_empty() {
        // Others are left out, as in Envoy.
        let known = [301, 302, 303, 307, 308];
        policy.statuses =
            known.into_iter().filter(|s| message.redirect_response_codes.contains(&u32::from(*s))).collect();
    }
    for (i, predicate) in message.predicates.iter().enumerate() {
        let at = at.item("predicates", i);
        let Some(any) = at.field("typed_config").need(predicate.typed_config.as_ref()) else { continue };
        let kind = any.type_url.rsplit('/').next().unwrap_or_default();
        if kind == AllowListedRoutesConfig::full_name() {
            let list = at.extension::<AllowListedRoutesConfig>(predicate);
            policy.allowed_routes = list.map(|l| l.allowed_route_names);
        } else if kind == PreviousRoutesConfig::full_name() {
            policy.new_routes_only |= at.extension::<PreviousRoutesConfig>(predicate).is_some();
        } else {
            policy.safe_cross_scheme |= at.extension::<SafeCrossSchemeConfig>(predicate).is_some();
        }
    }
    policy.copied_headers = message
        .response_headers_to_copy
        .iter()
        .enumerate()
        .map(|(i, name)| header_name(name, false, &at.item("response_headers_to_copy", i)))
        .collect();
    policy
}
