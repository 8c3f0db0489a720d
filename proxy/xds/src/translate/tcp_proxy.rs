//! `TcpProxy`.

use super::route::headers::header_edits_of;
use super::value::{limit_or, positive};
use super::{At, access_log};
use outrigger_api::envoy::extensions::filters::network::tcp_proxy::v3 as proto;
use outrigger_traffic::config::{ClusterChoice, HeaderEdits, TcpProxy, Tunnel, WeightedCluster};
use std::time::Duration;

/// A TCP proxy; `None` when it names no cluster (noted).
pub(super) fn tcp_proxy(message: &proto::TcpProxy, at: &At<'_>) -> Option<TcpProxy> {
    use proto::tcp_proxy::ClusterSpecifier as C;
    at.field("stat_prefix").need_text(&message.stat_prefix);
    let cluster = match &message.cluster_specifier {
        Some(C::Cluster(name)) => {
            at.field("cluster").need_text(name);
            Some(ClusterChoice::Single(name.clone()))
        }
        Some(C::WeightedClusters(weighted)) => Some(ClusterChoice::Weighted(shares(weighted, at))),
        None => {
            at.refuse("`cluster` or `weighted_clusters` is required");
            None
        }
    };
    let max_connect_attempts = message.max_connect_attempts.unwrap_or(1);
    if max_connect_attempts == 0 {
        at.field("max_connect_attempts").refuse("must be greater than 0");
    }
    let idle_timeout =
        limit_or(message.idle_timeout.as_ref(), Some(Duration::from_secs(3600)), &at.field("idle_timeout"));
    let max_downstream_connection_duration = message
        .max_downstream_connection_duration
        .as_ref()
        .and_then(|v| positive(v, &at.field("max_downstream_connection_duration")));
    Some(TcpProxy {
        stat_prefix: message.stat_prefix.clone(),
        cluster: cluster?,
        idle_timeout,
        max_downstream_connection_duration,
        max_connect_attempts,
        tunnel: message.tunneling_config.as_ref().map(|t| Box::new(tunnel(t, &at.field("tunneling_config")))),
        access_log: access_log::access_logs(&message.access_log, at),
    })
}

/// The request that carries a connection.
fn tunnel(message: &proto::tcp_proxy::TunnelingConfig, at: &At<'_>) -> Tunnel {
    at.field("hostname").need_text(&message.hostname);
    // Source: Envoy: a path is for POST alone, whose default is `/`.
    if !message.use_post && !message.post_path.is_empty() {
        at.field("post_path").refuse("is for requests with `use_post`");
    }
    let post_path = match message.post_path.as_str() {
        "" => "/",
        path => path,
    };
    Tunnel {
        hostname: message.hostname.clone(),
        post_path: message.use_post.then(|| post_path.to_owned()),
        headers: header_edits_of(&message.headers_to_add, "headers_to_add", at),
    }
}

fn shares(weighted: &proto::tcp_proxy::WeightedCluster, at: &At<'_>) -> Vec<WeightedCluster> {
    let at = at.field("weighted_clusters");
    if weighted.clusters.is_empty() {
        at.field("clusters").refuse("at least one is required");
    }
    let mut out = Vec::with_capacity(weighted.clusters.len());
    for (i, share) in weighted.clusters.iter().enumerate() {
        let at = at.item("clusters", i);
        at.field("name").need_text(&share.name);
        if share.weight == 0 {
            at.field("weight").refuse("must be greater than 0");
        }
        out.push(WeightedCluster {
            name: share.name.clone(),
            cluster_header: None,
            weight: share.weight,
            headers: HeaderEdits::default(),
            host_rewrite: None,
            filters: None,
            metadata_match: Vec::new(),
        });
    }
    out
}
