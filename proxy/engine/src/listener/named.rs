//! Destinations that clients name themselves: HTTP CONNECT (RFC 9110 section 9.3.6) and SOCKS5 (RFC 1928). Pure.
//!
//! What is read is only where the client wants to go; what it says afterwards belongs to its stream.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest head of a CONNECT request, bytes.
pub const HEAD_BYTES_MAX: usize = 8 << 10;

/// Longest name (RFC 1035 section 2.3.4).
const NAME_BYTES_MAX: usize = 253;

const CONNECT: &[u8] = b"CONNECT ";
const SOCKS_VERSION: u8 = 5;
const SOCKS_NO_AUTHENTICATION: u8 = 0;
const SOCKS_COMMAND_CONNECT: u8 = 1;
const SOCKS_IPV4: u8 = 1;
const SOCKS_NAME: u8 = 3;
const SOCKS_IPV6: u8 = 4;

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To an address.
    Address(SocketAddr),
    /// To a name (lower case, without a final dot) and port.
    Name(String, u16),
}

impl Target {
    fn new(host: &str, port: u16) -> Option<Self> {
        if port == 0 {
            return None;
        }
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        if let Some(bare) = bare {
            return bare.parse::<Ipv6Addr>().ok().map(|ip| Self::Address(SocketAddr::new(ip.into(), port)));
        }
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Some(Self::Address(SocketAddr::new(ip, port)));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(fits);
        is_name.then(|| Self::Name(name.to_ascii_lowercase(), port))
    }
}

/// Which protocol a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// More is needed.
    Partial,
    /// HTTP CONNECT.
    Connect,
    /// SOCKS5.
    Socks5,
    /// None of these.
    Other,
}

/// Tells the protocol by the first bytes.
pub fn protocol(bytes: &[u8]) -> Protocol {
    match bytes {
        [] => Protocol::Partial,
        [SOCKS_VERSION, ..] => Protocol::Socks5,
        _ if bytes.starts_with(CONNECT) => Protocol::Connect,
        _ if CONNECT.starts_with(bytes) => Protocol::Partial,
        _ => Protocol::Other,
    }
}

/// One message of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<T> {
    /// More is needed.
    Partial,
    /// It cannot be, or asks for what is not there; the answer to send before closing.
    Refused(&'static [u8]),
    /// It, and its length.
    Whole(T, usize),
}

/// Answer to a CONNECT that succeeded.
pub const CONNECT_OK: &[u8] = b"HTTP/1.1 200 Connection Established\r\n\r\n";
/// Answer to a CONNECT that is none.
pub const CONNECT_BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Answer to a CONNECT to where this client may not go.
pub const CONNECT_FORBIDDEN: &[u8] =
    b"HTTP/1.1 403 Forbidden\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
/// Answer to a CONNECT to a name without an address.
pub const CONNECT_UNKNOWN: &[u8] =
    b"HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Answer to a SOCKS5 greeting: no authentication.
pub const SOCKS_GREETING_OK: &[u8] = &[SOCKS_VERSION, SOCKS_NO_AUTHENTICATION];
/// Answer to a SOCKS5 greeting that offers no method that is there.
const SOCKS_GREETING_BAD: &[u8] = &[SOCKS_VERSION, 0xff];
/// Answer to a SOCKS5 request that succeeded. The address of our end means nothing to a client of CONNECT.
pub const SOCKS_OK: &[u8] = &[SOCKS_VERSION, 0, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];
const SOCKS_GENERAL: &[u8] = &[SOCKS_VERSION, 1, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];
/// Answer to a SOCKS5 request to where this client may not go.
pub const SOCKS_FORBIDDEN: &[u8] = &[SOCKS_VERSION, 2, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];
/// Answer to a SOCKS5 request to a name without an address.
pub const SOCKS_UNKNOWN: &[u8] = &[SOCKS_VERSION, 4, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];
const SOCKS_COMMAND_BAD: &[u8] = &[SOCKS_VERSION, 7, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];
const SOCKS_KIND_BAD: &[u8] = &[SOCKS_VERSION, 8, 0, SOCKS_IPV4, 0, 0, 0, 0, 0, 0];

