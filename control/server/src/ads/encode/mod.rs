//! The config model into xDS messages: the other direction of `outrigger-xds`' translation.
//!
//! Values are written out where a receiver's default could differ from ours, so that Envoy, gRPC and our own proxy read
//! the same thing. What the model holds and the wire cannot say is carried in metadata
//! ([`outrigger_api::metadata`]). Tests translate the messages back and compare.

mod access_log;
mod cluster;
mod endpoint;
mod filter;
mod health_check;
mod http;
mod jwt;
mod listener;
mod listener_filter;
mod metadata;
mod mirror;
mod rbac;
mod route;
mod secret;
mod subset;
mod tls;
mod tracing;
mod value;

pub use cluster::cluster;
pub use endpoint::endpoints;
pub use listener::{api_listener, listener};
pub use route::route_config;
pub use secret::secret;
