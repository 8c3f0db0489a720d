//! From a configuration to the running state.
//!
//! * [`Applier`]: compile, build TLS, bind, swap; all of it or nothing.
//! * [`check`]: the same without running anything.
//! * [`isolate`]: leaving out what is refused, so that the rest can take effect.

mod apply;
mod build;
mod check;
mod isolate;

pub use apply::Applier;
pub use check::check;
pub use isolate::{Isolated, isolate};
