//! The embeddable Outrigger proxy: sockets and HTTP around the decisions of `outrigger-traffic` and the codec of
//! `outrigger-wire`.
//!
//! Thread per core: each data worker is one thread with its own single-threaded runtime, its own listening sockets
//! (`SO_REUSEPORT`), buffers, timers, pools and counters, so that nothing a request touches is shared. One control
//! thread compiles configurations, resolves names, sweeps outliers and answers the administration interface.
//!
//! Modules in reading order:
//!
//! * [`proxy`]: starting a proxy, applying a configuration, draining. [`service`]: requests of the embedding program.
//! * [`live`], [`worker`]: the one pointer that holds everything that must agree, and what a worker owns.
//! * [`config`]: how a configuration becomes [`live::Live`].
//! * [`io`]: byte streams (plain or TLS), buffers, timers.
//! * [`identity`]: certificates and trust, as TLS configurations.
//! * [`listener`]: from an accepted socket to a filter chain.
//! * [`tcp`], [`http`], [`exchange`], [`filter`]: what a chain does with a connection.
//! * [`upstream`], [`cluster`]: towards the hosts.
//! * [`dns`]: answering the application's questions for addresses.
//! * [`telemetry`], [`admin`], [`drain`], [`error`], [`jobs`]: what operators see and how it ends.

#![warn(missing_docs)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod proxy;
pub mod service;

pub mod live;
pub mod overload;
pub mod worker;

pub mod config;

pub mod io;

pub mod identity;

pub mod listener;

pub mod exchange;
pub mod filter;
pub mod http;
pub mod tcp;

pub mod cluster;
pub mod dns;
pub mod upstream;

pub mod admin;
pub mod drain;
pub mod error;
pub mod jobs;
pub mod telemetry;
mod text;
