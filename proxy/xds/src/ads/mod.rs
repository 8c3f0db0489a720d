//! The aggregated discovery service (ADS), as a client.
//!
//! [`session`] is the protocol without I/O: what is subscribed, held, acknowledged and refused. [`stream`] carries it
//! over one gRPC stream, delta or state of the world, and comes back with jittered back-off when the stream ends.

pub mod backoff;
pub mod kind;
pub mod session;
pub mod stream;

pub use kind::Kind;
