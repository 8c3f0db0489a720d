//! Copies of requests, and redirects that are followed.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3::{RuntimeFractionalPercent, TypedExtensionConfig};
use outrigger_api::envoy::config::route::v3 as proto;
use outrigger_api::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use outrigger_api::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use outrigger_api::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;
use outrigger_api::envoy::r#type::v3::{FractionalPercent, fractional_percent};
use outrigger_traffic::config::{Fraction, InternalRedirect, Mirror, MirrorCluster};
use proto::route_action as ra;

pub(super) fn share_of(share: Fraction) -> RuntimeFractionalPercent {
    RuntimeFractionalPercent {
        default_value: Some(FractionalPercent {
            numerator: share.millionths(),
            denominator: fractional_percent::DenominatorType::Million.into(),
        }),
        runtime_key: String::new(),
    }
}

pub(super) fn extension<M: prost::Message + prost::Name>(name: &str, message: &M) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(any(message)) }
}

pub(super) fn mirror(value: &Mirror) -> ra::RequestMirrorPolicy {
    let (cluster, cluster_header) = match &value.cluster {
        MirrorCluster::Single(name) => (name.clone(), String::new()),
        MirrorCluster::Header(name) => (String::new(), name.clone()),
    };
    ra::RequestMirrorPolicy {
        cluster,
        cluster_header,
        runtime_fraction: Some(share_of(value.fraction)),
        trace_sampled: value.trace_sampled,
        disable_shadow_host_suffix_append: value.keep_host,
        host_rewrite_literal: value.host_rewrite.clone().unwrap_or_default(),
    }
}

pub(super) fn internal_redirect(value: &InternalRedirect) -> proto::InternalRedirectPolicy {
    let mut predicates = Vec::new();
    if let Some(names) = &value.allowed_routes {
        let list = AllowListedRoutesConfig { allowed_route_names: names.clone() };
        predicates.push(extension("envoy.internal_redirect_predicates.allow_listed_routes", &list));
    }
    if value.new_routes_only {
        let name = "envoy.internal_redirect_predicates.previous_routes";
        predicates.push(extension(name, &PreviousRoutesConfig {}));
    }
    if value.safe_cross_scheme {
        let name = "envoy.internal_redirect_predicates.safe_cross_scheme";
        predicates.push(extension(name, &SafeCrossSchemeConfig {}));
    }
    proto::InternalRedirectPolicy {
        max_internal_redirects: Some(value.max),
        redirect_response_codes: value.statuses.iter().map(|status| u32::from(*status)).collect(),
        predicates,
        allow_cross_scheme_redirect: value.cross_scheme,
        response_headers_to_copy: value.copied_headers.clone(),
    }
}
