//! The decisions of the Outrigger proxy, and nothing but decisions.
//!
//! A request meets this crate in this order:
//!
//! 1. a [`config::Config`] (what was asked for) was compiled by [`compile`] into a [`snapshot::Snapshot`];
//! 2. [`route`] finds the rule for a request head and the cluster it goes to;
//! 3. [`authz`] says whether the peer may do this;
//! 4. [`balance`] picks a host of the cluster, among those that [`outlier`] has not ejected;
//! 5. [`breaker`] grants a permit, or says which limit is full;
//! 6. [`retry`] says whether a failed attempt may be made again, and when;
//! 7. [`outcome`] takes the result back, so that the next pick knows it.
//!
//! There is no I/O here: no sockets, no clock, no global random numbers. Time and randomness are arguments,
//! which makes every decision reproducible in a test.

#![warn(missing_docs)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod config;
