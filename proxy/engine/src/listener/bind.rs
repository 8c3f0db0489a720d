//! Making the listening sockets: one per worker and address, sharing the port.

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

/// Binds `workers` sockets to an address and listens. Port 0 takes a free one, the same for all.
///
/// Sharing a port is meant for our own workers only; a second proxy started by mistake on the same port would silently
/// get half of the connections. So the address is first bound without sharing, unless `shared` says that sockets of
/// ours are on it already.
///
/// *Errors*: those of the system, such as the address being in use.
pub(super) fn bind(address: SocketAddr, backlog: u32, workers: usize, shared: bool) -> io::Result<Bound> {
    if !shared && address.port() != 0 {
        let probe = socket(address)?;
        probe.bind(&address.into())?;
        // Only listening finds another socket that shares its port.
        probe.listen(1)?;
    }
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    let mut address = address;
    let mut sockets = Vec::with_capacity(workers);
    for _ in 0..workers.max(1) {
        let socket = socket(address)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        let socket = TcpListener::from(socket);
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok(Bound { local: address, sockets })
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restarted proxy gets its port although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // `[::]` serves IPv4 as well, unless an IPv4 listener asks for the same port: Envoy's `ipv4_compat` is off.
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_zero_gives_all_workers_the_same_free_port() {
        let bound = bind("127.0.0.1:0".parse().unwrap(), 16, 3, false).unwrap();
        assert_ne!(bound.local.port(), 0);
        assert!(bound.sockets.iter().all(|s| s.local_addr().unwrap() == bound.local));
        assert_eq!(bound.sockets.len(), 3);
    }

    #[test]
    fn address_of_another_is_refused_and_of_our_own_is_shared() {
        let first = bind("127.0.0.1:0".parse().unwrap(), 16, 1, false).unwrap();
        let error = bind(first.local, 16, 1, false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(bind(first.local, 16, 1, true).is_ok());
    }

    #[test]
    fn ipv6_is_bound() {
        match bind("[::1]:0".parse().unwrap(), 16, 1, false) {
            Ok(bound) => assert!(bound.local.is_ipv6()),
            // A machine without IPv6 says so.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable, "{error}"),
        }
    }
}
