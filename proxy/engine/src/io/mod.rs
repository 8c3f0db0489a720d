//! Byte streams, buffers and timers of a worker.

mod facts;

pub use facts::{PeerCert, TlsFacts};
