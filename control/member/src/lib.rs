//! What a member of the mesh is, as host agents, proxies and the control service all read and write it.
//!
//! * [`label`] are names.
//! * [`port`] has ports as labels and rules declare them.
//! * [`folder`] writes files that only one user may read.
//! * [`svid`] is a workload's certificate on disk, and TLS with it.

pub mod folder;
pub mod label;
pub mod port;
pub mod svid;
