//! What is done with a connection before its filter chain is chosen, beside looking for TLS.

use serde::{Deserialize, Serialize};

/// The PROXY protocol from a load balancer in front (`envoy.filters.listener.proxy_protocol`).
///
/// Its header says where the connection really comes from and goes to. Whoever can connect can write one: the port must be
/// reachable by the load balancer alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyProtocol {
    /// Serve connections that begin with something else as they are, instead of closing them. Default false.
    pub allow_without: bool,
    /// Close connections with a header of version 1. Default false.
    pub disallow_v1: bool,
    /// Close connections with a header of version 2. Default false.
    pub disallow_v2: bool,
}

/// Version of a PROXY header that is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ProxyProtocolVersion {
    /// A line of text.
    #[default]
    V1,
    /// Binary.
    V2,
}

/// A condition on the port that a connection goes to; `filter_disabled` of a listener filter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortPredicate {
    /// Always.
    Any,
    /// When the other does not hold.
    Not(Box<PortPredicate>),
    /// When all hold.
    All(Vec<PortPredicate>),
    /// When one holds.
    Either(Vec<PortPredicate>),
    /// From `start` up to, not including, `end`.
    Range {
        /// First port.
        start: u32,
        /// One more than the last.
        end: u32,
    },
}

impl PortPredicate {
    /// Whether it holds for a destination port.
    pub fn holds(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Not(inner) => !inner.holds(port),
            Self::All(all) => all.iter().all(|one| one.holds(port)),
            Self::Either(any) => any.iter().any(|one| one.holds(port)),
            Self::Range { start, end } => (*start..*end).contains(&u32::from(port)),
        }
    }
}

/// A forward proxy: the client itself says where it wants to go, by HTTP CONNECT or SOCKS5
/// (`outrigger.v1.ForwardProxy`). The destination then counts as that of a redirected connection. What begins with neither
/// is left to the listener's own filter chains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardProxy {
    /// Answer HTTP CONNECT. Default true.
    pub connect: bool,
    /// Answer SOCKS5 (RFC 1928, without authentication, CONNECT only). Default true.
    pub socks5: bool,
    /// Names that mean addresses, asked before the resolver of the host: those of a DNS listener, by its name. Empty: none.
    pub names_of: String,
    /// Destinations that no table knows are resolved and reached as they are; `false` refuses them. Default true.
    pub allow_unknown: bool,
}

impl Default for ForwardProxy {
    fn default() -> Self {
        Self { connect: true, socks5: true, names_of: String::new(), allow_unknown: true }
    }
}

#[cfg(test)]
mod tests {
    use super::PortPredicate as P;

    #[test]
    fn predicates_hold_for_the_ports_they_name() {
        let some = P::Either(vec![P::Range { start: 22, end: 23 }, P::Range { start: 3306, end: 3307 }]);
        let table = [
            (P::Any, 1, true),
            (some.clone(), 22, true),
            (some.clone(), 23, false),
            (some.clone(), 3306, true),
            (P::Not(Box::new(some.clone())), 80, true),
            (P::All(vec![P::Any, some]), 80, false),
            (P::Range { start: 0, end: 65_536 }, 65_535, true),
        ];
        for (predicate, port, expected) in table {
            assert_eq!(predicate.holds(port), expected, "{predicate:?} {port}");
        }
    }
}
