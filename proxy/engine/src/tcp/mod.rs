//! TCP proxying: bytes passed on as they come.
//!
//! * [`forward()`]: the TCP proxy filter: target, host, connection, copy, books.
//! * [`copy_both`]: bytes in both directions between any two connections; upgrades use it as well.

mod copy;
mod forward;
mod tunnel;

pub use copy::{CopyEnd, Progress, Side, copy_both};
pub use forward::forward;
