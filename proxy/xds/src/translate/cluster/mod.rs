//! `Cluster`.
//!
//! Reading order: `balancing` (how a host is picked) · `http` (what is spoken to it) · `protection` (limits and
//! ejection).

mod balancing;
mod http;
mod protection;

use super::endpoint::{self, Names};
use super::value::{metadata, metadata_labels, metadata_switch, positive_or};
use super::{At, source, tls};
use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::metadata::{CLOSE_ON_HOST_REMOVAL, LABELS};
use outrigger_traffic::config::{Cluster, ClusterDiscovery, DnsFamily, Endpoints, TcpKeepalive};
use proto::cluster as pc;
use std::time::Duration;

/// How often names are resolved where their answers do not say.
const DNS_REFRESH: Duration = Duration::from_secs(5);

/// A cluster.
pub(super) fn cluster(message: &proto::Cluster, at: &At<'_>) -> Cluster {
    at.field("name").need_text(&message.name);
    let mut cluster = Cluster::new(message.name.clone(), discovery(message, at));
    cluster.alt_stat_name = message.alt_stat_name.clone();
    cluster.connect_timeout =
        positive_or(message.connect_timeout.as_ref(), cluster.connect_timeout, &at.field("connect_timeout"));
    balancing::balancing(message, &mut cluster, at);
    cluster.tls = message
        .transport_socket
        .as_ref()
        .and_then(|socket| tls::upstream_socket(socket, &at.field("transport_socket")));
    cluster.http = http::upstream_http(message, cluster.tls.is_some(), at);
    if let Some(breakers) = &message.circuit_breakers {
        cluster.circuit_breakers = protection::circuit_breakers(breakers, &at.field("circuit_breakers"));
    }
    cluster.outlier_detection = message
        .outlier_detection
        .as_ref()
        .map(|o| protection::outlier_detection(o, &at.field("outlier_detection")));
    cluster.tcp_keepalive =
        message.upstream_connection_options.as_ref().and_then(|o| o.tcp_keepalive.as_ref()).map(|k| {
            TcpKeepalive {
                probes: k.keepalive_probes,
                time: k.keepalive_time.map(|s| Duration::from_secs(s.into())),
                interval: k.keepalive_interval.map(|s| Duration::from_secs(s.into())),
            }
        });
    if let Some(limit) = message.per_connection_buffer_limit_bytes {
        cluster.per_connection_buffer_limit_bytes = limit;
    }
    let at = at.field("metadata");
    let ours = metadata(message.metadata.as_ref(), &[LABELS, CLOSE_ON_HOST_REMOVAL], &at);
    cluster.labels = metadata_labels(ours.as_ref(), &at);
    cluster.close_connections_on_host_removal = metadata_switch(ours.as_ref(), CLOSE_ON_HOST_REMOVAL, &at);
    cluster
}

fn discovery(message: &proto::Cluster, at: &At<'_>) -> ClusterDiscovery {
    let kind = match message.cluster_discovery_type {
        None => Ok(pc::DiscoveryType::Static),
        Some(pc::ClusterDiscoveryType::Type(kind)) => pc::DiscoveryType::try_from(kind),
    };
    let Ok(kind) = kind else {
        at.field("type").refuse("is not supported");
        return ClusterDiscovery::Static(Endpoints::default());
    };
    if kind != pc::DiscoveryType::Eds && message.eds_cluster_config.is_some() {
        at.field("eds_cluster_config").refuse("has no effect without `type: EDS`");
    }
    let written = |names| {
        let at = at.field("load_assignment");
        message.load_assignment.as_ref().map(|l| endpoint::endpoints(l, names, &at)).unwrap_or_default()
    };
    let dns = || {
        let refresh_rate =
            positive_or(message.dns_refresh_rate.as_ref(), DNS_REFRESH, &at.field("dns_refresh_rate"));
        (refresh_rate, message.respect_dns_ttl, family(message, at))
    };
    match kind {
        pc::DiscoveryType::Static => ClusterDiscovery::Static(written(Names::Addresses)),
        pc::DiscoveryType::StrictDns => {
            let (refresh_rate, respect_ttl, family) = dns();
            ClusterDiscovery::StrictDns {
                endpoints: written(Names::Resolved),
                refresh_rate,
                respect_ttl,
                family,
            }
        }
        pc::DiscoveryType::LogicalDns => {
            let (refresh_rate, respect_ttl, family) = dns();
            let endpoints = written(Names::Resolved);
            let count: usize = endpoints.localities.iter().map(|l| l.endpoints.len()).sum();
            if count != 1 {
                at.field("load_assignment")
                    .refuse(format!("LOGICAL_DNS needs exactly one endpoint, found {count}"));
            }
            ClusterDiscovery::LogicalDns { endpoints, refresh_rate, respect_ttl, family }
        }
        pc::DiscoveryType::Eds => eds(message, at),
    }
}

fn eds(message: &proto::Cluster, at: &At<'_>) -> ClusterDiscovery {
    if message.load_assignment.is_some() {
        at.field("load_assignment").refuse("cannot be given together with `type: EDS`");
    }
    let at = at.field("eds_cluster_config");
    let mut service_name = message.name.clone();
    if let Some(eds) = at.need(message.eds_cluster_config.as_ref()) {
        let at = at.field("eds_config");
        if let Some(from) = at.need(eds.eds_config.as_ref()) {
            source::aggregated(from, &at);
        }
        if !eds.service_name.is_empty() {
            service_name = eds.service_name.clone();
        }
    }
    ClusterDiscovery::Eds { service_name }
}

fn family(message: &proto::Cluster, at: &At<'_>) -> DnsFamily {
    use pc::DnsLookupFamily as F;
    match F::try_from(message.dns_lookup_family) {
        Ok(F::Auto) => DnsFamily::Auto,
        Ok(F::V4Only) => DnsFamily::V4Only,
        Ok(F::V6Only) => DnsFamily::V6Only,
        Ok(F::V4Preferred) => DnsFamily::V4Preferred,
        Ok(F::All) => DnsFamily::All,
        Err(_) => {
            at.field("dns_lookup_family").refuse("is not known");
            DnsFamily::Auto
        }
    }
}
