//! The decisions of the Outrigger proxy, and nothing but decisions.
//!
//! A request meets this crate in this order:
//!
//! 1. a [`config::Config`] (what was asked for) was compiled by [`compile()`] into a [`snapshot::Snapshot`];
//! 2. [`listener`] says which filter chain a connection takes;
//! 3. [`route`] finds the rule for a request head and the cluster it goes to;
//! 4. [`filter`] judges and changes the request; [`authz`] says whether the peer may do this;
//! 5. [`balance`] picks a host of the [`cluster`], among those that [`outlier`] has not ejected;
//! 6. [`breaker`] grants a permit, or says which limit is full;
//! 7. [`retry`] says whether a failed attempt may be made again, and when;
//! 8. [`outcome`] takes the result back, so that the next pick knows it.
//!
//! There is no I/O here: no sockets, no clock, no global random numbers. Time and randomness are arguments,
//! which makes every decision reproducible in a test.

#![warn(missing_docs)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod config;

pub mod compile;
pub mod snapshot;

pub mod listener;
pub mod route;

pub mod filter;

pub mod authz;

pub mod balance;
pub mod breaker;
pub mod cluster;
pub mod health;
pub mod outcome;
pub mod outlier;
pub mod retry;

pub mod hash;
pub mod metadata;
pub mod template;
pub mod text;
pub mod tracing;
pub mod view;

pub use compile::{compile, compile_with};
pub use snapshot::{ClusterId, Snapshot, TableId};
pub use view::{FieldView, RequestView};
