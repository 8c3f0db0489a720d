//! HTTP/1.1 on a socket: [`reader`] and [`writer`] drive the codec of `outrigger_wire::h1` for both sides, [`server`]
//! serves a downstream connection.

mod reader;
mod writer;

pub mod server;

pub use reader::H1Reader;
pub use writer::H1Writer;
