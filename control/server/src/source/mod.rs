//! Facts about the world: which workloads run, and where.
//!
//! In reading order: [`workload`] (what one of them says about itself, checked), [`lease`] (the pure table
//! of leases), [`register`] (the source itself: leases kept over restarts, and expiring).

pub mod workload;

pub mod lease;

pub mod register;

pub use register::{Registry, RegistryError};
pub use workload::{Health, Port, Protocol, Reach, Workload};
