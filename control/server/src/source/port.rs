//! Ports as labels and rules declare them: `[NUMBER:]CONTAINER_PORT/PROTOCOL`.

use super::workload::Protocol;
use crate::identity::spiffe::is_label;

/// One declared port.
#[derive(Clone, Debug, PartialEq, Eq)]
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
        assert_eq!(parse("db", "5432/tcp").unwrap().number, 5432);
        for bad in ["8080", "8080/smtp", "0/http", "65536/http", ":8080/http", "80:/http", ""] {
            assert!(parse("web", bad).is_err(), "{bad}");
        }
        assert!(parse("Web", "80/http").is_err());
    }
}
