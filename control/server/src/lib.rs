//! `outrigger-control`: registry, policy, certificate authority, xDS server and operator API.
//!
//! This crate does the I/O of the control side; what a proxy is to be sent is decided by
//! `outrigger-plan`. In reading order:

pub mod clock;

pub mod random;

pub mod telemetry;

pub mod observing;

pub mod store;

pub mod identity;

pub mod outward;

pub mod aws;

pub mod source;

pub mod quota;

pub mod serve;

pub mod grpc;

pub mod publish;

pub mod ads;

pub mod api;

pub mod service;

pub mod health;
