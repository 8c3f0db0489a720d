//! The PROXY protocol, versions 1 and 2: reading a header and writing one. Pure.
//!
//! Source: "The PROXY protocol", HAProxy, revision of 2020 (sections 2.1 and 2.2).

use outrigger_traffic::config::ProxyProtocolVersion;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, line end included.
const V1_BYTES_MAX: usize = 107;
/// Largest header of version 2 that is taken, bytes. The addresses are in the first 52; what follows (TLVs) is not used.
pub const V2_BYTES_MAX: usize = 8 << 10;

const V1_BEGIN: &[u8] = b"PROXY ";
const V2_BEGIN: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED: usize = 16;
const V2_LOCAL: u8 = 0x20;
const V2_PROXY: u8 = 0x21;
const V2_TCP4: u8 = 0x11;
const V2_TCP6: u8 = 0x21;

/// What stands at the beginning of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// The beginning of a header; more is needed.
    Partial,
    /// Something else.
    Absent,
    /// A header of that version that cannot be.
    Malformed(ProxyProtocolVersion),
    /// A header.
    Found {
        /// Its version.
        version: ProxyProtocolVersion,
        /// Its length in bytes.
        length: usize,
        /// Source and destination; `None`: those of the connection itself hold (`UNKNOWN`, `LOCAL`).
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

/// Reads the header at the beginning of `bytes`.
pub fn read(bytes: &[u8]) -> ProxyHeader {
    if bytes.starts_with(V2_BEGIN) {
        return read_v2(bytes);
    }
    if bytes.starts_with(V1_BEGIN) {
        return read_v1(bytes);
    }
    if V2_BEGIN.starts_with(bytes) || V1_BEGIN.starts_with(bytes) {
        return ProxyHeader::Partial;
    }
    ProxyHeader::Absent
}

fn read_v1(bytes: &[u8]) -> ProxyHeader {
    let version = ProxyProtocolVersion::V1;
    let within = bytes.get(..bytes.len().min(V1_BYTES_MAX)).unwrap_or_default();
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        let over = bytes.len() >= V1_BYTES_MAX;
        return if over { ProxyHeader::Malformed(version) } else { ProxyHeader::Partial };
    };
    let line = within.get(V1_BEGIN.len()..end).and_then(|line| std::str::from_utf8(line).ok());
    match line.and_then(v1_addresses) {
        Some(addresses) => ProxyHeader::Found { version, length: end + 2, addresses },
        None => ProxyHeader::Malformed(version),
    }
}

fn v1_addresses(line: &str) -> Option<Option<(SocketAddr, SocketAddr)>> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        return Some(None);
    }
    let mut address = || -> Option<IpAddr> {
        let word = words.next()?;
        match family {
            "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || -> Option<u16> {
        let word = words.next()?;
        // The parser of numbers would take a sign.
        word.bytes().all(|b| b.is_ascii_digit()).then(|| word.parse().ok()).flatten()
    };
    let addresses = (SocketAddr::new(source, port()?), SocketAddr::new(destination, port()?));
    words.next().is_none().then_some(Some(addresses))
}

fn read_v2(bytes: &[u8]) -> ProxyHeader {
    let version = ProxyProtocolVersion::V2;
    let malformed = ProxyHeader::Malformed(version);
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else { return ProxyHeader::Partial };
    let [.., command, family, high, low] = *fixed else { return malformed };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if V2_FIXED + length > V2_BYTES_MAX {
        return malformed;
    }
    if command != V2_LOCAL && command != V2_PROXY {
        return malformed;
    }
    let Some(content) = rest.get(..length) else { return ProxyHeader::Partial };
    let addresses = match (command, family) {
        (V2_LOCAL, _) => None,
        (_, V2_TCP4) => match v4_addresses(content) {
            None => return malformed,
            some => some,
        },
        (_, V2_TCP6) => match v6_addresses(content) {
            None => return malformed,
            some => some,
        },
        // As Envoy: other transports and families are no connections of ours.
        _ => return malformed,
    };
    ProxyHeader::Found { version, length: V2_FIXED + length, addresses }
}