/// Reads a CONNECT request, its fields included; these mean nothing here.
pub fn connect(bytes: &[u8]) -> Message<Target> {
    let bad = Message::Refused(CONNECT_BAD);
    let within = bytes.get(..bytes.len().min(HEAD_BYTES_MAX)).unwrap_or_default();
    let Some(end) = within.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() >= HEAD_BYTES_MAX { bad } else { Message::Partial };
    };
    let Some(head) = within.get(..end).and_then(|head| std::str::from_utf8(head).ok()) else { return bad };
    let mut lines = head.split("\r\n");
    let words: Vec<&str> = lines.next().unwrap_or_default().split(' ').collect();
    let ["CONNECT", authority, "HTTP/1.1" | "HTTP/1.0"] = words.as_slice() else { return bad };
    // A line without a name, or with a space before its colon, may mean something else to somebody else.
    let is_field = |line: &str| {
        line.split_once(':').is_some_and(|(name, _)| {
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_graphic())
                && !line.contains(['\r', '\n', '\0'])
        })
    };
    if !lines.all(is_field) {
        return bad;
    }
    let target = authority.rsplit_once(':').and_then(|(host, port)| {
        let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| Target::new(host, port.parse().ok()?)).flatten()
    });
    target.map_or(bad, |target| Message::Whole(target, end + 4))
}

/// Reads a SOCKS5 greeting.
pub fn socks_greeting(bytes: &[u8]) -> Message<()> {
    let [version, count, rest @ ..] = bytes else { return Message::Partial };
    if *version != SOCKS_VERSION {
        return Message::Refused(SOCKS_GREETING_BAD);
    }
    let Some(methods) = rest.get(..usize::from(*count)) else { return Message::Partial };
    if methods.contains(&SOCKS_NO_AUTHENTICATION) {
        Message::Whole((), 2 + methods.len())
    } else {
        Message::Refused(SOCKS_GREETING_BAD)
    }
}

