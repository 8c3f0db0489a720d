//! Bringing hosts into the mesh, and out of it.
//!
//! ```text
//! flags ──► [`host`], [`vm`] (what it is to be) ──► [`bundle`] (files, steps) ──► [`script`] (one shell script) ──► [`deliver`] (here, ssh, ssm)
//! ```
//! All that is done on a host is one script, the same for every way of delivery, which an operator can read first.
//! What is not on the host (its entry at the control service, its join tokens) is done by the verbs.

pub mod bundle;
pub mod deliver;
pub mod host;
pub mod script;
pub mod vm;

#[cfg(test)]
mod tests;
