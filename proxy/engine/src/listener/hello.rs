//! Reading a TLS ClientHello without taking part in the handshake: server name and ALPN for choosing a chain.
//!
//! Pure: bytes in, verdict out. Whether the handshake as a whole is acceptable is for the TLS library (or, where TLS is
//! passed through, for the host behind) to say.

/// Largest ClientHello that is waited for, bytes, record headers included. Envoy's tls_inspector has the same limit.
pub const HELLO_BYTES_MAX: usize = 16 << 10;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// The beginning of a ClientHello; more is needed.
    Partial,
    /// Not TLS.
    Plain,
    /// A whole ClientHello.
    Hello(Hello),
    /// It began like TLS and cannot be a ClientHello, or is too long for one.
    Malformed,
}

/// What a ClientHello says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// Server name, lower case.
    pub server_name: Option<String>,
    /// ALPN names in the client's order.
    pub alpn: Vec<Vec<u8>>,
}

const RECORD_HANDSHAKE: u8 = 22;
const MESSAGE_CLIENT_HELLO: u8 = 1;
const EXTENSION_SERVER_NAME: u16 = 0;
const EXTENSION_ALPN: u16 = 16;

/// Looks at the first bytes of a connection (RFC 8446 sections 4.1.2 and 5.1).
pub fn look(bytes: &[u8]) -> FirstBytes {
    match bytes {
        [] | [RECORD_HANDSHAKE] => return FirstBytes::Partial,
        [RECORD_HANDSHAKE, 3, ..] => {}
        _ => return FirstBytes::Plain,
    }
    let partial = if bytes.len() >= HELLO_BYTES_MAX { FirstBytes::Malformed } else { FirstBytes::Partial };
    let mut message = Vec::new();
    let mut rest = Bytes(bytes);
    loop {
        let (Some(kind), Some(major)) = (rest.u8(), rest.u8()) else { return partial };
        if kind != RECORD_HANDSHAKE || major != 3 {
            return FirstBytes::Malformed;
        }
        let (Some(_minor), Some(length)) = (rest.u8(), rest.u16()) else { return partial };
        if length == 0 || usize::from(length) > HELLO_BYTES_MAX {
            return FirstBytes::Malformed;
        }
        let Some(fragment) = rest.take(usize::from(length)) else {
            // The kind of message is known from its first byte.
            let first = message.first().or(rest.0.first());
            return if first.is_some_and(|kind| *kind != MESSAGE_CLIENT_HELLO) {
                FirstBytes::Malformed
            } else {
                partial
            };
        };
        message.extend_from_slice(fragment);
        match whole(&message) {
            Whole::No => {}
            Whole::Never => return FirstBytes::Malformed,
            Whole::Body(body) => return parse(body).map_or(FirstBytes::Malformed, FirstBytes::Hello),
        }
    }
}

enum Whole<'a> {
    No,
    Never,
    Body(&'a [u8]),
}

fn whole(message: &[u8]) -> Whole<'_> {
    let mut bytes = Bytes(message);
    match bytes.u8() {
        None => return Whole::No,
        Some(MESSAGE_CLIENT_HELLO) => {}
        Some(_) => return Whole::Never,
    }
    let (Some(high), Some(low)) = (bytes.u8(), bytes.u16()) else { return Whole::No };
    let length = usize::from(high) << 16 | usize::from(low);
    if length > HELLO_BYTES_MAX {
        return Whole::Never;
    }
    bytes.take(length).map_or(Whole::No, Whole::Body)
}

fn parse(body: &[u8]) -> Option<Hello> {
    let mut bytes = Bytes(body);
    bytes.take(2 + 32)?;
    let session = bytes.u8()?;
    bytes.take(usize::from(session))?;
    let suites = bytes.u16()?;
    bytes.take(usize::from(suites))?;
    let compressions = bytes.u8()?;
    bytes.take(usize::from(compressions))?;
    let mut hello = Hello::default();
    if bytes.0.is_empty() {
        return Some(hello);
    }
    let mut extensions = bytes.block16()?;
    while !extensions.0.is_empty() {
        let kind = extensions.u16()?;
        let content = extensions.block16()?;
        match kind {
            EXTENSION_SERVER_NAME => hello.server_name = server_name(content)?,
            EXTENSION_ALPN => hello.alpn = alpn(content)?,
            _ => {}
        }
    }
    Some(hello)
}

