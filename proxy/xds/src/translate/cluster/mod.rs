//! `Cluster`.
//!
//! Reading order: `balancing` (how a host is picked) · `http` (what is spoken to it) · `health_check` (what it is asked) · `protection` (limits and
//! ejection).

mod balancing;
mod health_check;
mod http;
mod protection;

use super::endpoint::{self, Names};
use super::value::{
    header_name, metadata, metadata_labels, metadata_switch, port, positive_or, socket_address,
};
use super::{At, source, tls};
use crate::ads::Kind;
use outrigger_api::envoy::config::cluster::v3 as proto;
use outrigger_api::envoy::config::core::v3::{Address, BindConfig, address};
use outrigger_api::metadata::{CLOSE_ON_HOST_REMOVAL, LABELS};
use outrigger_traffic::config::{Cluster, ClusterDiscovery, DnsFamily, Endpoints, OriginalDst, TcpKeepalive};
use proto::cluster as pc;
use std::net::SocketAddr;
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
    if let Some(socket) = &message.transport_socket {
        (cluster.tls, cluster.proxy_protocol) =
            tls::upstream_socket_or_proxied(socket, &at.field("transport_socket"));
    }
    cluster.health_check = health_check::health_check(&message.health_checks, at);
    cluster.source_address = message.upstream_bind_config.as_ref().and_then(|bind| {
        let at = at.field("upstream_bind_config");
        bound_to(bind, &at)
    });
    cluster.http = http::upstream_http(message, cluster.tls.is_some(), at);
    if let Some(breakers) = &message.circuit_breakers {
        cluster.circuit_breakers = protection::circuit_breakers(breakers, &at.field("circuit_breakers"));
    }
    protection::by_runtime(&message.name, &mut cluster.circuit_breakers, at);
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
    if kind != pc::DiscoveryType::OriginalDst {
        if message.lb_policy == pc::LbPolicy::ClusterProvided as i32 {
            at.field("lb_policy").refuse("CLUSTER_PROVIDED has no meaning without `type: ORIGINAL_DST`");
        }
        if message.cleanup_interval.is_some() {
            at.field("cleanup_interval").refuse("has no effect without `type: ORIGINAL_DST`");
        }
        if let Some(pc::LbConfig::OriginalDstLbConfig(_)) = message.lb_config {
            at.field("original_dst_lb_config").refuse("has no effect without `type: ORIGINAL_DST`");
        }
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
        pc::DiscoveryType::OriginalDst => original_dst(message, at),
    }
}

/// Envoy's name of the header that says where a request is going.
const DESTINATION_HEADER: &str = "x-envoy-original-dst-host";

fn original_dst(message: &proto::Cluster, at: &At<'_>) -> ClusterDiscovery {
    if message.load_assignment.is_some() {
        at.field("load_assignment").refuse("cannot be given together with `type: ORIGINAL_DST`");
    }
    // Source: Envoy: the two belong together.
    if message.lb_policy != pc::LbPolicy::ClusterProvided as i32 {
        at.field("lb_policy").refuse("must be CLUSTER_PROVIDED with `type: ORIGINAL_DST`");
    }
    let mut original = OriginalDst::default();
    original.cleanup_interval = positive_or(
        message.cleanup_interval.as_ref(),
        original.cleanup_interval,
        &at.field("cleanup_interval"),
    );
    if let Some(pc::LbConfig::OriginalDstLbConfig(config)) = &message.lb_config {
        let at = at.field("original_dst_lb_config");
        if config.use_http_header {
            let name = match config.http_header_name.as_str() {
                "" => DESTINATION_HEADER,
                name => name,
            };
            let named = at.field("http_header_name");
            original.header = Some(header_name(name, true, &named));
            // The one pseudo-header that can say where to.
            if name.starts_with(':') && !name.eq_ignore_ascii_case(":authority") {
                named.refuse(format!("`{name}` names no destination"));
            }
        } else if !config.http_header_name.is_empty() {
            at.field("http_header_name").refuse("has no effect without `use_http_header`");
        }
        original.port_override = config.upstream_port_override.map(|value| {
            let at = at.field("upstream_port_override");
            if value == 0 {
                at.refuse("must be between 1 and 65535");
            }
            port(value, &at)
        });
    }
    ClusterDiscovery::OriginalDst(original)
}

fn bound_to(bind: &BindConfig, at: &At<'_>) -> Option<SocketAddr> {
    let source = bind.source_address.clone()?;
    let address = Address { address: Some(address::Address::SocketAddress(source)) };
    socket_address(Some(&address), &at.field("source_address"))
}

fn eds(message: &proto::Cluster, at: &At<'_>) -> ClusterDiscovery {
    if message.load_assignment.is_some() {
        at.field("load_assignment").refuse("cannot be given together with `type: EDS`");
    }
    let at = at.field("eds_cluster_config");
    let mut service_name = message.name.clone();
    if let Some(eds) = at.need(message.eds_cluster_config.as_ref()) {
        let at = at.field("eds_config");
        if !eds.service_name.is_empty() {
            service_name = eds.service_name.clone();
        }
        if let Some(from) = at.need(eds.eds_config.as_ref()) {
            source::want(Kind::Endpoints, &service_name, from, &at);
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
