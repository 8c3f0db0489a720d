//! What capture needs: redirection, inspection, PROXY protocol, destinations as hosts, DNS.

use super::*;
use config::{ClusterDiscovery, OriginalDst, PortPredicate, ProxyProtocol, ProxyProtocolVersion};
use std::time::Duration;

const FILTERS: &str = "type.googleapis.com/envoy.extensions.filters.listener";
const CHAIN: &str = "filter_chains: [{filters: [{name: t, typed_config: {'@type': type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: t, cluster: c}}]}]";

fn listener(fields: &str) -> Result<config::Listener, Vec<ConfigError>> {
    let text = format!(
        "name: in\naddress: {{socket_address: {{address: 0.0.0.0, port_value: 15001}}}}\n{CHAIN}\n{fields}\n"
    );
    translate_listener(&message(&text))
}

fn cluster(fields: &str) -> Result<config::Cluster, Vec<ConfigError>> {
    translate_cluster(&message(&format!("{{name: c, {fields}}}")))
}

fn typed(name: &str, rest: &str) -> String {
    format!("{{name: f, typed_config: {{'@type': {FILTERS}.{name}{rest}}}}}")
}

#[test]
fn listeners_of_an_istio_sidecar_are_translated() {
    let outbound = listener("use_original_dst: true\ntraffic_direction: OUTBOUND").expect("accepted");
    assert!(outbound.use_original_dst && outbound.bind_to_port && !outbound.original_dst);
    let port = listener("bind_to_port: false").expect("accepted");
    assert!(!port.bind_to_port);
    let filters = format!(
        "listener_filters: [{}, {}, {}]\nlistener_filters_timeout: 0.3s\ncontinue_on_listener_filters_timeout: true",
        typed("original_dst.v3.OriginalDst", ""),
        typed("tls_inspector.v3.TlsInspector", "")
            .replace("{name", "{filter_disabled: {destination_port_range: {start: 22, end: 23}}, name"),
        typed("http_inspector.v3.HttpInspector", "").replace(
            "{name",
            "{filter_disabled: {or_match: {rules: [{destination_port_range: {start: 22, end: 23}}, {not_match: {any_match: true}}]}}, name"
        ),
    );
    let inbound = listener(&filters).expect("accepted");
    assert!(inbound.original_dst && inbound.tls_inspector && inbound.http_inspector);
    let ssh = PortPredicate::Range { start: 22, end: 23 };
    assert_eq!(inbound.tls_inspector_disabled, Some(ssh.clone()));
    let either = PortPredicate::Either(vec![ssh, PortPredicate::Not(Box::new(PortPredicate::Any))]);
    assert_eq!(inbound.http_inspector_disabled, Some(either));
    assert_eq!(inbound.listener_filters_timeout, Some(Duration::from_millis(300)));
    let by_name = "listener_filters: [{name: envoy.filters.listener.original_dst}, {name: envoy.filters.listener.http_inspector}]";
    let found = listener(by_name).expect("accepted");
    assert!(found.original_dst && found.http_inspector && !found.tls_inspector);
}

#[test]
fn proxy_protocol_is_translated_in_both_directions() {
    let filter = typed("proxy_protocol.v3.ProxyProtocol", "");
    let found = listener(&format!("listener_filters: [{filter}]")).expect("accepted");
    assert_eq!(found.proxy_protocol, Some(ProxyProtocol::default()));
    let filter = typed(
        "proxy_protocol.v3.ProxyProtocol",
        ", allow_requests_without_proxy_protocol: true, disallowed_versions: [V1], stat_prefix: a",
    );
    let found = listener(&format!("listener_filters: [{filter}]")).expect("accepted");
    let rules = ProxyProtocol { allow_without: true, disallow_v1: true, disallow_v2: false };
    assert_eq!(found.proxy_protocol, Some(rules));
    let socket = |version: &str| {
        format!(
            "transport_socket: {{name: p, typed_config: {{'@type': type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport, config: {{{version}}}, transport_socket: {{name: envoy.transport_sockets.raw_buffer}}}}}}"
        )
    };
    for (text, version) in [("", ProxyProtocolVersion::V1), ("version: V2", ProxyProtocolVersion::V2)] {
        let found = cluster(&socket(text)).expect("accepted");
        assert_eq!((found.proxy_protocol, found.tls), (Some(version), None));
    }
    let bare = socket("").replace(", transport_socket: {name: envoy.transport_sockets.raw_buffer}", "");
    let found = reasons(cluster(&bare));
    assert_eq!(found, ["transport_socket.typed_config.transport_socket: is required"]);
}

