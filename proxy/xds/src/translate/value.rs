//! Numbers, times, addresses and texts, with the rules that Envoy has for them.

use super::At;
use outrigger_api::envoy::config::core::v3::{
    Address, CidrRange, RuntimeFractionalPercent, address, socket_address,
};
use outrigger_api::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use outrigger_api::envoy::r#type::v3::fractional_percent::DenominatorType;
use outrigger_api::envoy::r#type::v3::{FractionalPercent, Percent};
use outrigger_traffic::config::{Fraction, StringMatch, StringPattern};
use prost_types::{Duration as ProtoDuration, Struct};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Longest time taken: a hundred years, far from any overflow of clocks.
const SECONDS_MAX: i64 = 100 * 366 * 86_400;

/// A time of at least zero.
pub(crate) fn duration(value: &ProtoDuration, at: &At<'_>) -> Option<Duration> {
    let (Ok(seconds), Ok(nanos)) = (u64::try_from(value.seconds), u32::try_from(value.nanos)) else {
        at.refuse("must not be negative");
        return None;
    };
    if value.seconds > SECONDS_MAX || nanos > 999_999_999 {
        at.refuse("is out of range");
        return None;
    }
    Some(Duration::new(seconds, nanos))
}

/// A time above zero.
pub(crate) fn positive(value: &ProtoDuration, at: &At<'_>) -> Option<Duration> {
    let value = duration(value, at)?;
    if value.is_zero() {
        at.refuse("must be greater than 0s");
        return None;
    }
    Some(value)
}

/// A time above zero, or the default.
pub(crate) fn positive_or(value: Option<&ProtoDuration>, default: Duration, at: &At<'_>) -> Duration {
    value.and_then(|v| positive(v, at)).unwrap_or(default)
}

/// A limit where zero, as often in Envoy, means none; absent means the default.
pub(crate) fn limit_or(
    value: Option<&ProtoDuration>,
    default: Option<Duration>,
    at: &At<'_>,
) -> Option<Duration> {
    match value {
        None => default,
        Some(value) => duration(value, at).filter(|d| !d.is_zero()),
    }
}

/// A TCP port, 0 allowed.
pub(crate) fn port(value: u32, at: &At<'_>) -> u16 {
    u16::try_from(value).unwrap_or_else(|_| {
        at.refuse(format!("{value} is not a port"));
        0
    })
}

/// A whole percentage, 0..=100.
pub(crate) fn percent_u32(value: u32, at: &At<'_>) -> u32 {
    if value > 100 {
        at.refuse("must be at most 100");
    }
    value.min(100)
}

/// `type.v3.Percent`.
pub(crate) fn percent(value: Percent, at: &At<'_>) -> Fraction {
    if !(0.0..=100.0).contains(&value.value) {
        at.refuse("must be between 0 and 100");
        return Fraction::ZERO;
    }
    // In range by the line above, so the cast keeps the value.
    Fraction::from_millionths((value.value * 10_000.0).round() as u32)
}

/// `type.v3.FractionalPercent`.
pub(crate) fn fractional(value: &FractionalPercent, at: &At<'_>) -> Fraction {
    let scale: u32 = match DenominatorType::try_from(value.denominator) {
        Ok(DenominatorType::Hundred) => 10_000,
        Ok(DenominatorType::TenThousand) => 100,
        Ok(DenominatorType::Million) => 1,
        Err(_) => {
            at.field("denominator").refuse("is not known");
            1
        }
    };
    Fraction::from_millionths(value.numerator.saturating_mul(scale))
}

/// A share with a runtime key, and a default value, which Envoy requires.
pub(crate) fn runtime_fraction(value: &RuntimeFractionalPercent, at: &At<'_>) -> Option<Fraction> {
    let at = at.field("default_value");
    let default = at.need(value.default_value.as_ref()).map(|v| fractional(v, &at))?;
    Some(at.runtime().share(&value.runtime_key, default))
}

/// An address of digits and a port.
pub(crate) fn socket_address(address: Option<&Address>, at: &At<'_>) -> Option<SocketAddr> {
    let (host, port) = host_port(address, at)?;
    match host.parse::<IpAddr>() {
        Ok(ip) => Some(SocketAddr::new(ip, port)),
        Err(_) => {
            at.field("socket_address").field("address").refuse(format!("`{host}` is not an IP address"));
            None
        }
    }
}

/// An address of digits and a port, of either transport, and whether it is UDP.
pub(crate) fn transport_address(address: Option<&Address>, at: &At<'_>) -> Option<(SocketAddr, bool)> {
    let (host, port, is_udp) = host_port_transport(address, at)?;
    match host.parse::<IpAddr>() {
        Ok(ip) => Some((SocketAddr::new(ip, port), is_udp)),
        Err(_) => {
            at.field("socket_address").field("address").refuse(format!("`{host}` is not an IP address"));
            None
        }
    }
}

/// The address of a server that is asked by UDP. Its transport need not be said, as in Envoy.
pub(crate) fn udp_address(address: Option<&Address>, at: &At<'_>) -> Option<SocketAddr> {
    transport_address(address, at).map(|(address, _)| address)
}

/// A host as written and a port, of TCP.
pub(crate) fn host_port<'m>(address: Option<&'m Address>, at: &At<'_>) -> Option<(&'m str, u16)> {
    let (host, port, is_udp) = host_port_transport(address, at)?;
    if is_udp {
        at.field("socket_address").field("protocol").refuse("must be TCP here");
        return None;
    }
    Some((host, port))
}

