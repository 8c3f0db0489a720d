//! What a member of the mesh is, as host agents, proxies and the control service all read and write it.
//!
//! * [`label`]: names.
//! * [`port`]: ports as labels and rules declare them.
//! * [`folder`]: files that only one user may read.
//! * [`svid`]: a workload's certificate on disk, and TLS with it.

pub mod folder;
pub mod label;
pub mod port;
pub mod svid;
