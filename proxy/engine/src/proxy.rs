//! The running proxy and the handle that steers it.
