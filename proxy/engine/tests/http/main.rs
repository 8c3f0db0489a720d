//! HTTP through a whole proxy over real sockets: codecs, routes, retries, limits, upgrades, drain, hot swap.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is unexpected in a test ends it"
)]

mod affinity;
mod bed;
mod client_gone;
mod connect_ends;
mod drain;
mod express;
mod ext_authz;
mod extended_connect;
mod filter;
mod h1;
mod h2;
mod h2_link;
mod health;
mod invalid;
mod jwt;
mod jwt_remote;
mod limits;
mod mesh;
mod mirror;
mod outlier;
mod overload;
mod pace;
mod pool;
mod rate_limit;
mod retry;
mod route;
mod service;
mod session;
mod shaping;
mod streaming;
mod subset;
mod swap;
mod upgrade;
mod waits;
