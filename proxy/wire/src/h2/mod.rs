//! HTTP/2 (RFC 9113) and HPACK (RFC 7541), without I/O.
//!
//! [`Connection`] is one connection, of either role. Bytes that arrived go in through
//! [`receive`](Connection::receive), which gives back one [`Event`] at a time; heads are decoded straight into our own
//! form. What is to be sent is appended to one buffer that the owner writes once per turn. Time is an argument.
//!
//! Reading order:
//! 1. [`error`]: what can go wrong, and the code the peer is told;
//! 2. [`hpack`]: header compression;
//! 3. [`head`]: from fields to heads, with every check on the way;
//! 4. [`frame`] and [`settings`]: the ten frame types;
//! 5. [`flow`] and [`stream`]: windows and states;
//! 6. [`limit`]: what a peer may make us do;
//! 7. [`connection`]: all of it together.

pub mod connection;
pub mod error;
pub mod flow;
pub mod frame;
pub mod head;
pub mod hpack;
pub mod limit;
pub mod settings;
pub mod stream;

pub use connection::{Connection, Event, Options, Role};
pub use error::{Code, H2Error};
pub use head::HeadRefusal;
pub use settings::Settings;
pub use stream::{StreamEnd, StreamKey};

/// What a client sends first (RFC 9113 §3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
