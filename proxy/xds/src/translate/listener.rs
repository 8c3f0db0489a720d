//! `envoy.config.listener.v3.Listener`.

use super::value::{cidr, duration, port, positive_or, transport_address};
use super::{At, access_log, http_connection_manager, listener_filter, rbac, tcp_proxy, tls};
use outrigger_api::envoy::config::core::v3::TrafficDirection as ProtoDirection;
use outrigger_api::envoy::config::listener::v3::{Filter, FilterChain, FilterChainMatch, Listener, filter};
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use outrigger_api::envoy::extensions::filters::network::rbac::v3::Rbac;
use outrigger_api::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use outrigger_traffic::config::{self, NetworkFilter, Terminal, TrafficDirection};
use std::time::Duration;

/// A listener; `None` when it has no usable address (noted).
pub(super) fn listener(message: &Listener, at: &At<'_>) -> Option<config::Listener> {
    let address = transport_address(message.address.as_ref(), &at.field("address"));
    if message.api_listener.is_some() {
        at.field("api_listener").refuse("is for clients without a proxy");
    }
    if message.enable_reuse_port == Some(false) {
        at.field("enable_reuse_port").refuse("every worker has its own socket; it cannot be switched off");
    }
    let additional_addresses = additional_addresses(message, at);
    let filter_chains: Vec<_> = message
        .filter_chains
        .iter()
        .enumerate()
        .filter_map(|(i, chain)| filter_chain(chain, &at.item("filter_chains", i)))
        .collect();
    let default_filter_chain = message
        .default_filter_chain
        .as_ref()
        .and_then(|chain| filter_chain(chain, &at.field("default_filter_chain")));
    let serves_dns = address.is_some_and(|(_, is_udp)| is_udp);
    if message.filter_chains.is_empty() && message.default_filter_chain.is_none() && !serves_dns {
        at.field("filter_chains").refuse("at least one is required");
    }
    let (address, is_udp) = address?;
    // Envoy gives a nameless listener a random name; the address is as unique and can be recognised.
    let name = if message.name.is_empty() { address.to_string() } else { message.name.clone() };
    let mut listener = config::Listener::new(name, address);
    listener_filter::listener_filters(&message.listener_filters, &mut listener, at);
    listener.tls_inspector |= filter_chains.iter().any(needs_client_hello);
    listener.use_original_dst = message.use_original_dst.unwrap_or(false);
    listener.freebind = message.freebind.unwrap_or(false);
    listener.transparent = message.transparent.unwrap_or(false);
    listener.bind_to_port = message.bind_to_port.unwrap_or(true);
    match (is_udp, listener.dns.is_some()) {
        (true, false) => at
            .field("address")
            .refuse("the only thing that is served over UDP is DNS: the filter envoy.filters.udp.dns_filter is missing"),
        (false, true) => at.field("address").refuse("a listener of DNS has a UDP address (TCP: additional_addresses)"),
        (true, true) | (false, false) => {}
    }
    listener.additional_addresses = additional_addresses;
    listener.filter_chains = filter_chains;
    listener.default_filter_chain = default_filter_chain;
    if let Some(timeout) = &message.listener_filters_timeout {
        let timeout = duration(timeout, &at.field("listener_filters_timeout"));
        listener.listener_filters_timeout = timeout.filter(|t| !t.is_zero());
    }
    listener.continue_on_listener_filters_timeout = message.continue_on_listener_filters_timeout;
    if let Some(limit) = message.per_connection_buffer_limit_bytes {
        listener.per_connection_buffer_limit_bytes = limit;
    }
    // Envoy's only way to say it.
    let key = format!("envoy.resource_limits.listener.{}.connection_limit", message.name);
    listener.connection_limit =
        Some(at.runtime().whole_u32(&key, u32::MAX)).filter(|limit| *limit != u32::MAX);
    if let Some(size) = message.tcp_backlog_size {
        if size == 0 {
            at.field("tcp_backlog_size").refuse("must be greater than 0");
        }
        listener.tcp_backlog_size = size;
    }
    listener.traffic_direction = match ProtoDirection::try_from(message.traffic_direction) {
        Ok(ProtoDirection::Unspecified) => TrafficDirection::Unspecified,
        Ok(ProtoDirection::Inbound) => TrafficDirection::Inbound,
        Ok(ProtoDirection::Outbound) => TrafficDirection::Outbound,
        Err(_) => {
            at.field("traffic_direction").refuse("is not known");
            TrafficDirection::Unspecified
        }
    };
    listener.access_log = access_log::access_logs(&message.access_log, at);
    Some(listener)
}

