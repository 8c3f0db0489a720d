//! What is known of a connection before its first request.

use crate::io::TlsFacts;
use outrigger_traffic::filter::rate_limit::OwnBuckets;
use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::sync::Arc;

/// What is known of an accepted connection; shared (by `Rc`) between everything that serves it.
#[derive(Debug)]
pub struct ConnFacts {
    /// Unique in this proxy since its start.
    pub id: u64,
    /// The other end of the socket (`%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%`).
    pub peer: SocketAddr,
    /// Where it comes from (`%DOWNSTREAM_REMOTE_ADDRESS%` of a connection): `peer`, unless a PROXY header says otherwise.
    pub remote: SocketAddr,
    /// The address the client meant; without redirection the socket's own.
    pub local: SocketAddr,
    /// The same where a redirection was undone, a PROXY header said it, or the client named it to a forward proxy.
    pub original: Option<SocketAddr>,
    /// Name of the listener.
    pub listener: Arc<str>,
    /// Name of the filter chain; may be empty.
    pub chain: Arc<str>,
    /// SNI of the ClientHello, lower case; also known on chains that pass TLS through.
    pub server_name: Option<Arc<str>>,
    /// `tls` or `raw_buffer`: what was found on the wire.
    pub transport_protocol: &'static str,
    /// ALPN names the client offered.
    pub offered_alpn: Vec<Vec<u8>>,
    /// TLS terminated here.
    pub tls: Option<Arc<TlsFacts>>,
    /// The verified peer's first URI SAN; empty without one.
    pub principal: Arc<str>,
    /// Rate limits of this connection alone.
    pub(crate) buckets: OnceCell<Box<RefCell<OwnBuckets>>>,
}
