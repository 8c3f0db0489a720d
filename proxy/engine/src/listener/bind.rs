//! Making the listening sockets: one per worker and address, sharing the port.

use outrigger_traffic::config;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// The sockets of one address, one per worker.
#[derive(Debug)]
pub(super) struct Bound {
    /// The address with its real port.
    pub(super) local: SocketAddr,
    pub(super) sockets: Vec<TcpListener>,
}

/// What a listener wants of its sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) backlog: u32,
    pub(super) freebind: bool,
    pub(super) transparent: bool,
}

impl Wants {
    pub(super) fn of(listener: &config::Listener) -> Self {
        Self {
            backlog: listener.tcp_backlog_size,
            freebind: listener.freebind,
            transparent: listener.transparent,
        }
    }
}

/// Binds `workers` sockets to an address and listens. Port 0 takes a free one, the same for all.
///
/// Sharing a port is meant for our own workers only; a second proxy started by mistake on the same port would silently
/// get half of the connections. So the address is first bound without sharing, unless `shared` says that sockets of
/// ours are on it already.
///
/// *Errors*: those of the system, such as the address being in use.
pub(super) fn bind(address: SocketAddr, wants: Wants, workers: usize, shared: bool) -> io::Result<Bound> {
    let backlog = wants.backlog;
    if !shared && address.port() != 0 {
        let probe = socket(address, wants)?;
        probe.bind(&address.into())?;
        // Only listening finds another socket that shares its port.
        probe.listen(1)?;
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = socket(address, wants)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        let socket = TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Bound { local: address, sockets })
}

fn socket(address: SocketAddr, wants: Wants) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted proxy gets its port although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // `[::]` serves IPv4 as well, unless an IPv4 listener asks for the same port: Envoy's `ipv4_compat` is off.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Before binding: both lift what may be bound to.
    match (wants.freebind, address.is_ipv4()) {
        (false, _) => {}
        (true, true) => socket.set_freebind_v4(true)?,
        (true, false) => socket.set_freebind_v6(true)?,
    }
    match (wants.transparent, address.is_ipv4()) {
        (false, _) => {}
        (true, true) => socket.set_ip_transparent_v4(true)?,
        (true, false) => socket.set_ip_transparent_v6(true)?,
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Wants = Wants { backlog: 16, freebind: false, transparent: false };

    #[test]
    fn port_zero_gives_all_workers_the_same_free_port() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), PLAIN, 3, false).unwrap();
        assert_ne!(bound.local.port(), 0);
        assert!(bound.sockets.iter().all(|s| s.local_addr().unwrap() == bound.local));
        assert_eq!(bound.sockets.len(), 3);
    }

    #[test]
    fn address_of_another_is_refused_and_of_our_own_is_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), PLAIN, 1, false).unwrap();
        let error = bind(first.local, PLAIN, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(bind(first.local, PLAIN, 1, true).is_ok());
    }

    #[test]
    fn address_that_is_none_of_ours_is_bound_with_freebind_only() {
        // TEST-NET-1 (RFC 5737).
        let foreign = "192.0.2.7:0".parse().unwrap();
        let error = bind(foreign, PLAIN, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        let bound = bind(foreign, Wants { freebind: true, ..PLAIN }, 1, false).unwrap();
        assert_eq!(bound.local.ip(), foreign.ip());
    }

    #[test]
    fn ipv6_is_bound() {
        match bind("[::1]:0".parse().unwrap(), PLAIN, 1, false) {
            Ok(bound) => assert!(bound.local.is_ipv6()),
            // A machine without IPv6 says so.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}"),
        }
    }
}
