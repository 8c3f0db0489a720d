//! The address at which other hosts reach this one. On ECS Anywhere no metadata has it.

use std::net::{IpAddr, SocketAddr, UdpSocket};

/// Addresses of nobody, beyond any route but the default one. Source: RFC 5737, RFC 3849.
const OUTSIDE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// The address of the default route's interface. Connecting a UDP socket sends nothing.
pub fn of_default_route() -> Option<IpAddr> {
    OUTSIDE.iter().find_map(|outside| {
        let outside: SocketAddr = outside.parse().ok()?;
        let any = if outside.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect(outside).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
    })
}

/// Whether an address is one of this host's interfaces. One that is not may still be right, behind address translation.
pub fn is_ours(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_found_is_one_of_ours() {
        assert!(is_ours(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_ours(IpAddr::from([192, 0, 2, 77])));
        if let Some(found) = of_default_route() {
            assert!(is_ours(found) && !found.is_loopback());
        }
    }
}
