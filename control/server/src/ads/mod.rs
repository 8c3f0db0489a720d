//! The aggregated discovery service: how planned configurations reach proxies.
//!
//! In reading order: [`encode`] (the config model into xDS messages) · [`catalog`] (all of a node's resources, by type and
//! name, with versions) · [`session`] (the protocol, delta and state of the world, without I/O) · [`node`] (who asks) ·
//! [`stream`] (one gRPC stream: requests in, changes of plan and certificates in, responses out).

pub mod encode;

pub mod catalog;

pub mod session;

pub mod node;

pub mod stream;

pub use stream::Ads;
