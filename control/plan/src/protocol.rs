//! What is spoken on a port.

use crate::resource::read::Node;

/// Protocols, by what a proxy does with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1; HTTP/2 where the client begins with it.
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// gRPC.
    Grpc,
    /// HTTP inside TLS that the caller's application makes: bytes for a sidecar, terminated by a gateway.
    Https,
    /// TLS that the application makes.
    Tls,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// Names in resources and registrations, upper case.
    const WORDS: [(&'static str, Self); 7] = [
        ("HTTP", Self::Http),
        ("HTTP2", Self::Http2),
        ("GRPC", Self::Grpc),
        ("HTTPS", Self::Https),
        ("TLS", Self::Tls),
        ("TCP", Self::Tcp),
        // Istio means a database protocol that it passes on as bytes unless told otherwise.
        ("MONGO", Self::Tcp),
    ];

    /// Finds it by name, without regard to case.
    pub fn parse(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        Self::WORDS.iter().find(|(word, _)| *word == upper).map(|(_, protocol)| *protocol)
    }

    /// Every name that [`Protocol::parse`] takes.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::WORDS.iter().map(|(word, _)| *word)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP",
            Self::Http2 => "HTTP2",
            Self::Grpc => "GRPC",
            Self::Https => "HTTPS",
            Self::Tls => "TLS",
            Self::Tcp => "TCP",
        }
    }

    /// Requests can be routed one by one.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }

    pub(crate) fn read(node: &Node<'_>) -> Self {
        let text = node.text();
        Self::parse(&text).unwrap_or_else(|| {
            node.problem(match text.to_ascii_uppercase().as_str() {
                "GRPC-WEB" | "UDP" | "REDIS" | "MYSQL" | "THRIFT" | "HBONE" => {
                    format!("protocol {text:?} is not supported yet")
                }
                _ => format!("unknown protocol {text:?}"),
            });
            Self::Tcp
        })
    }
}
