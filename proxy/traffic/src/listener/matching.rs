//! The precedence of filter chain matches.
//!
//! Criteria are looked at one after the other: destination port, destination address, server name, transport protocol,
//! application protocols, source address, source port. At each step the chains that fit best stay (a chain without the
//! criterion fits worst), and no step is taken back: a chain that fits the server name best is final even when its
//! application protocols do not fit. Source: Envoy: `FilterChainMatch`.

use crate::authz::Network;
use crate::config::FilterChainMatch;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};

/// What is known of a connection before its chain is chosen.
#[derive(Clone, Copy, Debug)]
pub struct ConnView<'a> {
    /// Where the client meant to go.
    pub destination: SocketAddr,
    /// Where it comes from.
    pub source: SocketAddr,
    /// SNI; any case.
    pub server_name: Option<&'a str>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: &'a str,
    /// ALPN names offered.
    pub application_protocols: &'a [&'a [u8]],
}

/// A compiled [`FilterChainMatch`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ChainMatcher {
    destination_port: Option<u16>,
    destinations: Box<[Network]>,
    server_names: Box<[ServerName]>,
    transport_protocol: Option<Box<str>>,
    application_protocols: Box<[Box<[u8]>]>,
    sources: Box<[Network]>,
    source_ports: Box<[u16]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ServerName {
    Exact(Box<str>),
    /// `.suffix`, from `*.suffix`.
    Suffix(Box<str>),
}

/// How well a criterion fits; larger is better.
type Fit = u32;
/// The chain does not say.
const UNSAID: Fit = 0;

impl ChainMatcher {
    /// Makes a match ready; `refuse` is told path and reason of everything wrong.
    pub(crate) fn new(from: &FilterChainMatch, refuse: &mut dyn FnMut(&str, String)) -> Self {
        let mut networks = |name: &str, list: &[(IpAddr, u8)]| -> Box<[Network]> {
            list.iter()
                .filter_map(|(a, l)| Network::new(*a, *l).map_err(|reason| refuse(name, reason)).ok())
                .collect()
        };
        let destinations = networks("prefix_ranges", &from.prefix_ranges);
        let sources = networks("source_prefix_ranges", &from.source_prefix_ranges);
        let mut server_names = Vec::with_capacity(from.server_names.len());
        for name in &from.server_names {
            let lower = name.to_ascii_lowercase();
            match lower.strip_prefix('*') {
                Some(rest) if rest.len() > 1 && rest.starts_with('.') && !rest.contains('*') => {
                    server_names.push(ServerName::Suffix(rest.into()));
                }
                None if !lower.is_empty() && !lower.contains('*') => {
                    server_names.push(ServerName::Exact(lower.into()))
                }
                _ => refuse("server_names", format!("`{name}` is neither a name nor `*.suffix`")),
            }
        }
        if let Some(protocol) = &from.transport_protocol
            && protocol != "tls"
            && protocol != "raw_buffer"
        {
            refuse("transport_protocol", format!("`{protocol}` is neither `tls` nor `raw_buffer`"));
        }
        Self {
            destination_port: from.destination_port,
            destinations,
            server_names: server_names.into(),
            transport_protocol: from.transport_protocol.as_deref().map(Into::into),
            application_protocols: from.application_protocols.iter().map(|p| p.as_bytes().into()).collect(),
            sources,
            source_ports: from.source_ports.as_slice().into(),
        }
    }

    /// Whether the first bytes of the connection must be known.
    pub(crate) fn needs_inspector(&self) -> bool {
        !self.server_names.is_empty()
            || self.transport_protocol.is_some()
            || !self.application_protocols.is_empty()
    }

    fn fit(&self, step: usize, view: &ConnView<'_>) -> Option<Fit> {
        match step {
            0 => match self.destination_port {
                None => Some(UNSAID),
                Some(port) => (port == view.destination.port()).then_some(1),
            },
            1 => longest(&self.destinations, view.destination.ip()),
            2 => self.fit_server_name(view.server_name),
            3 => match &self.transport_protocol {
                None => Some(UNSAID),
                Some(p) => (**p == *view.transport_protocol).then_some(1),
            },
            4 if self.application_protocols.is_empty() => Some(UNSAID),
            4 => {
                let offered = |p: &[u8]| view.application_protocols.contains(&p);
                self.application_protocols.iter().any(|p| offered(p)).then_some(1)
            }
            5 => longest(&self.sources, view.source.ip()),
            _ if self.source_ports.is_empty() => Some(UNSAID),
            _ => self.source_ports.contains(&view.source.port()).then_some(1),
        }
    }

    fn fit_server_name(&self, name: Option<&str>) -> Option<Fit> {
        if self.server_names.is_empty() {
            return Some(UNSAID);
        }
        let name = name?.as_bytes();
        self.server_names
            .iter()
            .filter_map(|pattern| match pattern {
                ServerName::Exact(exact) => name.eq_ignore_ascii_case(exact.as_bytes()).then_some(Fit::MAX),
                ServerName::Suffix(suffix) => {
                    let at = name.len().checked_sub(suffix.len()).filter(|at| *at > 0)?;
                    let tail = name.get(at..)?;
                    tail.eq_ignore_ascii_case(suffix.as_bytes()).then_some(suffix.len() as Fit)
                }
            })
            .max()
    }
}

const STEPS: usize = 7;

fn longest(networks: &[Network], address: IpAddr) -> Option<Fit> {
    if networks.is_empty() {
        return Some(UNSAID);
    }
    // One more than the length: a range of everything still fits better than none.
    networks.iter().filter(|n| n.contains(address)).map(|n| Fit::from(n.length()) + 1).max()
}

/// The position of the chain to take.
pub(crate) fn most_specific(matchers: &[ChainMatcher], view: &ConnView<'_>) -> Option<usize> {
    let mut left: SmallVec<[usize; 16]> = (0..matchers.len()).collect();
    for step in 0..STEPS {
        let fit = |at: &usize| matchers.get(*at).and_then(|m| m.fit(step, view));
        let best = left.iter().filter_map(fit).max()?;
        left.retain(|at| fit(at) == Some(best));
    }
    left.first().copied()
}

#[cfg(test)]
mod tests;
