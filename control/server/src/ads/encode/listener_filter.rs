//! `listener_filters` of a `Listener`.

use outrigger_api::any;
use outrigger_api::envoy::config::core::v3::TypedExtensionConfig;
use outrigger_api::envoy::config::core::v3::proxy_protocol_config::Version;
use outrigger_api::envoy::config::listener::v3 as proto;
use outrigger_api::envoy::data::dns::v3::{DnsTable, dns_table};
use outrigger_api::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use outrigger_api::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use outrigger_api::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use outrigger_api::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use outrigger_api::envoy::extensions::filters::udp::dns_filter::v3 as dns;
use outrigger_api::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use outrigger_api::envoy::r#type::v3::Int32Range;
use outrigger_api::outrigger::v1::ForwardProxy;
use outrigger_traffic::config::{DnsDomain, DnsForward, DnsServer, Listener, PortPredicate};
use prost_types::Any;

use super::value::{duration, udp_address};

/// The filters in the order in which the proxy runs them.
pub(super) fn listener_filters(value: &Listener) -> Vec<proto::ListenerFilter> {
    let mut filters = Vec::new();
    let mut push = |name: &str, config: Any, disabled: Option<&PortPredicate>| {
        filters.push(proto::ListenerFilter {
            name: name.to_owned(),
            config_type: Some(proto::listener_filter::ConfigType::TypedConfig(config)),
            filter_disabled: disabled.map(predicate),
        });
    };
    if value.original_dst {
        push("envoy.filters.listener.original_dst", any(&OriginalDst {}), None);
    }
    if let Some(rules) = &value.proxy_protocol {
        let disallowed = [(rules.disallow_v1, Version::V1), (rules.disallow_v2, Version::V2)];
        let config = ProxyProtocol {
            allow_requests_without_proxy_protocol: rules.allow_without,
            disallowed_versions: disallowed.iter().filter(|(no, _)| *no).map(|(_, v)| (*v).into()).collect(),
        };
        push("envoy.filters.listener.proxy_protocol", any(&config), None);
    }
    if let Some(forward) = &value.forward_proxy {
        let config = ForwardProxy {
            connect: Some(forward.connect),
            socks5: Some(forward.socks5),
            names_of: forward.names_of.clone(),
            allow_unknown: Some(forward.allow_unknown),
        };
        push("outrigger.filters.listener.forward_proxy", any(&config), None);
    }
    if value.tls_inspector {
        let disabled = value.tls_inspector_disabled.as_ref();
        push("envoy.filters.listener.tls_inspector", any(&TlsInspector {}), disabled);
    }
    if value.http_inspector {
        let disabled = value.http_inspector_disabled.as_ref();
        push("envoy.filters.listener.http_inspector", any(&HttpInspector {}), disabled);
    }
    if let Some(server) = &value.dns {
        push("envoy.filters.udp.dns_filter", any(&dns_filter(server)), None);
    }
    filters
}

fn predicate(value: &PortPredicate) -> proto::ListenerFilterChainMatchPredicate {
    use proto::listener_filter_chain_match_predicate::{MatchSet, Rule};
    let set = |all: &[PortPredicate]| MatchSet { rules: all.iter().map(predicate).collect() };
    let rule = match value {
        PortPredicate::Any => Rule::AnyMatch(true),
        PortPredicate::Not(inner) => Rule::NotMatch(Box::new(predicate(inner))),
        PortPredicate::All(all) => Rule::AndMatch(set(all)),
        PortPredicate::Either(any) => Rule::OrMatch(set(any)),
        PortPredicate::Range { start, end } => Rule::DestinationPortRange(Int32Range {
            start: i32::try_from(*start).unwrap_or(i32::MAX),
            end: i32::try_from(*end).unwrap_or(i32::MAX),
        }),
    };
    proto::ListenerFilterChainMatchPredicate { rule: Some(rule) }
}

fn dns_filter(server: &DnsServer) -> dns::DnsFilterConfig {
    use dns::dns_filter_config::{ServerContextConfig, server_context_config::ConfigSource};
    let table = DnsTable { virtual_domains: server.domains.iter().map(domain).collect() };
    dns::DnsFilterConfig {
        stat_prefix: server.stat_prefix.clone(),
        server_config: (!server.domains.is_empty())
            .then_some(ServerContextConfig { config_source: Some(ConfigSource::InlineDnsTable(table)) }),
        client_config: server.forward.as_ref().map(forward),
    }
}

fn domain(value: &DnsDomain) -> dns_table::DnsVirtualDomain {
    use dns_table::{AddressList, DnsEndpoint, dns_endpoint::EndpointConfig};
    let list = AddressList { address: value.addresses.iter().map(ToString::to_string).collect() };
    dns_table::DnsVirtualDomain {
        name: value.name.clone(),
        endpoint: Some(DnsEndpoint { endpoint_config: Some(EndpointConfig::AddressList(list)) }),
        answer_ttl: Some(duration(value.ttl)),
    }
}

fn forward(value: &DnsForward) -> dns::dns_filter_config::ClientContextConfig {
    let resolvers =
        CaresDnsResolverConfig { resolvers: value.resolvers.iter().copied().map(udp_address).collect() };
    dns::dns_filter_config::ClientContextConfig {
        resolver_timeout: Some(duration(value.timeout)),
        max_pending_lookups: value.max_pending,
        typed_dns_resolver_config: (!value.resolvers.is_empty()).then(|| TypedExtensionConfig {
            name: "envoy.network.dns_resolver.cares".to_owned(),
            typed_config: Some(any(&resolvers)),
        }),
    }
}