#[test]
fn destination_clusters_are_translated() {
    let found = cluster("type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED").expect("accepted");
    assert_eq!(found.discovery, ClusterDiscovery::OriginalDst(OriginalDst::default()));
    let found = cluster(
        "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 30s, original_dst_lb_config: {use_http_header: true, http_header_name: X-To, upstream_port_override: 8443}, upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}",
    )
    .expect("accepted");
    let original = OriginalDst {
        header: Some("x-to".into()),
        port_override: Some(8443),
        cleanup_interval: Duration::from_secs(30),
    };
    assert_eq!(found.discovery, ClusterDiscovery::OriginalDst(original));
    assert_eq!(found.source_address, Some("127.0.0.6:0".parse().expect("address")));
    let found = cluster(
        "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {use_http_header: true}",
    )
    .expect("accepted");
    let ClusterDiscovery::OriginalDst(original) = found.discovery else { panic!("destinations") };
    assert_eq!(original.header.as_deref(), Some("x-envoy-original-dst-host"));
}

#[test]
fn impossible_captures_are_refused() {
    for (fields, expected) in [
        ("type: ORIGINAL_DST", "lb_policy: must be CLUSTER_PROVIDED with `type: ORIGINAL_DST`"),
        (
            "lb_policy: CLUSTER_PROVIDED",
            "lb_policy: CLUSTER_PROVIDED has no meaning without `type: ORIGINAL_DST`",
        ),
        ("cleanup_interval: 1s", "cleanup_interval: has no effect without `type: ORIGINAL_DST`"),
        ("original_dst_lb_config: {}", "original_dst_lb_config: has no effect without `type: ORIGINAL_DST`"),
        (
            "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, cleanup_interval: 0s",
            "cleanup_interval: must be greater than 0s",
        ),
        (
            "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {http_header_name: a}",
            "original_dst_lb_config.http_header_name: has no effect without `use_http_header`",
        ),
        (
            "type: ORIGINAL_DST, lb_policy: CLUSTER_PROVIDED, original_dst_lb_config: {upstream_port_override: 65536}",
            "original_dst_lb_config.upstream_port_override: 65536 is not a port",
        ),
    ] {
        assert_eq!(reasons(cluster(fields)), [expected], "{fields}");
    }
    let (tls, proxy) =
        (typed("tls_inspector.v3.TlsInspector", ""), typed("proxy_protocol.v3.ProxyProtocol", ""));
    for (fields, expected) in [
        (
            format!("listener_filters: [{tls}, {proxy}]"),
            "listener_filters[1]: must stand before what looks at the bytes behind it",
        ),
        (
            format!("listener_filters: [{}]", proxy.replace("{name", "{filter_disabled: {any_match: true}, name")),
            "listener_filters[0].filter_disabled: is supported for the TLS and HTTP inspectors only",
        ),
        (
            format!(
                "listener_filters: [{}]",
                tls.replace("{name", "{filter_disabled: {destination_port_range: {start: 9, end: 9}}, name")
            ),
            "listener_filters[0].filter_disabled.destination_port_range: must be a range of ports, its end not included",
        ),
        (
            format!(
                "listener_filters: [{}]",
                tls.replace("{name", "{filter_disabled: {and_match: {rules: [{any_match: true}]}}, name")
            ),
            "listener_filters[0].filter_disabled.and_match.rules: at least two are required",
        ),
        ("listener_filters: [{name: envoy.filters.listener.other}]".into(), "listener_filters[0].typed_config: is required"),
        (
            "additional_addresses: [{address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 1}}}]".into(),
            "additional_addresses[0].address.socket_address.protocol: must be TCP here",
        ),
    ] {
        assert_eq!(reasons(listener(&fields)), [expected], "{fields}");
    }
}

