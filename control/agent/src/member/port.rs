//! Ports an application declares.

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub enum Protocol {
    Http,
    Http2,
    Grpc,
    Tcp,
    Tls,
}

impl Protocol {
    /// Reads a name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "http" => Some(Self::Http),
            "http2" | "h2c" => Some(Self::Http2),
            "grpc" => Some(Self::Grpc),
            "tcp" => Some(Self::Tcp),
            "tls" | "https" => Some(Self::Tls),
            _ => None,
        }
    }

    /// Its name, as the proxy's flag takes it.
    pub fn name(self) -> &'static str {
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

/// Reads `[NUMBER:]CONTAINER_PORT/PROTOCOL`.
///
/// *Errors*: what is wrong with it.
pub fn parse(name: &str, text: &str) -> Result<Declared, String> {
    if !super::is_label(name) {
        return Err(format!("`{name}` must be a DNS label"));
    }
    let shape = || format!("`{text}` is not [NUMBER:]CONTAINER_PORT/PROTOCOL");
    let (ports, protocol) = text.trim().split_once('/').ok_or_else(shape)?;
    let protocol = Protocol::parse(protocol)
        .ok_or_else(|| format!("protocol `{protocol}` is none of http, http2, grpc, tcp, tls"))?;
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
        assert_eq!((port.number, port.target, port.protocol.name()), (5432, 5432, "tcp"));
        for bad in ["8080", "8080/smtp", "0/http", "65536/http", ":8080/http", "80:/http", "a/http", ""] {
            assert!(parse("web", bad).is_err(), "{bad}");
        }
        assert!(parse("Web", "80/http").is_err());
    }
}
