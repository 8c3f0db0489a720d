//! `dynamic_resources`: where listeners, clusters and all that they name come from.

use crate::ads::backoff::Bounds;
use crate::translate::{At, positive};
use outrigger_api::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use outrigger_api::envoy::config::core::v3::api_config_source::ApiType;
use outrigger_api::envoy::config::core::v3::config_source::ConfigSourceSpecifier as Source;
use outrigger_api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use outrigger_api::envoy::config::core::v3::{ApiConfigSource, BackoffStrategy, ConfigSource};
use std::collections::BTreeSet;

/// The longest wait between streams, in first waits, where none is given.
const MAX_INTERVAL_FACTOR: u32 = 10;

/// Where dynamic resources come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dynamic {
    /// The aggregated stream.
    pub ads: Option<GrpcSource>,
    /// Listeners; `None`: only static ones.
    pub listeners: Option<DynamicSource>,
    /// Clusters; `None`: only static ones.
    pub clusters: Option<DynamicSource>,
}

/// Where one kind of resource comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DynamicSource {
    /// From the aggregated stream.
    Ads,
    /// From a stream of its own.
    Own(GrpcSource),
}

/// A management server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSource {
    /// Delta or state of the world.
    pub delta: bool,
    /// The static cluster that reaches it.
    pub cluster: String,
    /// `:authority` of the calls; empty: the cluster's name.
    pub authority: String,
    /// Headers of the calls, lower case.
    pub metadata: Vec<(String, String)>,
    /// Waits between streams (`retry_policy.retry_back_off`).
    pub backoff: Bounds,
}

/// The sources, each of which must be reached through one of the static `clusters`.
pub(super) fn dynamic(message: &DynamicResources, clusters: &BTreeSet<&str>, at: &At<'_>) -> Dynamic {
    let ads = message.ads_config.as_ref().and_then(|s| grpc(s, clusters, &at.field("ads_config")));
    let has_ads = message.ads_config.is_some();
    let source = |source: Option<&ConfigSource>, field: &str| {
        let at = at.field(field);
        match source?.config_source_specifier.as_ref() {
            Some(Source::Ads(_)) => {
                if !has_ads {
                    at.field("ads").refuse("needs `ads_config`");
                }
                Some(DynamicSource::Ads)
            }
            Some(Source::ApiConfigSource(own)) => {
                grpc(own, clusters, &at.field("api_config_source")).map(DynamicSource::Own)
            }
            Some(Source::Self_(_)) => {
                at.field("self").refuse("has no meaning in a bootstrap");
                None
            }
            None => {
                at.refuse("names no source");
                None
            }
        }
    };
    Dynamic {
        ads,
        listeners: source(message.lds_config.as_ref(), "lds_config"),
        clusters: source(message.cds_config.as_ref(), "cds_config"),
    }
}

fn grpc(message: &ApiConfigSource, clusters: &BTreeSet<&str>, at: &At<'_>) -> Option<GrpcSource> {
    let delta = match ApiType::try_from(message.api_type) {
        Ok(ApiType::Grpc) => Some(false),
        Ok(ApiType::DeltaGrpc) => Some(true),
        Ok(ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc) => {
            at.field("api_type").refuse("needs xdstp names, which are not supported; use GRPC or DELTA_GRPC");
            None
        }
        Ok(ApiType::DeprecatedAndUnavailableDoNotUse) | Err(_) => {
            at.field("api_type").refuse("must be GRPC or DELTA_GRPC");
            None
        }
    };
    let service = match message.grpc_services.as_slice() {
        [service] => service,
        services => {
            at.field("grpc_services").refuse(format!("exactly one is supported, found {}", services.len()));
            return None;
        }
    };
    let at = at.item("grpc_services", 0);
    let mut metadata = Vec::new();
    for (i, header) in service.initial_metadata.iter().enumerate() {
        let at = at.item("initial_metadata", i);
        if !header.raw_value.is_empty() {
            at.field("raw_value").refuse("is not supported");
        }
        at.field("key").need_text(&header.key);
        metadata.push((header.key.to_ascii_lowercase(), header.value.clone()));
    }
    let TargetSpecifier::EnvoyGrpc(target) = at.need(service.target_specifier.as_ref())?;
    if service.timeout.is_some() {
        at.field("timeout").notice("configuration streams have no time limit");
    }
    let at = at.field("envoy_grpc");
    let retry = target.retry_policy.as_ref().and_then(|policy| policy.retry_back_off.as_ref());
    if target.retry_policy.as_ref().is_some_and(|policy| policy.num_retries.is_some()) {
        let at = at.field("retry_policy");
        at.field("num_retries").notice("streams are opened again for as long as the proxy runs");
    }
    let backoff = retry.map(|given| back_off(given, &at.field("retry_policy").field("retry_back_off")));
    let at = at.field("cluster_name");
    at.need_text(&target.cluster_name);
    if !target.cluster_name.is_empty() && !clusters.contains(target.cluster_name.as_str()) {
        at.refuse(format!("there is no static cluster `{}`", target.cluster_name));
    }
    Some(GrpcSource {
        delta: delta?,
        cluster: target.cluster_name.clone(),
        authority: target.authority.clone(),
        metadata,
        backoff: backoff.unwrap_or_default(),
    })
}

/// Where only the first wait is given, the longest is ten times as long, as in Envoy.
fn back_off(given: &BackoffStrategy, at: &At<'_>) -> Bounds {
    let at_base = at.field("base_interval");
    let Some(base) = at_base.need(given.base_interval.as_ref()).and_then(|b| positive(b, &at_base)) else {
        return Bounds::default();
    };
    let at_max = at.field("max_interval");
    let max = match &given.max_interval {
        None => base.saturating_mul(MAX_INTERVAL_FACTOR),
        Some(max) => positive(max, &at_max).unwrap_or(base),
    };
    if max < base {
        at_max.refuse("must not be below `base_interval`");
    }
    Bounds { base, max }
}