/// Reads a SOCKS5 request.
pub fn socks_request(bytes: &[u8]) -> Message<Target> {
    let [version, command, _reserved, kind, rest @ ..] = bytes else { return Message::Partial };
    if *version != SOCKS_VERSION {
        return Message::Refused(SOCKS_GENERAL);
    }
    if *command != SOCKS_COMMAND_CONNECT {
        return Message::Refused(SOCKS_COMMAND_BAD);
    }
    let (host, used) = match *kind {
        SOCKS_IPV4 => match rest.first_chunk::<4>() {
            Some(bytes) => (Ipv4Addr::from(*bytes).to_string(), 4),
            None => return Message::Partial,
        },
        SOCKS_IPV6 => match rest.first_chunk::<16>() {
            Some(bytes) => (Ipv6Addr::from(*bytes).to_string(), 16),
            None => return Message::Partial,
        },
        SOCKS_NAME => {
            let Some(length) = rest.first().map(|length| usize::from(*length)) else {
                return Message::Partial;
            };
            let Some(name) = rest.get(1..=length) else { return Message::Partial };
            let Ok(name) = std::str::from_utf8(name) else { return Message::Refused(SOCKS_GENERAL) };
            (name.to_owned(), 1 + length)
        }
        _ => return Message::Refused(SOCKS_KIND_BAD),
    };
    let Some(port) = rest.get(used..).and_then(|rest| rest.first_chunk::<2>()) else {
        return Message::Partial;
    };
    match Target::new(&host, u16::from_be_bytes(*port)) {
        Some(target) => Message::Whole(target, 4 + used + 2),
        None => Message::Refused(SOCKS_GENERAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(host: &str, port: u16) -> Target {
        Target::Name(host.into(), port)
    }

    #[test]
    fn connect_requests_are_read_or_refused() {
        let whole = |text: &str, target| (text.to_owned(), Message::Whole(target, text.len()));
        let bad = |text: &str| (text.to_owned(), Message::Refused(CONNECT_BAD));
        let address = |text: &str| Target::Address(text.parse().unwrap());
        for (text, expected) in [
            whole("CONNECT B.Demo.mesh:80 HTTP/1.1\r\nHost: b.demo.mesh\r\n\r\n", name("b.demo.mesh", 80)),
            whole("CONNECT 10.0.0.1:443 HTTP/1.0\r\n\r\n", address("10.0.0.1:443")),
            whole("CONNECT [::1]:443 HTTP/1.1\r\n\r\n", address("[::1]:443")),
            bad("CONNECT b HTTP/1.1\r\n\r\n"),
            bad("CONNECT b:0 HTTP/1.1\r\n\r\n"),
            bad("CONNECT b:+80 HTTP/1.1\r\n\r\n"),
            bad("CONNECT b:65536 HTTP/1.1\r\n\r\n"),
            bad("CONNECT :80 HTTP/1.1\r\n\r\n"),
            bad("CONNECT a/b:80 HTTP/1.1\r\n\r\n"),
            bad("CONNECT b:80  HTTP/1.1\r\n\r\n"),
            bad("CONNECT b:80 HTTP/2.0\r\n\r\n"),
            bad("CONNECT b:80 HTTP/1.1\r\nnonsense\r\n\r\n"),
            bad("CONNECT b:80 HTTP/1.1\r\nHost : b\r\n\r\n"),
            ("CONNECT b:80 HTTP/1.1\r\n\r".into(), Message::Partial),
        ] {
            assert_eq!(connect(text.as_bytes()), expected, "{text}");
        }
        let mut long = b"CONNECT b:80 HTTP/1.1\r\na: ".to_vec();
        long.resize(HEAD_BYTES_MAX - 1, b'x');
        assert_eq!(connect(&long), Message::Partial);
        long.push(b'x');
        assert_eq!(connect(&long), Message::Refused(CONNECT_BAD));
    }

    #[test]
    fn socks_messages_are_read_or_refused() {
        assert_eq!(socks_greeting(&[5, 2, 1, 0, 9]), Message::Whole((), 4));
        assert_eq!(socks_greeting(&[5, 2, 1]), Message::Partial);
        assert_eq!(socks_greeting(&[5, 1, 2]), Message::Refused(SOCKS_GREETING_BAD));
        let request = |head: &[u8], rest: &[u8]| socks_request(&[&[5], head, rest].concat());
        let four = Target::Address("10.0.0.1:80".parse().unwrap());
        assert_eq!(request(&[1, 0, 1], &[10, 0, 0, 1, 0, 80]), Message::Whole(four, 10));
        let six = Target::Address("[::1]:80".parse().unwrap());
        let mut bytes = [0; 18];
        (bytes[15], bytes[17]) = (1, 80);
        assert_eq!(request(&[1, 0, 4], &bytes), Message::Whole(six, 22));
        assert_eq!(request(&[1, 0, 3], b"\x01B\x00\x50rest"), Message::Whole(name("b", 80), 8));
        assert_eq!(request(&[2, 0, 1], &[10, 0, 0, 1, 0, 80]), Message::Refused(SOCKS_COMMAND_BAD));
        assert_eq!(request(&[1, 0, 9], &[]), Message::Refused(SOCKS_KIND_BAD));
        assert_eq!(request(&[1, 0, 3], b"\x00\x00\x50"), Message::Refused(SOCKS_GENERAL));
        assert_eq!(request(&[1, 0, 3], b"\x01b\x00\x00"), Message::Refused(SOCKS_GENERAL));
    }

    #[test]
    fn protocols_are_told_by_their_first_bytes() {
        for (bytes, expected) in [
            (&b""[..], Protocol::Partial),
            (b"CONN", Protocol::Partial),
            (b"CONNECT b:1", Protocol::Connect),
            (b"CONNECTED", Protocol::Other),
            (b"GET http://b/", Protocol::Other),
            (b"\x05", Protocol::Socks5),
            (b"\x04\x01", Protocol::Other),
        ] {
            assert_eq!(protocol(bytes), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = connect(&[CONNECT, &bytes, b"\r\n\r\n"].concat());
            let _ = socks_greeting(&[&[5], &bytes[..]].concat());
            for n in 0..bytes.len() {
                let (less, more) = (socks_request(&bytes[..n]), socks_request(&bytes));
                prop_assert!(less == Message::Partial || less == more, "{:?} {:?}", less, more);
            }
        }
    }
}