/// Further addresses; TCP, those of a DNS listener as well.
fn additional_addresses(message: &Listener, at: &At<'_>) -> Vec<std::net::SocketAddr> {
    let mut all = Vec::with_capacity(message.additional_addresses.len());
    for (i, further) in message.additional_addresses.iter().enumerate() {
        let at = at.item("additional_addresses", i);
        all.extend(super::socket_address(further.address.as_ref(), &at.field("address")));
    }
    all
}

/// Whether a chain can only be chosen once the ClientHello was read. As in Envoy, a chain for `raw_buffer` needs none.
fn needs_client_hello(chain: &config::FilterChain) -> bool {
    let matches = &chain.matches;
    match matches.transport_protocol.as_deref() {
        Some(protocol) => protocol == "tls",
        None => !matches.server_names.is_empty() || !matches.application_protocols.is_empty(),
    }
}

fn filter_chain(chain: &FilterChain, at: &At<'_>) -> Option<config::FilterChain> {
    let matches = chain
        .filter_chain_match
        .as_ref()
        .map(|m| filter_chain_match(m, &at.field("filter_chain_match")))
        .unwrap_or_default();
    let tls = chain
        .transport_socket
        .as_ref()
        .and_then(|socket| tls::downstream_socket(socket, &at.field("transport_socket")));
    let transport_socket_connect_timeout = positive_or(
        chain.transport_socket_connect_timeout.as_ref(),
        Duration::from_secs(15),
        &at.field("transport_socket_connect_timeout"),
    );
    let (network_filters, terminal) = network_filters(&chain.filters, at);
    Some(config::FilterChain {
        name: chain.name.clone(),
        matches,
        tls,
        transport_socket_connect_timeout,
        network_filters,
        terminal: terminal?,
    })
}

fn filter_chain_match(matches: &FilterChainMatch, at: &At<'_>) -> config::FilterChainMatch {
    let ranges = |field: &'static str, ranges: &[_]| {
        ranges.iter().enumerate().filter_map(|(i, r)| cidr(r, &at.item(field, i))).collect()
    };
    let destination_port = matches.destination_port.map(|value| {
        let at = at.field("destination_port");
        if value == 0 {
            at.refuse("must be between 1 and 65535");
        }
        port(value, &at)
    });
    let transport_protocol = match matches.transport_protocol.as_str() {
        "" => None,
        known @ ("tls" | "raw_buffer") => Some(known.to_owned()),
        other => {
            at.field("transport_protocol").refuse(format!("`{other}` is neither `tls` nor `raw_buffer`"));
            None
        }
    };
    let mut server_names = Vec::with_capacity(matches.server_names.len());
    for (i, name) in matches.server_names.iter().enumerate() {
        let at = at.item("server_names", i);
        at.need_text(name);
        if name.strip_prefix("*.").unwrap_or(name).contains('*') {
            at.refuse(format!("`{name}`: only a whole first label can be a wildcard"));
        }
        server_names.push(name.to_ascii_lowercase());
    }
    let source_ports = matches
        .source_ports
        .iter()
        .enumerate()
        .map(|(i, value)| port(*value, &at.item("source_ports", i)))
        .collect();
    config::FilterChainMatch {
        destination_port,
        prefix_ranges: ranges("prefix_ranges", &matches.prefix_ranges),
        server_names,
        transport_protocol,
        application_protocols: matches.application_protocols.clone(),
        source_prefix_ranges: ranges("source_prefix_ranges", &matches.source_prefix_ranges),
        source_ports,
    }
}

fn network_filters(filters: &[Filter], at: &At<'_>) -> (Vec<NetworkFilter>, Option<Terminal>) {
    let mut before = Vec::new();
    let mut terminal = None;
    if filters.is_empty() {
        at.field("filters").refuse("at least one is required");
    }
    for (i, filter) in filters.iter().enumerate() {
        let at = at.item("filters", i);
        at.field("name").need_text(&filter.name);
        let last = i + 1 == filters.len();
        let at = at.field("typed_config");
        let Some(filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
            at.refuse("is required");
            continue;
        };
        let found = if let Some(message) = at.unpack::<HttpConnectionManager>(any) {
            message
                .message()
                .and_then(|m| http_connection_manager::http_connection_manager(&m, &at))
                .map(|m| Terminal::Http(Box::new(m)))
        } else if let Some(message) = at.unpack::<TcpProxy>(any) {
            message.message().and_then(|m| tcp_proxy::tcp_proxy(&m, &at)).map(|m| Terminal::Tcp(Box::new(m)))
        } else if let Some(message) = at.unpack::<Rbac>(any) {
            if last {
                at.refuse("the last filter must be the HTTP connection manager or the TCP proxy");
            }
            before.extend(message.message().map(|m| NetworkFilter::Rbac(rbac::network_filter(&m, &at))));
            continue;
        } else {
            at.refuse_type(any);
            continue;
        };
        if !last {
            at.refuse("must be the last filter of its chain");
        }
        terminal = found;
    }
    (before, terminal)
}