const DNS: &str = "name: dns
address: {socket_address: {protocol: UDP, address: 127.0.0.1, port_value: 15053}}
additional_addresses: [{address: {socket_address: {address: 127.0.0.1, port_value: 15053}}}]
listener_filters:
- name: envoy.filters.udp.dns_filter
  typed_config:
    '@type': type.googleapis.com/envoy.extensions.filters.udp.dns_filter.v3.DnsFilterConfig
    stat_prefix: mesh
    server_config:
      inline_dns_table:
        virtual_domains:
        - {name: B.demo.mesh., endpoint: {address_list: {address: [240.240.0.1, '2001:db8::1']}}, answer_ttl: 30s}
        - {name: '*.c.mesh', endpoint: {address_list: {address: [240.240.0.2]}}}
    client_config:
      resolver_timeout: 3s
      max_pending_lookups: 7
      typed_dns_resolver_config:
        name: envoy.network.dns_resolver.cares
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
          resolvers: [{socket_address: {address: 127.0.0.53, port_value: 53}}]
";

#[test]
fn dns_listener_is_translated() {
    let found = translate_listener(&message(DNS)).expect("accepted");
    let dns = found.dns.expect("dns");
    assert_eq!(found.additional_addresses, ["127.0.0.1:15053".parse().expect("address")]);
    let names: Vec<_> =
        dns.domains.iter().map(|d| (d.name.as_str(), d.addresses.len(), d.ttl.as_secs())).collect();
    assert_eq!(names, [("b.demo.mesh", 2, 30), ("*.c.mesh", 1, 300)]);
    let forward = dns.forward.expect("forward");
    assert_eq!(forward.resolvers, ["127.0.0.53:53".parse().expect("address")]);
    assert_eq!((forward.timeout, forward.max_pending), (Duration::from_secs(3), 7));
    let plain =
        DNS.split("      typed_dns").next().unwrap_or_default().replace("      max_pending_lookups: 7\n", "");
    let dns = translate_listener(&message(&plain)).expect("accepted").dns.expect("dns");
    let forward = dns.forward.expect("forward");
    assert_eq!((forward.resolvers.len(), forward.max_pending), (0, 256));
}

#[test]
fn impossible_dns_listeners_are_refused() {
    let filter = "listener_filters[0].typed_config";
    for (from, to, expected) in [
        (
            "protocol: UDP, ",
            "",
            "address: a listener of DNS has a UDP address (TCP: additional_addresses)".to_owned(),
        ),
        (
            "240.240.0.2",
            "nowhere",
            format!(
                "{filter}.server_config.inline_dns_table.virtual_domains[1].endpoint.address_list.address[0]: `nowhere` is not an IP address"
            ),
        ),
        ("stat_prefix: mesh", "stat_prefix: ''", format!("{filter}.stat_prefix: must not be empty")),
        (
            "resolver_timeout: 3s",
            "resolver_timeout: 0s",
            format!("{filter}.client_config.resolver_timeout: must be greater than 0s"),
        ),
    ] {
        let found = reasons(translate_listener(&message(&DNS.replace(from, to))));
        assert!(found.contains(&expected), "{found:#?}");
    }
    let udp = format!(
        "address: {{socket_address: {{protocol: UDP, address: 127.0.0.1, port_value: 1}}}}\n{CHAIN}\n"
    );
    let found = reasons(translate_listener(&message(&udp)));
    assert!(found[0].starts_with("address: the only thing that is served over UDP is DNS"), "{found:?}");
}
