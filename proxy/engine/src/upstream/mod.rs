//! Towards the hosts of a cluster.
//!
//! * [`connect()`]: one connection to one host, plain or TLS.
//! * [`pool`]: connections kept for the next request.

mod connect;
pub mod pool;

pub use connect::{ConnectError, ConnectOptions, ConnectPhase, connect};
