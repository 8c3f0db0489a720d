//! Byte streams, buffers and timers of a worker.
//!
//! * [`Io`]: one connection, plain or TLS, usable by a reading and a writing half at once.
//! * [`BufferPool`], [`Buf`]: where bytes wait.
//! * [`Wheel`], [`Deadline`]: how long one waits.

mod buffer;
mod facts;
mod stream;
mod tls;
mod turn;
mod wheel;

pub use buffer::{BIG_BUFFER_BYTES, BUFFER_BYTES, Buf, BufferPool};
pub use facts::{PeerCert, TlsFacts};
pub use stream::Io;
pub(crate) use turn::turn;
pub use wheel::{Deadline, TICK, Wheel};
