//! HTTP/2 on a socket, downstream and upstream, on the codec of [`outrigger_wire::h2`].
//!
//! One task drives a connection (`link`): it reads much at once, hands what arrives to the streams' `mailbox`es and
//! writes, once per turn of the scheduler, what all streams have appended meanwhile. The tasks of the streams (`stream`)
//! never touch the socket. [`server`] serves a downstream connection; `keepalive` finds dead peers, `rest`
//! gives memory back.

pub(crate) mod keepalive;
pub(crate) mod link;
mod mailbox;
pub(crate) mod memory;
pub(crate) mod rest;
mod stream;

pub mod server;

pub(crate) use stream::open;
pub use stream::{H2Reader, H2Writer};
