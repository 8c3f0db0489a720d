//! What keeps clusters current: name resolution, outlier sweeps, health checks. Runs on the control runtime.

mod dns;
mod health;
mod jobs;
mod original;
mod outlier_job;
mod resolve;

pub use jobs::ClusterJobs;
pub use original::Tidier;
pub(crate) use original::{destination, note_destination, note_way, proxied};
pub use outlier_job::Sweeper;
pub use resolve::{Answer, Resolve, Resolving, SystemResolver};
