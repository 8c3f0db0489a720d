//! Connections to hosts, kept for the next request.

/// The pools of one worker.
#[derive(Debug, Default)]
pub struct Pools {}