fn v4_addresses(content: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = |at: usize| {
        let bytes: [u8; 4] = content.get(at..at + 4)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    Some((SocketAddr::new(ip(0)?, port(content, 8)?), SocketAddr::new(ip(4)?, port(content, 10)?)))
}

fn v6_addresses(content: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = |at: usize| {
        let bytes: [u8; 16] = content.get(at..at + 16)?.try_into().ok()?;
        Some(IpAddr::from(bytes))
    };
    Some((SocketAddr::new(ip(0)?, port(content, 32)?), SocketAddr::new(ip(16)?, port(content, 34)?)))
}

fn port(content: &[u8], at: usize) -> Option<u16> {
    content.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

/// The header for a connection from `source` to `destination`; `None`: one of our own.
pub fn write(version: ProxyProtocolVersion, addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    // Both must be of one family: an IPv4 address among IPv6 is written as a mapped one.
    let addresses = addresses.map(|(source, destination)| match (source, destination) {
        (SocketAddr::V4(_), SocketAddr::V6(_)) | (SocketAddr::V6(_), SocketAddr::V4(_)) => {
            (mapped(source), mapped(destination))
        }
        same => same,
    });
    match version {
        ProxyProtocolVersion::V1 => write_v1(addresses),
        ProxyProtocolVersion::V2 => write_v2(addresses),
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

fn write_v1(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    match addresses {
        None => b"PROXY UNKNOWN\r\n".to_vec(),
        Some((source, destination)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let (from, to) = (source.ip(), destination.ip());
            format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port()).into_bytes()
        }
    }
}

fn write_v2(addresses: Option<(SocketAddr, SocketAddr)>) -> Vec<u8> {
    let mut out = V2_BEGIN.to_vec();
    let Some((source, destination)) = addresses else {
        out.extend([V2_LOCAL, 0, 0, 0]);
        return out;
    };
    let (family, length) = if source.is_ipv4() { (V2_TCP4, 12) } else { (V2_TCP6, 36) };
    out.extend([V2_PROXY, family, 0, length]);
    for ip in [source.ip(), destination.ip()] {
        match ip {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    out.extend(source.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ProxyProtocolVersion::{V1, V2};
    use proptest::prelude::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn headers_of_version_1_are_read() {
        let four = Some((at("192.0.2.1:56324"), at("192.0.2.9:443")));
        let six = Some((at("[2001:db8::1]:1"), at("[2001:db8::2]:65535")));
        for (line, addresses) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 56324 443\r\n", four),
            ("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", six),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN ffff::1 what ever\r\n", None),
        ] {
            let found = ProxyHeader::Found { version: V1, length: line.len(), addresses };
            assert_eq!(read(format!("{line}GET /").as_bytes()), found, "{line}");
            for n in 0..line.len() {
                assert_eq!(read(&line.as_bytes()[..n]), ProxyHeader::Partial, "{line} {n}");
            }
        }
    }

    #[test]
    fn malformed_headers_are_refused_with_their_version() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(V1_BYTES_MAX));
        for line in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 443 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 +443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 56324 65536\r\n",
            "PROXY TCP4 2001:db8::1 192.0.2.9 1 2\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.9 1 2\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 1 2\r\n",
            "PROXY \r\n",
            &long,
        ] {
            assert_eq!(read(line.as_bytes()), ProxyHeader::Malformed(V1), "{line}");
        }
        let v2 = |tail: &[u8]| read(&[V2_BEGIN, tail].concat());
        let tcp4 = [0; 12];
        assert_eq!(v2(&[&[0x22, 0x11, 0, 12], &tcp4[..]].concat()), ProxyHeader::Malformed(V2));
        assert_eq!(v2(&[&[0x21, 0x12, 0, 12], &tcp4[..]].concat()), ProxyHeader::Malformed(V2));
        assert_eq!(v2(&[&[0x21, 0x11, 0, 11], &tcp4[..]].concat()), ProxyHeader::Malformed(V2));
        assert_eq!(v2(&[0x21, 0x11, 0xff, 0xff]), ProxyHeader::Malformed(V2));
        assert_eq!(read(b"GET / HTTP/1.1\r\n"), ProxyHeader::Absent);
        assert_eq!(read(b"\r\n\r\nGET"), ProxyHeader::Absent);
    }

    #[test]
    fn tlvs_behind_addresses_are_skipped_up_to_the_limit() {
        let mut header = write(V2, Some((at("1.2.3.4:5"), at("6.7.8.9:10"))));
        let most = V2_BYTES_MAX - V2_FIXED;
        header[14..16].copy_from_slice(&(most as u16).to_be_bytes());
        header.resize(V2_BYTES_MAX, 0xee);
        let addresses = Some((at("1.2.3.4:5"), at("6.7.8.9:10")));
        assert_eq!(read(&header), ProxyHeader::Found { version: V2, length: V2_BYTES_MAX, addresses });
        header[14..16].copy_from_slice(&(most as u16 + 1).to_be_bytes());
        header.push(0);
        assert_eq!(read(&header), ProxyHeader::Malformed(V2));
    }

    #[test]
    fn families_are_made_one() {
        let text = write(V1, Some((at("1.2.3.4:5"), at("[::1]:6"))));
        assert_eq!(text, b"PROXY TCP6 ::ffff:1.2.3.4 ::1 5 6\r\n");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(from: SocketAddr, to: SocketAddr, is_v2: bool, rest in proptest::collection::vec(any::<u8>(), 0..20)) {
            let version = if is_v2 { V2 } else { V1 };
            prop_assume!(from.is_ipv4() == to.is_ipv4());
            // Scopes and flow labels of IPv6 do not travel.
            let (from, to) = (SocketAddr::new(from.ip(), from.port()), SocketAddr::new(to.ip(), to.port()));
            for addresses in [Some((from, to)), None] {
                let mut bytes = write(version, addresses);
                let length = bytes.len();
                bytes.extend(&rest);
                prop_assert_eq!(read(&bytes), ProxyHeader::Found { version, length, addresses });
                for n in 0..length {
                    prop_assert_eq!(read(&bytes[..n]), ProxyHeader::Partial);
                }
            }
        }

        #[test]
        fn any_bytes_are_survived(tail in proptest::collection::vec(any::<u8>(), 0..120), begin in 0..3_usize) {
            let mut bytes = [&b""[..], V1_BEGIN, V2_BEGIN][begin].to_vec();
            bytes.extend(tail);
            let _ = read(&bytes);
        }
    }
}
