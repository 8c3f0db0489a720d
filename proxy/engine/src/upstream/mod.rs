//! Towards the hosts of a cluster.
//!
//! * [`connect()`]: one connection to one host, plain or TLS.
//! * [`pool`]: connections kept for the next request.
//! * [`removed`]: the end of connections whose host left.

mod connect;
pub mod pool;
mod removal;

pub(crate) use connect::connect_tcp;
pub use connect::{ConnectError, ConnectOptions, ConnectPhase, connect};
pub use removal::removed;
