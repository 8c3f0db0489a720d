//! From a configuration to the running state.
//!
//! * [`Applier`]: compile, build TLS, bind, swap; all of it or nothing.
//! * [`isolate`]: leaving out what is refused, so that the rest can take effect.

mod apply;
mod build;
mod isolate;

pub use apply::Applier;
pub use isolate::{Isolated, isolate};
