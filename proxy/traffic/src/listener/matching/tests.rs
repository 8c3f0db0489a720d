//! Precedence tables.

use super::{ChainMatcher, ConnView, most_specific};
use crate::config::FilterChainMatch;
use std::net::IpAddr;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).into()).collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn view<'a>(server_name: Option<&'a str>, transport: &'a str, alpn: &'a [&'a [u8]]) -> ConnView<'a> {
    ConnView {
        destination: "10.0.0.5:443".parse().unwrap(),
        source: "192.168.1.1:5000".parse().unwrap(),
        server_name,
        transport_protocol: transport,
        application_protocols: alpn,
    }
}

fn chosen(matches: &[FilterChainMatch], view: &ConnView<'_>) -> Option<usize> {
    let matchers: Vec<_> =
        matches.iter().map(|m| ChainMatcher::new(m, &mut |f, r| panic!("{f}: {r}"))).collect();
    most_specific(&matchers, view)
}

#[test]
fn server_names_prefer_exact_then_longest_suffix_then_none() {
    let of = |names: &[&str]| FilterChainMatch { server_names: texts(names), ..FilterChainMatch::default() };
    let chains = [of(&[]), of(&["*.com"]), of(&["*.b.com", "x"]), of(&["a.b.com"])];
    for (name, expected) in [
        (Some("a.b.com"), 3),
        (Some("A.B.com"), 3),
        (Some("c.b.com"), 2),
        (Some("X"), 2),
        (Some("b.com"), 1),
        (Some("d.c.b.com"), 2),
        (Some(".com"), 0),
        (Some("y"), 0),
        (None, 0),
    ] {
        assert_eq!(chosen(&chains, &view(name, "tls", &[])), Some(expected), "{name:?}");
    }
    assert_eq!(chosen(&chains[1..], &view(None, "tls", &[])), None);
}

#[test]
fn steps_are_taken_in_order_and_never_back() {
    let by_port = FilterChainMatch { destination_port: Some(443), ..FilterChainMatch::default() };
    let by_name = FilterChainMatch { server_names: texts(&["a"]), ..FilterChainMatch::default() };
    let other = FilterChainMatch { destination_port: Some(80), ..by_name.clone() };
    assert_eq!(chosen(&[by_name.clone(), by_port.clone(), other], &view(Some("a"), "tls", &[])), Some(1));
    let by_name_and_alpn = FilterChainMatch { application_protocols: texts(&["h2"]), ..by_name.clone() };
    let fallback = FilterChainMatch::default();
    let chains = [by_name_and_alpn.clone(), fallback];
    assert_eq!(chosen(&chains, &view(Some("a"), "tls", &[b"h2"])), Some(0));
    assert_eq!(chosen(&chains, &view(Some("a"), "tls", &[b"http/1.1"])), None, "the server name had decided");
    assert_eq!(chosen(&[by_name_and_alpn, by_name], &view(Some("a"), "tls", &[])), Some(1));
}

#[test]
fn addresses_prefer_the_longest_range() {
    let to = |ranges: &[(&str, u8)]| FilterChainMatch {
        prefix_ranges: ranges.iter().map(|(a, l)| (ip(a), *l)).collect(),
        ..FilterChainMatch::default()
    };
    let chains =
        [to(&[]), to(&[("0.0.0.0", 0)]), to(&[("10.0.0.0", 8)]), to(&[("10.0.0.0", 24), ("11.0.0.0", 8)])];
    assert_eq!(chosen(&chains, &view(None, "raw_buffer", &[])), Some(3));
    assert_eq!(chosen(&chains[..3], &view(None, "raw_buffer", &[])), Some(2));
    assert_eq!(chosen(&chains[..2], &view(None, "raw_buffer", &[])), Some(1));
    let from = |ranges: &[(&str, u8)], ports: &[u16]| FilterChainMatch {
        source_prefix_ranges: ranges.iter().map(|(a, l)| (ip(a), *l)).collect(),
        source_ports: ports.to_vec(),
        ..FilterChainMatch::default()
    };
    let chains =
        [from(&[], &[5000]), from(&[("192.168.0.0", 16)], &[]), from(&[("192.168.0.0", 16)], &[5000])];
    assert_eq!(chosen(&chains, &view(None, "raw_buffer", &[])), Some(2));
    assert_eq!(chosen(&chains[..2], &view(None, "raw_buffer", &[])), Some(1));
}

#[test]
fn transport_protocol_tells_tls_from_plaintext() {
    let of = |p: Option<&str>| FilterChainMatch {
        transport_protocol: p.map(Into::into),
        ..FilterChainMatch::default()
    };
    let chains = [of(Some("tls")), of(Some("raw_buffer"))];
    assert_eq!(chosen(&chains, &view(None, "tls", &[])), Some(0));
    assert_eq!(chosen(&chains, &view(None, "raw_buffer", &[])), Some(1));
    assert_eq!(chosen(&chains[..1], &view(None, "raw_buffer", &[])), None);
    assert!(ChainMatcher::new(&chains[0], &mut |_, _| {}).needs_inspector());
    assert!(!ChainMatcher::new(&FilterChainMatch::default(), &mut |_, _| {}).needs_inspector());
}
