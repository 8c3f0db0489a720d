//! Numbers, times, addresses and texts.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use outrigger_api::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, DataSource, SocketAddress, address,
    config_source, data_source, socket_address,
};
use outrigger_api::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher,
};
use outrigger_api::envoy::r#type::v3::Percent;
use outrigger_traffic::config::{Fraction, StringMatch, StringPattern};

pub(super) fn duration(value: Duration) -> prost_types::Duration {
    // The model holds no durations beyond the wire's 10,000 years: readers bound them.
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or(0),
    }
}

/// A limit whose absence must be said, because the receiver has a default: zero says it.
pub(super) fn limit(value: Option<Duration>) -> Option<prost_types::Duration> {
    Some(duration(value.unwrap_or(Duration::ZERO)))
}

pub(super) fn address(value: SocketAddr) -> Address {
    host_port(value.ip().to_string(), value.port())
}

pub(super) fn socket_address(value: SocketAddr) -> SocketAddress {
    SocketAddress {
        protocol: socket_address::Protocol::Tcp.into(),
        address: value.ip().to_string(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(value.port().into())),
    }
}

pub(super) fn udp_address(value: SocketAddr) -> Address {
    let mut udp = address(value);
    if let Some(address::Address::SocketAddress(socket)) = &mut udp.address {
        socket.protocol = socket_address::Protocol::Udp.into();
    }
    udp
}

pub(super) fn host_port(host: String, port: u16) -> Address {
    let socket = SocketAddress {
        protocol: socket_address::Protocol::Tcp.into(),
        address: host,
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

pub(super) fn cidr((ip, length): (IpAddr, u8)) -> CidrRange {
    CidrRange { address_prefix: ip.to_string(), prefix_len: Some(length.into()) }
}

pub(super) fn percent(value: Fraction) -> Percent {
    Percent { value: f64::from(value.millionths()) / 10_000.0 }
}

/// Whole percents, for fields that have nothing finer.
pub(super) fn whole_percent(value: Fraction) -> u32 {
    value.millionths() / 10_000
}

pub(super) fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { engine_type: None, regex: pattern.to_owned() }
}

pub(super) fn substitution(pattern: &str, substitution: &str) -> RegexMatchAndSubstitute {
    RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.to_owned() }
}

pub(super) fn string_match(value: &StringMatch) -> StringMatcher {
    use string_matcher::MatchPattern as P;
    let pattern = match &value.pattern {
        StringPattern::Exact(text) => P::Exact(text.clone()),
        StringPattern::Prefix(text) => P::Prefix(text.clone()),
        StringPattern::Suffix(text) => P::Suffix(text.clone()),
        StringPattern::Contains(text) => P::Contains(text.clone()),
        StringPattern::Regex(text) => P::SafeRegex(regex(text)),
    };
    StringMatcher { ignore_case: value.ignore_case, match_pattern: Some(pattern) }
}

/// The stream that this resource comes by.
pub(super) fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: None,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        resource_api_version: ApiVersion::V3.into(),
    }
}

pub(super) fn text(value: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(value.to_owned())) }
}

pub(super) fn bytes(value: &[u8]) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineBytes(value.to_vec())) }
}
