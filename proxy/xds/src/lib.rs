//! The proxy's configuration feed: Envoy's bootstrap files and xDS v3 in, [`outrigger_traffic::config`] out.
//!
//! The only library of the proxy that knows protobuf. Reading order: [`bootstrap`] (the file a proxy starts with) ·
//! [`transport`] and [`ads`] (the stream to the control service) · [`translate`] (one resource into the config model) ·
//! [`feed`] (what is accepted, what waits, what is in force) · [`last_good`] (what survives a restart).

#![warn(missing_docs)]

pub mod ads;
pub mod bootstrap;
pub mod feed;
pub mod last_good;
pub mod translate;
pub mod transport;