fn host_port_transport<'m>(address: Option<&'m Address>, at: &At<'_>) -> Option<(&'m str, u16, bool)> {
    let address::Address::SocketAddress(address) = at.need(address.and_then(|a| a.address.as_ref()))?;
    let at = at.field("socket_address");
    at.field("address").need_text(&address.address);
    let is_udp = address.protocol == i32::from(socket_address::Protocol::Udp);
    match address.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(value)) => {
            Some((&address.address, port(value, &at.field("port_value")), is_udp))
        }
        None => {
            at.field("port_value").refuse("is required");
            None
        }
    }
}

/// An address range.
pub(crate) fn cidr(value: &CidrRange, at: &At<'_>) -> Option<(IpAddr, u8)> {
    let Ok(ip) = value.address_prefix.parse::<IpAddr>() else {
        at.field("address_prefix").refuse(format!("`{}` is not an IP address", value.address_prefix));
        return None;
    };
    let bits = if ip.is_ipv4() { 32 } else { 128 };
    // Envoy's default of an absent length is 0: every address.
    match u8::try_from(value.prefix_len.unwrap_or(0)) {
        Ok(length) if length <= bits => Some((ip, length)),
        _ => {
            at.field("prefix_len").refuse(format!("must be at most {bits}"));
            None
        }
    }
}

/// The pattern of a regular expression; that it compiles is checked by the compiler of snapshots.
pub(crate) fn regex(value: &RegexMatcher, at: &At<'_>) -> String {
    at.field("regex").need_text(&value.regex);
    value.regex.clone()
}

/// A condition on a text.
pub(crate) fn string_match(value: &StringMatcher, at: &At<'_>) -> Option<StringMatch> {
    use string_matcher::MatchPattern as P;
    let needed = |text: &str, field: &str| at.field(field).need_text(text);
    let pattern = match at.need(value.match_pattern.as_ref())? {
        P::Exact(text) => StringPattern::Exact(text.clone()),
        P::Prefix(text) => {
            needed(text, "prefix");
            StringPattern::Prefix(text.clone())
        }
        P::Suffix(text) => {
            needed(text, "suffix");
            StringPattern::Suffix(text.clone())
        }
        P::Contains(text) => {
            needed(text, "contains");
            StringPattern::Contains(text.clone())
        }
        P::SafeRegex(pattern) => {
            if value.ignore_case {
                at.field("ignore_case").refuse("has no meaning for a regular expression");
            }
            StringPattern::Regex(regex(pattern, &at.field("safe_regex")))
        }
    };
    Some(StringMatch { pattern, ignore_case: value.ignore_case })
}

/// A header's name: lower case, of token characters; pseudo-headers only where `pseudo` says so.
pub(crate) fn header_name(name: &str, pseudo: bool, at: &At<'_>) -> String {
    let lower = name.to_ascii_lowercase();
    let bare = lower.strip_prefix(':').unwrap_or(&lower);
    if lower.starts_with(':') && !pseudo {
        at.refuse(format!("`{name}` is a pseudo-header"));
    } else if !is_token(bare) {
        at.refuse(format!("`{name}` is not a header name"));
    }
    lower
}

/// RFC 9110 §5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Labels and switches that travel in `filter_metadata["outrigger"]`: see [`outrigger_api::metadata`].
pub(crate) fn metadata(
    metadata: Option<&outrigger_api::envoy::config::core::v3::Metadata>,
    known: &[&str],
    at: &At<'_>,
) -> Option<Struct> {
    let ours = metadata?.filter_metadata.get(outrigger_api::metadata::NAMESPACE)?;
    let at = at.key("filter_metadata", outrigger_api::metadata::NAMESPACE);
    for key in ours.fields.keys().filter(|k| !known.contains(&k.as_str())) {
        at.field(key).refuse("is not known");
    }
    Some(ours.clone())
}

/// A switch in [`metadata`].
pub(crate) fn metadata_switch(metadata: Option<&Struct>, key: &str, at: &At<'_>) -> bool {
    use prost_types::value::Kind;
    match metadata.and_then(|m| m.fields.get(key)).map(|v| &v.kind) {
        None => false,
        Some(Some(Kind::BoolValue(value))) => *value,
        Some(_) => {
            at.key("filter_metadata", outrigger_api::metadata::NAMESPACE)
                .field(key)
                .refuse("expected true or false");
            false
        }
    }
}

/// Labels in [`metadata`], by name.
pub(crate) fn metadata_labels(metadata: Option<&Struct>, at: &At<'_>) -> Vec<(String, String)> {
    use prost_types::value::Kind;
    let key = outrigger_api::metadata::LABELS;
    let at = at.key("filter_metadata", outrigger_api::metadata::NAMESPACE);
    let labels = match metadata.and_then(|m| m.fields.get(key)).map(|v| &v.kind) {
        None => return Vec::new(),
        Some(Some(Kind::StructValue(labels))) => labels,
        Some(_) => {
            at.field(key).refuse("expected a mapping of texts");
            return Vec::new();
        }
    };
    let mut out = Vec::with_capacity(labels.fields.len());
    for (name, value) in &labels.fields {
        match &value.kind {
            Some(Kind::StringValue(text)) => out.push((name.clone(), text.clone())),
            _ => at.key(key, name).refuse("expected a text"),
        }
    }
    out
}

/// What may stand in `set-cookie` without changing its meaning (RFC 6265 §4.1.1).
pub(super) fn cookie_text(text: &str, at: &At<'_>) -> String {
    if !text.bytes().all(|b| b.is_ascii_graphic() && b != b';' && b != b',') {
        at.refuse("has a character that a cookie cannot have");
    }
    text.to_owned()
}
