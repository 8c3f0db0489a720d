//! `outrigger-agent`: one on each host, and the only program of the product with privileges.
//!
//! ```text
//!  docker ──events──► agent ──► worker of each container: look ─► plan ─► act
//!                                                          │        │      ├─ sidecar made, started, ended
//!             member (labels → who, which ports)  ◄────────┘        │      ├─ rules in its network namespace
//!             sidecar (what its container is to be)  ◄──────────────┘      └─ out of the registry
//! ```
//! The sidecar holds the lease under which peers are sent to its task, so the agent may die without anybody noticing. What the
//! sidecar announces, and with which identity, the agent decides.
//!
//! Reading order: [`config`] · [`member`] (labels → what a container is) · [`sidecar`] (what its proxy is) · [`capture`] (what is
//! redirected) · [`plan`] (what is to be done) · [`worker`], [`mailbox`] and [`agent`] (doing it) · [`docker`], [`identity`] (with whom) ·
//! [`admin`], [`metrics`], [`address`], [`check`].

pub mod address;
pub mod admin;
pub mod agent;
pub mod capture;
pub mod check;
pub mod config;
pub mod docker;
pub mod identity;
pub mod mailbox;
pub mod member;
pub mod metrics;
pub mod plan;
pub mod sidecar;
pub mod worker;
