//! Services that filters ask.

use super::At;
use super::value::{duration, header_name, positive};
use outrigger_api::envoy::config::core::v3 as core;
use outrigger_traffic::config::{CallRetry, GrpcTarget, HttpTarget};
use std::time::Duration;

/// Where an HTTP service is. `timeout` is required, as in Envoy.
pub(super) fn http(message: &core::HttpUri, at: &At<'_>) -> Option<HttpTarget> {
    use core::http_uri::HttpUpstreamType;
    let (scheme, rest) = message.uri.split_once("://").unwrap_or(("", message.uri.as_str()));
    let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let is_clean = rest.bytes().all(|b| b > b' ' && b < 0x7f && b != b'#');
    if authority.is_empty() || !is_clean || !matches!(scheme, "" | "http" | "https") {
        at.field("uri").refuse(format!("`{}` is not a usable URI", message.uri));
    }
    let HttpUpstreamType::Cluster(cluster) = at.need(message.http_upstream_type.as_ref())?;
    at.field("cluster").need_text(cluster);
    let at = at.field("timeout");
    let timeout = at.need(message.timeout.as_ref()).and_then(|timeout| duration(timeout, &at));
    Some(HttpTarget {
        cluster: cluster.clone(),
        https: scheme == "https",
        authority: authority.to_owned(),
        path: path.to_owned(),
        timeout: timeout.unwrap_or_default(),
    })
}

/// Where a gRPC service is.
pub(super) fn grpc(message: &core::GrpcService, default: Duration, at: &At<'_>) -> Option<GrpcTarget> {
    use core::grpc_service::TargetSpecifier;
    let TargetSpecifier::EnvoyGrpc(target) = at.need(message.target_specifier.as_ref())?;
    let timeout = match &message.timeout {
        Some(timeout) => duration(timeout, &at.field("timeout")).unwrap_or(default),
        None => default,
    };
    let metadata = message.initial_metadata.iter().enumerate().map(|(i, one)| {
        let at = at.item("initial_metadata", i);
        if one.value.contains(['%', '\r', '\n']) || !one.raw_value.is_empty() {
            at.field("value").refuse("only plain values are supported here");
        }
        (header_name(&one.key, false, &at.field("key")), one.value.clone())
    });
    let metadata = metadata.collect();
    let at = at.field("envoy_grpc");
    at.field("cluster_name").need_text(&target.cluster_name);
    if target.retry_policy.is_some() {
        at.field("retry_policy").refuse("is not supported here");
    }
    Some(GrpcTarget {
        cluster: target.cluster_name.clone(),
        authority: target.authority.clone(),
        timeout,
        metadata,
    })
}

/// How often a call is made again. Source: Envoy: defaults of `RetryPolicy` and `BackoffStrategy`.
pub(super) fn retry(message: &core::RetryPolicy, at: &At<'_>) -> CallRetry {
    let (mut base_interval, mut max_interval) = (Duration::from_secs(1), Duration::from_secs(10));
    if let Some(back_off) = &message.retry_back_off {
        let at = at.field("retry_back_off");
        let base = at.field("base_interval");
        base_interval = base
            .need(back_off.base_interval.as_ref())
            .and_then(|d| positive(d, &base))
            .unwrap_or(base_interval);
        max_interval = base_interval.saturating_mul(10);
        if let Some(longest) = &back_off.max_interval {
            let at = at.field("max_interval");
            max_interval = positive(longest, &at).unwrap_or(max_interval);
            if max_interval < base_interval {
                at.refuse("must not be below `base_interval`");
            }
        }
    }
    CallRetry { retries: message.num_retries.unwrap_or(1), base_interval, max_interval }
}