/// RFC 6066 section 3; only names of kind host_name exist. A name that no DNS name can be counts as none.
fn server_name(mut content: Bytes<'_>) -> Option<Option<String>> {
    let mut list = content.block16()?;
    let kind = list.u8()?;
    let name = list.block16()?.0;
    let plausible = kind == 0
        && name.len() <= 253
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(b));
    Some(match std::str::from_utf8(name) {
        Ok(name) if plausible && !name.is_empty() => Some(name.to_ascii_lowercase()),
        _ => None,
    })
}

/// RFC 7301 section 3.1.
fn alpn(mut content: Bytes<'_>) -> Option<Vec<Vec<u8>>> {
    let mut list = content.block16()?;
    let mut names = Vec::new();
    while !list.0.is_empty() {
        let length = list.u8()?;
        names.push(list.take(usize::from(length))?.to_vec());
    }
    Some(names)
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, tail) = self.0.split_at_checked(n)?;
        self.0 = tail;
        Some(head)
    }

    fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Content behind a length of two bytes.
    fn block16(&mut self) -> Option<Self> {
        let length = self.u16()?;
        self.take(usize::from(length)).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A real ClientHello of the TLS library.
    fn hello(name: &str, alpn: &[&str]) -> Vec<u8> {
        let mut config = rustls::ClientConfig::builder_with_provider(crate::identity::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        connection.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn hello_of_a_client_gives_name_and_alpn() {
        let bytes = hello("Web.Mesh.Test", &["h2", "http/1.1"]);
        let expected = Hello {
            server_name: Some("web.mesh.test".into()),
            alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        };
        assert_eq!(look(&bytes), FirstBytes::Hello(expected));
        let bytes = hello("127.0.0.1", &[]);
        assert_eq!(look(&bytes), FirstBytes::Hello(Hello::default()));
    }

    #[test]
    fn every_beginning_of_a_hello_is_partial() {
        let bytes = hello("web.mesh.test", &["h2"]);
        for n in 0..bytes.len() {
            assert_eq!(look(&bytes[..n]), FirstBytes::Partial, "{n} of {}", bytes.len());
        }
    }

    #[test]
    fn hello_in_many_records_is_put_together() {
        let bytes = hello("web.mesh.test", &["h2"]);
        let mut split = Vec::new();
        for fragment in bytes[5..].chunks(7) {
            split.extend_from_slice(&[22, 3, 1, 0, fragment.len() as u8]);
            split.extend_from_slice(fragment);
        }
        assert_eq!(look(&split), look(&bytes));
        assert_eq!(look(&split[..split.len() - 1]), FirstBytes::Partial);
    }

    #[test]
    fn other_beginnings_are_told_apart() {
        let table: &[(&[u8], FirstBytes)] = &[
            (b"", FirstBytes::Partial),
            (b"\x16", FirstBytes::Partial),
            (b"\x16\x03", FirstBytes::Partial),
            (b"\x16\x02", FirstBytes::Plain),
            (b"GET / HTTP/1.1\r\n", FirstBytes::Plain),
            (b"PRI * HTTP/2.0\r\n", FirstBytes::Plain),
            (b"\x15\x03\x01\x00\x02\x02\x28", FirstBytes::Plain),
            (b"\x16\x03\x01\x00\x00", FirstBytes::Malformed),
            (b"\x16\x03\x01\xff\xff", FirstBytes::Malformed),
            (b"\x16\x03\x01\x00\x05\x02", FirstBytes::Malformed),
            (b"\x16\x03\x01\x00\x04\x01\xff\xff\xff", FirstBytes::Malformed),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", FirstBytes::Malformed),
        ];
        for (bytes, expected) in table {
            assert_eq!(look(bytes), *expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn hello_longer_than_the_limit_is_refused_at_the_limit() {
        let mut bytes = Vec::new();
        while bytes.len() < HELLO_BYTES_MAX {
            let fragment = if bytes.is_empty() { vec![1, 0, 0x3f, 0xff] } else { vec![0; 100] };
            bytes.extend_from_slice(&[22, 3, 1, 0, fragment.len() as u8]);
            bytes.extend_from_slice(&fragment);
        }
        assert_eq!(look(&bytes[..HELLO_BYTES_MAX - 1]), FirstBytes::Partial);
        assert_eq!(look(&bytes[..HELLO_BYTES_MAX]), FirstBytes::Malformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), tls in any::<bool>()) {
            if tls && bytes.len() > 6 {
                bytes[..3].copy_from_slice(&[22, 3, 1]);
                bytes[5] = 1;
            }
            let _ = look(&bytes);
        }

        #[test]
        fn damaged_hello_is_survived(at in 0..200_usize, to in any::<u8>()) {
            let mut bytes = hello("web.mesh.test", &["h2"]);
            bytes[at] = to;
            let _ = look(&bytes);
        }
    }
}
