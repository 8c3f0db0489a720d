//! Where a redirected connection was going: asked of the system's table of connections.
//!
//! A rule such as `REDIRECT` or `DNAT` gives a connection another destination; Linux remembers the first one
//! (`SO_ORIGINAL_DST`, `IP6T_SO_ORIGINAL_DST`).

use socket2::SockRef;
use std::net::SocketAddr;
use tokio::net::TcpStream;

/// The address that the client asked for; `None` where nothing redirected the connection.
///
/// *Cost*: one system call.
pub(super) fn original_dst(tcp: &TcpStream) -> Option<SocketAddr> {
    let local = tcp.local_addr().ok()?;
    let socket = SockRef::from(tcp);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // A machine without connection tracking knows nothing of redirections, as one without rules.
    found.ok()?.as_socket().filter(|original| *original != local)
}
