//! Whether a failed attempt may be made again, and when.
//!
//! [`policy`] decides, [`backoff`] says how long to wait, [`budget`] bounds how many may be under way.

pub mod backoff;
pub mod budget;
pub mod policy;

pub use policy::{AttemptResult, Decision, Ended, Reached, RefusedBecause, ResetKind, RetryPolicy};
