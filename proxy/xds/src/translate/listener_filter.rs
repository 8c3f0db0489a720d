//! What runs before a filter chain is chosen: `listener_filters` of a `Listener`.

use super::{At, dns};
use outrigger_api::envoy::config::core::v3::proxy_protocol_config::Version;
use outrigger_api::envoy::config::listener::v3::listener_filter_chain_match_predicate::{MatchSet, Rule};
use outrigger_api::envoy::config::listener::v3::{
    ListenerFilter, ListenerFilterChainMatchPredicate, listener_filter,
};
use outrigger_api::envoy::extensions::filters::listener::http_inspector::v3::HttpInspector;
use outrigger_api::envoy::extensions::filters::listener::original_dst::v3::OriginalDst;
use outrigger_api::envoy::extensions::filters::listener::proxy_protocol::v3::ProxyProtocol;
use outrigger_api::envoy::extensions::filters::listener::tls_inspector::v3::TlsInspector;
use outrigger_api::envoy::extensions::filters::udp::dns_filter::v3::DnsFilterConfig;
use outrigger_api::outrigger::v1::ForwardProxy;
use outrigger_traffic::config::{self, Listener, PortPredicate};

/// Deepest nesting of predicates.
const NESTING_MAX: usize = 16;

/// Which filter, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OriginalDst,
    ProxyProtocol,
    ForwardProxy,
    Inspector,
    Dns,
}

/// Sets what the filters ask for.
pub(super) fn listener_filters(filters: &[ListenerFilter], listener: &mut Listener, at: &At<'_>) {
    let mut last = Kind::OriginalDst;
    for (i, filter) in filters.iter().enumerate() {
        let at = at.item("listener_filters", i);
        at.field("name").need_text(&filter.name);
        let disabled = filter
            .filter_disabled
            .as_ref()
            .and_then(|predicate| port_predicate(predicate, 0, &at.field("filter_disabled")));
        let Some(kind) = one(filter, disabled, listener, &at) else { continue };
        if kind < last && kind != Kind::OriginalDst {
            at.refuse("must stand before what looks at the bytes behind it");
        }
        last = last.max(kind);
        if filter.filter_disabled.is_some() && kind != Kind::Inspector {
            at.field("filter_disabled").refuse("is supported for the TLS and HTTP inspectors only");
        }
    }
}

fn one(
    filter: &ListenerFilter,
    disabled: Option<PortPredicate>,
    listener: &mut Listener,
    at: &At<'_>,
) -> Option<Kind> {
    let at = at.field("typed_config");
    let Some(listener_filter::ConfigType::TypedConfig(any)) = &filter.config_type else {
        // The name alone configures a filter that has nothing to be configured.
        return named(&filter.name, disabled, listener, &at);
    };
    if at.unpack::<TlsInspector>(any).is_some() {
        return named(TLS_INSPECTOR, disabled, listener, &at);
    }
    if at.unpack::<HttpInspector>(any).is_some() {
        return named(HTTP_INSPECTOR, disabled, listener, &at);
    }
    if at.unpack::<OriginalDst>(any).is_some() {
        return named(ORIGINAL_DST, disabled, listener, &at);
    }
    if let Some(message) = at.unpack::<ProxyProtocol>(any) {
        listener.proxy_protocol = message.message().map(|message| proxy_protocol(&message, &at));
        return Some(Kind::ProxyProtocol);
    }
    if let Some(message) = at.unpack::<ForwardProxy>(any) {
        listener.forward_proxy = message.message().map(|message| forward_proxy(&message));
        return Some(Kind::ForwardProxy);
    }
    if let Some(message) = at.unpack::<DnsFilterConfig>(any) {
        listener.dns = message.message().map(|message| Box::new(dns::dns_filter(&message, &at)));
        return Some(Kind::Dns);
    }
    at.refuse_type(any);
    None
}

const TLS_INSPECTOR: &str = "envoy.filters.listener.tls_inspector";
const HTTP_INSPECTOR: &str = "envoy.filters.listener.http_inspector";
const ORIGINAL_DST: &str = "envoy.filters.listener.original_dst";

fn named(name: &str, disabled: Option<PortPredicate>, listener: &mut Listener, at: &At<'_>) -> Option<Kind> {
    match name {
        TLS_INSPECTOR => {
            listener.tls_inspector = true;
            listener.tls_inspector_disabled = disabled;
            Some(Kind::Inspector)
        }
        HTTP_INSPECTOR => {
            listener.http_inspector = true;
            listener.http_inspector_disabled = disabled;
            Some(Kind::Inspector)
        }
        ORIGINAL_DST => {
            listener.original_dst = true;
            Some(Kind::OriginalDst)
        }
        _ => {
            at.refuse("is required");
            None
        }
    }
}

fn proxy_protocol(message: &ProxyProtocol, at: &At<'_>) -> config::ProxyProtocol {
    let mut rules = config::ProxyProtocol {
        allow_without: message.allow_requests_without_proxy_protocol,
        ..config::ProxyProtocol::default()
    };
    for (i, version) in message.disallowed_versions.iter().enumerate() {
        match Version::try_from(*version) {
            Ok(Version::V1) => rules.disallow_v1 = true,
            Ok(Version::V2) => rules.disallow_v2 = true,
            Err(_) => at.item("disallowed_versions", i).refuse("is not known"),
        }
    }
    rules
}

fn forward_proxy(message: &ForwardProxy) -> config::ForwardProxy {
    config::ForwardProxy {
        connect: message.connect.unwrap_or(true),
        socks5: message.socks5.unwrap_or(true),
        names_of: message.names_of.clone(),
        allow_unknown: message.allow_unknown.unwrap_or(true),
    }
}

fn port_predicate(
    predicate: &ListenerFilterChainMatchPredicate,
    depth: usize,
    at: &At<'_>,
) -> Option<PortPredicate> {
    if depth > NESTING_MAX {
        at.refuse(format!("nested deeper than {NESTING_MAX}"));
        return None;
    }
    let set = |set: &MatchSet, field: &str| {
        let at = at.field(field);
        // Source: Envoy: at least two rules.
        if set.rules.len() < 2 {
            at.field("rules").refuse("at least two are required");
        }
        let rule = |(i, rule)| port_predicate(rule, depth + 1, &at.item("rules", i));
        set.rules.iter().enumerate().map(rule).collect::<Option<Vec<_>>>()
    };
    Some(match at.need(predicate.rule.as_ref())? {
        Rule::OrMatch(rules) => PortPredicate::Either(set(rules, "or_match")?),
        Rule::AndMatch(rules) => PortPredicate::All(set(rules, "and_match")?),
        Rule::NotMatch(inner) => {
            PortPredicate::Not(Box::new(port_predicate(inner, depth + 1, &at.field("not_match"))?))
        }
        Rule::AnyMatch(true) => PortPredicate::Any,
        Rule::AnyMatch(false) => {
            at.field("any_match").refuse("must be true");
            return None;
        }
        Rule::DestinationPortRange(range) => {
            let at = at.field("destination_port_range");
            let (Ok(start), Ok(end)) = (u32::try_from(range.start), u32::try_from(range.end)) else {
                at.refuse("must not be negative");
                return None;
            };
            if start >= end || end > 65_536 {
                at.refuse("must be a range of ports, its end not included");
            }
            PortPredicate::Range { start, end }
        }
    })
}
