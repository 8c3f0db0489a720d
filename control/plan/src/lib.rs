//! Outrigger's planner: what operators wrote and which workloads there are, in; each proxy's configuration, out.
//!
//! Pure: no clock, no I/O, no randomness. The same world and node always give the same configuration and version.
//! In reading order:
//!
//! 1. [`resource`]: Istio's API, read strictly; every field has its full effect or is refused by name;
//! 2. [`world`]: resources, registered workloads and settings together; [`node`]: the proxy that is planned for;
//! 3. [`inventory`]: services, and the workloads that are their instances; [`name`]: how hosts and clusters are called;
//!    [`vip`]: the addresses that their names mean;
//! 4. [`scope`]: what a node may see;
//! 5. [`assemble`]: listeners, routes, clusters, endpoints and authorization of one node;
//! 6. [`check`]: the proxy's own compiler tries the result before anyone is sent it;
//! 7. [`diff`]: what changed, for people; [`explain`]: which rule a request meets.

#![warn(missing_docs)]

pub mod protocol;
pub mod retry;

pub mod resource;

pub mod node;
pub mod world;

pub mod inventory;
pub mod name;
pub mod vip;

pub mod scope;

pub mod assemble;

pub mod check;
pub mod diff;
pub mod explain;

pub use assemble::{Planner, plan};
pub use node::{ApiListener, Capture, Flavour, NodeConfig, NodeKind, Notice, ProxyNode};
pub use resource::{Kind, Object, parse_documents};
pub use vip::VirtualIps;
pub use world::{Health, MeshTracing, Settings, Workload, WorkloadPort, World};
