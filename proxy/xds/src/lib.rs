//! The proxy's configuration feed: Envoy's bootstrap files and xDS v3 in, [`outrigger_traffic::config`] out.
//!
//! The only library of the proxy that knows protobuf. Reading order: [`bootstrap`] (the file a proxy starts with) ·
//! [`source`] (where a resource comes from) · [`ads`] (the streams to control services) · [`files`] (configuration from files) · [`translate`] (one resource into the config model) ·
//! [`feed`] (what is accepted, what waits, what is in force) · [`ingredients`] and [`runtime`] (what it is translated with) · [`last_good`] (what survives a restart).

#![warn(missing_docs)]

pub mod ads;
pub mod bootstrap;
pub mod feed;
pub mod files;
pub mod ingredients;
pub mod last_good;
pub mod runtime;
pub mod source;
pub mod translate;
