//! Outrigger's decisions inside a [Pingora](https://docs.rs/pingora-proxy) gateway.
//!
//! Pingora moves the bytes; which route a request takes, which host gets it, whether it is tried again and which hosts are
//! left alone is decided by the same code, from the same configuration, as in Outrigger's own proxy:
//!
//! * [`Decisions`] holds the configuration in use. It is replaced while requests are served, and takes what an xDS control
//!   service sends (feature `xds`).
//! * [`Gateway`] is a [`pingora_proxy::ProxyHttp`] that asks it. Serve it with
//!   [`pingora_proxy::http_proxy_service`], or call it from your own `ProxyHttp`.
//!
//! What Pingora does itself (accepting, TLS, pools, HTTP) is set in Pingora. A configuration that asks this adapter for
//! something it does not do is refused, with the path of the field ([`Decisions::apply`]).
//!
//! Reading order: [`decisions`] · `check` (what is refused) · [`gateway`] (a request) · `message` (Pingora's heads as the
//! decisions see them).

#![warn(missing_docs)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod check;
pub mod decisions;
pub mod gateway;
mod message;

pub use decisions::Decisions;
pub use gateway::{Gateway, Journey};
