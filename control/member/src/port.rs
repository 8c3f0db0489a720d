//! Ports an application declares: `[NUMBER:]CONTAINER_PORT/PROTOCOL`.

use crate::label::is_label;
use serde::{Deserialize, Serialize};

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

impl Protocol {
    /// Reads a name, in any case; `HTTPS` is TLS passed through, as in Istio.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_uppercase().as_str() {
            "HTTP" => Some(Self::Http),
            "HTTP2" | "H2C" => Some(Self::Http2),
            "GRPC" => Some(Self::Grpc),
            "TCP" => Some(Self::Tcp),
            "TLS" | "HTTPS" => Some(Self::Tls),
            _ => None,
        }
    }

    /// Its name in Istio's resources.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Its name in flags and labels.
    pub fn flag(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }
}

/// One port as a label or a rule declares it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Declared {
    /// Unique within the workload.
    pub name: String,
    /// The port callers name.
    pub number: u16,
    /// The port the application listens on, in its own network namespace.
    pub target: u16,
    /// What is spoken.
    pub protocol: Protocol,
}

/// Reads a declaration.
///
/// *Errors*: what is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Declared, String> {
    if !is_label(name) {
        return Err(format!("{name:?} must be a DNS label"));
    }
    let shape = || format!("{text:?} is not [NUMBER:]CONTAINER_PORT/PROTOCOL");
    let (ports, protocol) = text.trim().split_once('/').ok_or_else(shape)?;
    let protocol = Protocol::parse(protocol)
        .ok_or_else(|| format!("protocol {protocol:?} is none of http, http2, grpc, tcp, tls"))?;
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(shape);
    let (number, target) = match ports.split_once(':') {
        Some((number, target)) => (port(number)?, port(target)?),
        None => (port(ports)?, port(ports)?),
    };
    Ok(Declared { name: name.to_owned(), number, target, protocol })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declaration_is_read_or_refused() {
        let port = parse("web", "80:8080/HTTP").unwrap();
        assert_eq!((port.number, port.target, port.protocol), (80, 8080, Protocol::Http));
        let port = parse("db", "5432/tcp").unwrap();
        assert_eq!((port.number, port.target, port.protocol.flag()), (5432, 5432, "tcp"));
        for bad in ["8080", "8080/smtp", "0/http", "65536/http", ":8080/http", "80:/http", "a/http", ""] {
            assert!(parse("web", bad).is_err(), "{bad}");
        }
        assert!(parse("Web", "80/http").is_err());
    }

    #[test]
    fn every_name_is_read_again() {
        for protocol in [Protocol::Http, Protocol::Http2, Protocol::Grpc, Protocol::Tcp, Protocol::Tls] {
            assert_eq!(Protocol::parse(protocol.name()), Some(protocol));
            assert_eq!(Protocol::parse(protocol.flag()), Some(protocol));
        }
    }
}
