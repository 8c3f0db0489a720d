//! `Listener`.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3::TrafficDirection as ProtoDirection;
use outrigger_api::envoy::config::listener::v3 as proto;
use outrigger_api::envoy::extensions::filters::network::tcp_proxy::v3 as tcp;
use outrigger_plan::ApiListener;
use outrigger_traffic::config::{
    ClusterChoice, FilterChain, FilterChainMatch, Listener, NetworkFilter, TcpProxy, Terminal,
    TrafficDirection,
};
use prost_types::Any;

use super::access_log::access_logs;
use super::listener_filter::listener_filters;
use super::value::{address, cidr, duration, limit, udp_address};
use super::{http, rbac, tls};

/// A listener.
pub fn listener(value: &Listener) -> proto::Listener {
    let direction = match value.traffic_direction {
        TrafficDirection::Unspecified => ProtoDirection::Unspecified,
        TrafficDirection::Inbound => ProtoDirection::Inbound,
        TrafficDirection::Outbound => ProtoDirection::Outbound,
    };
    let further = |at: &std::net::SocketAddr| proto::AdditionalAddress { address: Some(address(*at)) };
    proto::Listener {
        name: value.name.clone(),
        address: Some(if value.dns.is_some() { udp_address(value.address) } else { address(value.address) }),
        additional_addresses: value.additional_addresses.iter().map(further).collect(),
        filter_chains: value.filter_chains.iter().map(filter_chain).collect(),
        default_filter_chain: value.default_filter_chain.as_ref().map(filter_chain),
        listener_filters: listener_filters(value),
        use_original_dst: value.use_original_dst.then_some(true),
        freebind: value.freebind.then_some(true),
        transparent: value.transparent.then_some(true),
        bind_to_port: (!value.bind_to_port).then_some(false),
        listener_filters_timeout: limit(value.listener_filters_timeout),
        continue_on_listener_filters_timeout: value.continue_on_listener_filters_timeout,
        per_connection_buffer_limit_bytes: Some(value.per_connection_buffer_limit_bytes),
        tcp_backlog_size: Some(value.tcp_backlog_size),
        traffic_direction: direction.into(),
        access_log: access_logs(&value.access_log),
        ..Default::default()
    }
}

/// A listener of a gRPC client, which has no address.
pub fn api_listener(value: &ApiListener) -> proto::Listener {
    let http = any(&http::http_connection_manager(&value.http));
    proto::Listener {
        name: value.name.clone(),
        api_listener: Some(proto::ApiListener { api_listener: Some(http) }),
        ..Default::default()
    }
}

fn filter_chain(value: &FilterChain) -> proto::FilterChain {
    let filter = |name: &str, config: Any| proto::Filter {
        name: name.to_owned(),
        config_type: Some(proto::filter::ConfigType::TypedConfig(config)),
    };
    let mut filters: Vec<proto::Filter> = value
        .network_filters
        .iter()
        .map(|NetworkFilter::Rbac(rules)| {
            filter("envoy.filters.network.rbac", any(&rbac::network_filter(rules)))
        })
        .collect();
    filters.push(match &value.terminal {
        Terminal::Http(manager) => filter(
            "envoy.filters.network.http_connection_manager",
            any(&http::http_connection_manager(manager)),
        ),
        Terminal::Tcp(proxy) => filter("envoy.filters.network.tcp_proxy", any(&tcp_proxy(proxy))),
    });
    proto::FilterChain {
        filter_chain_match: (value.matches != FilterChainMatch::default()).then(|| matches(&value.matches)),
        filters,
        transport_socket: value.tls.as_ref().map(tls::downstream),
        name: value.name.clone(),
        transport_socket_connect_timeout: Some(duration(value.transport_socket_connect_timeout)),
    }
}

fn matches(value: &FilterChainMatch) -> proto::FilterChainMatch {
    proto::FilterChainMatch {
        prefix_ranges: value.prefix_ranges.iter().copied().map(cidr).collect(),
        source_prefix_ranges: value.source_prefix_ranges.iter().copied().map(cidr).collect(),
        source_ports: value.source_ports.iter().map(|port| u32::from(*port)).collect(),
        destination_port: value.destination_port.map(u32::from),
        transport_protocol: value.transport_protocol.clone().unwrap_or_default(),
        application_protocols: value.application_protocols.clone(),
        server_names: value.server_names.clone(),
    }
}

fn tcp_proxy(value: &TcpProxy) -> tcp::TcpProxy {
    use tcp::tcp_proxy as t;
    let cluster = match &value.cluster {
        // A header has no meaning for a connection; the compiler refuses it before anything is encoded.
        ClusterChoice::Single(name) | ClusterChoice::Header(name) => {
            t::ClusterSpecifier::Cluster(name.clone())
        }
        ClusterChoice::Weighted(shares) => t::ClusterSpecifier::WeightedClusters(t::WeightedCluster {
            clusters: shares
                .iter()
                .map(|share| t::weighted_cluster::ClusterWeight {
                    name: share.name.clone(),
                    weight: share.weight,
                })
                .collect(),
        }),
    };
    tcp::TcpProxy {
        stat_prefix: value.stat_prefix.clone(),
        access_log: access_logs(&value.access_log),
        max_connect_attempts: Some(value.max_connect_attempts),
        idle_timeout: limit(value.idle_timeout),
        max_downstream_connection_duration: value.max_downstream_connection_duration.map(duration),
        tunneling_config: value.tunnel.as_ref().map(|tunnel| t::TunnelingConfig {
            hostname: tunnel.hostname.clone(),
            use_post: tunnel.post_path.is_some(),
            headers_to_add: tunnel.headers.iter().map(super::route::header_edit).collect(),
            post_path: tunnel.post_path.clone().unwrap_or_default(),
        }),
        cluster_specifier: Some(cluster),
    }
}
