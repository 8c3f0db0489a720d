//! `DnsFilterConfig`.

use super::At;
use super::value::{positive_or, udp_address};
use outrigger_api::envoy::data::dns::v3::DnsTable;
use outrigger_api::envoy::data::dns::v3::dns_table::DnsVirtualDomain;
use outrigger_api::envoy::data::dns::v3::dns_table::dns_endpoint::EndpointConfig;
use outrigger_api::envoy::extensions::filters::udp::dns_filter::v3::DnsFilterConfig;
use outrigger_api::envoy::extensions::filters::udp::dns_filter::v3::dns_filter_config::server_context_config::ConfigSource;
use outrigger_api::envoy::extensions::filters::udp::dns_filter::v3::dns_filter_config::ClientContextConfig;
use outrigger_api::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;
use outrigger_traffic::config::{DnsDomain, DnsForward, DnsServer};
use std::net::IpAddr;
use std::time::Duration;

/// How long an answer may be kept where the table does not say. Source: Envoy.
const TTL: Duration = Duration::from_secs(300);
/// How long a resolver may take. Source: Envoy.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Questions under way at a time. Envoy's default.
const PENDING_MAX: u64 = 256;

/// A DNS server.
pub(super) fn dns_filter(message: &DnsFilterConfig, at: &At<'_>) -> DnsServer {
    at.field("stat_prefix").need_text(&message.stat_prefix);
    let server = message.server_config.as_ref().and_then(|server| server.config_source.as_ref());
    let domains = match server {
        Some(ConfigSource::InlineDnsTable(table)) => {
            table_domains(table, &at.field("server_config").field("inline_dns_table"))
        }
        None => Vec::new(),
    };
    let forward = message.client_config.as_ref().map(|client| forward(client, &at.field("client_config")));
    if domains.is_empty() && forward.is_none() {
        at.refuse("`server_config` or `client_config` is required");
    }
    DnsServer { stat_prefix: message.stat_prefix.clone(), domains, forward }
}

fn table_domains(table: &DnsTable, at: &At<'_>) -> Vec<DnsDomain> {
    let one = |(i, domain)| self::domain(domain, &at.item("virtual_domains", i));
    table.virtual_domains.iter().enumerate().filter_map(one).collect()
}

fn domain(domain: &DnsVirtualDomain, at: &At<'_>) -> Option<DnsDomain> {
    at.field("name").need_text(&domain.name);
    let name = domain.name.trim_end_matches('.').to_ascii_lowercase();
    let ttl = positive_or(domain.answer_ttl.as_ref(), TTL, &at.field("answer_ttl"));
    let at = at.field("endpoint");
    let endpoint = at.need(domain.endpoint.as_ref())?;
    let EndpointConfig::AddressList(list) = at.need(endpoint.endpoint_config.as_ref())?;
    let at = at.field("address_list");
    if list.address.is_empty() {
        at.field("address").refuse("at least one is required");
    }
    let mut addresses = Vec::with_capacity(list.address.len());
    for (i, text) in list.address.iter().enumerate() {
        match text.parse::<IpAddr>() {
            Ok(address) => addresses.push(address),
            Err(_) => at.item("address", i).refuse(format!("`{text}` is not an IP address")),
        }
    }
    Some(DnsDomain { name, addresses, ttl })
}

fn forward(client: &ClientContextConfig, at: &At<'_>) -> DnsForward {
    let timeout = positive_or(client.resolver_timeout.as_ref(), TIMEOUT, &at.field("resolver_timeout"));
    let max_pending = if client.max_pending_lookups == 0 { PENDING_MAX } else { client.max_pending_lookups };
    let mut resolvers = Vec::new();
    if let Some(typed) = &client.typed_dns_resolver_config {
        let at = at.field("typed_dns_resolver_config");
        at.field("name").need_text(&typed.name);
        let at = at.field("typed_config");
        if let Some(any) = at.need(typed.typed_config.as_ref()) {
            match at.unpack::<CaresDnsResolverConfig>(any) {
                Some(message) => {
                    let servers = message.message().unwrap_or_default().resolvers;
                    for (i, server) in servers.iter().enumerate() {
                        resolvers.extend(udp_address(Some(server), &at.item("resolvers", i)));
                    }
                }
                None => at.refuse_type(any),
            }
        }
    }
    DnsForward { resolvers, timeout, max_pending }
}
