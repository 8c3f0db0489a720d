//! Listeners and filter chains (`envoy.config.listener.v3`).

use super::{
    AccessLog, DnsServer, DownstreamTls, ForwardProxy, HttpConnectionManager, PortPredicate, ProxyProtocol,
    Rbac, TcpProxy,
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// An address to accept connections on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// Unique name.
    pub name: String,
    /// Where to bind. Port 0 binds an ephemeral port (tests).
    pub address: SocketAddr,
    /// Further addresses served alike.
    pub additional_addresses: Vec<SocketAddr>,
    /// Whether `address` is bound. One that is not gets connections from listeners with
    /// [`use_original_dst`](Self::use_original_dst) that were going to its address. Default true.
    pub bind_to_port: bool,
    /// Let `address` and the additional ones be none of this host yet (IP_FREEBIND). Default false.
    pub freebind: bool,
    /// Take connections for any address that the kernel redirects here (IP_TRANSPARENT; needs CAP_NET_ADMIN). Default false.
    pub transparent: bool,
    /// Hand redirected connections to the listener of the address they were going to (with this port at that address, or at
    /// all addresses), where there is one. Default false.
    pub use_original_dst: bool,
    /// Take the address that a redirected connection was going to for its destination (`original_dst`); set as well when
    /// `use_original_dst` is. Default false.
    pub original_dst: bool,
    /// Read a PROXY header first.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Let clients say where they want to go.
    pub forward_proxy: Option<ForwardProxy>,
    /// Chains to choose from, by their [`FilterChainMatch`].
    pub filter_chains: Vec<FilterChain>,
    /// Used when no chain matches; without it such a connection is closed.
    pub default_filter_chain: Option<FilterChain>,
    /// Look at the first bytes for a TLS ClientHello (`tls_inspector`), so that SNI, ALPN and transport protocol can be
    /// matched. Set as well when a chain's match needs it, as Envoy does.
    pub tls_inspector: bool,
    /// Where the above does not look.
    pub tls_inspector_disabled: Option<PortPredicate>,
    /// Look at the first bytes for HTTP (`http_inspector`), so that chains can be matched by `http/1.0`, `http/1.1` and `h2c`
    /// as application protocols. Default false.
    pub http_inspector: bool,
    /// Where the above does not look.
    pub http_inspector_disabled: Option<PortPredicate>,
    /// Answer DNS instead of accepting connections for chains: `address` is then UDP, additional addresses are TCP.
    pub dns: Option<Box<DnsServer>>,
    /// How long listener filters may wait for bytes. Default 15 s; `None` (0 in Envoy) waits for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// Go on without an answer when the time above is over, instead of closing.
    pub continue_on_listener_filters_timeout: bool,
    /// Soft limit of buffered bytes per connection and direction. Default 1 MiB.
    pub per_connection_buffer_limit_bytes: u32,
    /// Kernel accept queue. Default 1024 (Envoy: the system's maximum).
    pub tcp_backlog_size: u32,
    /// Most connections at a time; further ones are closed at once. Default: no limit of its own.
    pub connection_limit: Option<u32>,
    /// Which side of a sidecar this is; labels of metrics come from it.
    pub traffic_direction: TrafficDirection,
    /// Logs of connections that no connection manager or TCP proxy logs.
    pub access_log: Vec<AccessLog>,
}

impl Listener {
    /// A listener with Envoy's defaults and no chain yet.
    pub fn new(name: impl Into<String>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            address,
            additional_addresses: Vec::new(),
            bind_to_port: true,
            freebind: false,
            transparent: false,
            use_original_dst: false,
            original_dst: false,
            proxy_protocol: None,
            forward_proxy: None,
            filter_chains: Vec::new(),
            default_filter_chain: None,
            tls_inspector: false,
            tls_inspector_disabled: None,
            http_inspector: false,
            http_inspector_disabled: None,
            dns: None,
            listener_filters_timeout: Some(Duration::from_secs(15)),
            continue_on_listener_filters_timeout: false,
            per_connection_buffer_limit_bytes: 1 << 20,
            tcp_backlog_size: 1024,
            connection_limit: None,
            traffic_direction: TrafficDirection::Unspecified,
            access_log: Vec::new(),
        }
    }
}

/// `envoy.config.core.v3.TrafficDirection`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrafficDirection {
    /// Not said; a gateway.
    #[default]
    Unspecified,
    /// From the mesh to the application beside this proxy.
    Inbound,
    /// From the application beside this proxy to the mesh.
    Outbound,
}

/// What is done with a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FilterChain {
    /// Name for logs and metrics; may be empty.
    pub name: String,
    /// Which connections take this chain.
    pub matches: FilterChainMatch,
    /// TLS terminated here; `None` is plaintext.
    pub tls: Option<DownstreamTls>,
    /// Time for the TLS handshake. Envoy has no limit by default; ours is 15 s.
    pub transport_socket_connect_timeout: Duration,
    /// Network filters before the terminal one, in order.
    pub network_filters: Vec<NetworkFilter>,
    /// The last filter.
    pub terminal: Terminal,
}

/// Criteria of a chain. All given ones must hold; the most specific chain wins in Envoy's order: destination port,
/// destination IP, server name, transport protocol, application protocol, (direct) source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FilterChainMatch {
    /// Port the client meant (the listener's own without redirection).
    pub destination_port: Option<u16>,
    /// Address ranges the client meant, `(address, prefix length)`.
    pub prefix_ranges: Vec<(IpAddr, u8)>,
    /// SNI: exact names, or `*.suffix`; lower case.
    pub server_names: Vec<String>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: Option<String>,
    /// ALPN names offered by the client (`h2`, `http/1.1`, `istio`, …), or what the HTTP inspector found.
    pub application_protocols: Vec<String>,
    /// Ranges of the client's address.
    pub source_prefix_ranges: Vec<(IpAddr, u8)>,
    /// Ports of the client.
    pub source_ports: Vec<u16>,
}

/// A filter that sees a connection before its terminal filter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NetworkFilter {
    /// `envoy.filters.network.rbac`.
    Rbac(Rbac),
}

/// The filter that owns the connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Terminal {
    /// `envoy.filters.network.http_connection_manager`.
    Http(Box<HttpConnectionManager>),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Box<TcpProxy>),
}
