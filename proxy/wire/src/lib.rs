//! HTTP on the wire, without I/O: heads as bytes and offsets, strict HTTP/1.1 framing, HTTP/2.
//!
//! Everything here is a pure function or a state machine over byte slices; the engine owns the
//! sockets and drives it. A malformed message is an error that names what was wrong, never a guess:
//! two readers that disagree about where a message ends is how requests are smuggled.
//!
//! Reading order:
//! 1. [`syntax`]: which bytes may stand where;
//! 2. [`field`]: header and trailer sections;
//! 3. [`head`]: request and response heads, shared by the HTTP/1.1 and HTTP/2 paths;
//! 4. [`h1`]: reading and writing HTTP/1.1 (RFC 9112);
//! 5. [`h2`]: HTTP/2 connections (RFC 9113).
//!
//! Beside these stands [`protobuf`], for the few messages that the data path writes itself.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::unreachable
    )
)]

pub mod syntax;

pub mod field;

pub mod head;

pub mod h1;

pub mod h2;

pub mod protobuf;

pub use field::{FieldBlock, Known, KnownSet, Trailers};
pub use head::{Method, RequestHead, ResponseHead, Scheme, Version};
