//! What tests of other crates talk to: origins, clients and certificates. A dev-dependency only.
//!
//! Nothing here uses the proxy's own codec: an origin that shared a mistake with the proxy could
//! not find it. Everything listens on a port the system chose, on loopback, and ends with the value
//! that started it.
//!
//! - [`origin`]: an HTTP/1.1, h2c or TLS server that does what the path says;
//! - [`client`]: HTTP/1.1 by hand, HTTP/2 by the `h2` crate, WebSocket;
//! - [`certs`]: an authority, SPIFFE and DNS leaves, rustls configurations;
//! - [`message`]: the strict, slow HTTP/1.1 reader both of the first two use.
//!
//! A test that asserts something about a proxy panics when its own scaffolding fails, so these
//! functions panic rather than return errors.

#![warn(missing_docs)]

pub mod certs;
pub mod client;
pub mod message;
pub mod origin;
pub mod websocket;

pub use certs::{Authority, Leaf};
pub use client::{H1Client, H2Client, Response};
pub use origin::{Origin, Protocol};

use std::time::Duration;

/// Longest a helper waits for the other side before it panics.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for `future`, at most [`PATIENCE`]; `what` says in the panic what was waited for.
///
/// # Panics
/// When it takes longer.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(output) => output,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}
