//! Membership in a mesh: who this proxy is, and how the mesh learns of it.
//!
//! ```text
//! token or proof ──► enrol (CSR) ──► SVID on disk ──► renew at half life ──► secrets `default` and `ROOTCA`
//!                                       │
//!                                       └──► register under a lease ──► heartbeat ──► deregister on SIGTERM
//! ```
//! The private key is made here and never leaves the host.

pub mod client;
pub mod enrol;
pub mod own;
pub mod probe;
pub mod proof;
pub mod register;
pub mod settings;
pub mod svid;

/// Name of the secret with this workload's own certificate.
pub const SECRET_OWN: &str = "default";
/// Name of the secret with the mesh's trust roots.
pub const SECRET_ROOTS: &str = "ROOTCA";
