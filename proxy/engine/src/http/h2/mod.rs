//! HTTP/2 on a socket, on the `h2` crate, whose types stay inside this folder and `upstream/pool/h2.rs`.
//!
//! [`head`] converts and checks heads, [`stream`] moves bodies, [`server`] serves a downstream connection.

mod guard;
pub mod head;
mod stream;

pub mod server;

pub use stream::{H2Reader, H2Writer, body_error};
