//! What keeps clusters current: name resolution, outlier sweeps. Runs on the control runtime.

mod dns;
mod jobs;
mod outlier_job;
mod resolve;

pub use jobs::ClusterJobs;
pub use outlier_job::Sweeper;
pub use resolve::{Answer, Resolve, Resolving, SystemResolver};
