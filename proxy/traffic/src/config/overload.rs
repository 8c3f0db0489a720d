//! What the proxy does when memory runs out (`envoy.config.overload.v3`).

use super::Fraction;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Monitors of memory, and from which pressure on work is refused.
///
/// [`OverloadManager::default`] is what holds without configuration: where the control group has a memory limit, new
/// requests are refused at 95 % of it and new connections at 98 %.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverloadManager {
    /// Between looks at memory. Default 250 ms; 1 s (Envoy's) where an overload manager is configured without it.
    pub refresh_interval: Duration,
    /// `envoy.resource_monitors.fixed_heap`: bytes of memory of this process' own (not of files) that are full pressure.
    pub fixed_heap_bytes: Option<u64>,
    /// `envoy.resource_monitors.cgroup_memory`: the limit of the control group.
    pub cgroup_memory: Option<CgroupMemory>,
    /// `envoy.overload_actions.stop_accepting_requests`: new requests are answered 503.
    pub stop_accepting_requests: Vec<Trigger>,
    /// `envoy.overload_actions.stop_accepting_connections`: new connections wait in the system's queue.
    pub stop_accepting_connections: Vec<Trigger>,
    /// `envoy.overload_actions.reject_incoming_connections`: new connections are closed at once.
    pub reject_incoming_connections: Vec<Trigger>,
    /// `envoy.overload_actions.disable_http_keepalive`: connections end with the request they are in.
    pub disable_http_keepalive: Vec<Trigger>,
}

/// The control group's limit, and one of our own below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupMemory {
    /// Full pressure is at this many bytes where the group's limit is higher or absent.
    pub max_bytes: Option<u64>,
}

/// What a trigger looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryMonitor {
    /// `envoy.resource_monitors.fixed_heap`.
    FixedHeap,
    /// `envoy.resource_monitors.cgroup_memory`.
    CgroupMemory,
}

/// An action is in effect while any of its triggers is: while the pressure is at least the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// Whose pressure.
    pub monitor: MemoryMonitor,
    /// Share of the limit.
    pub threshold: Fraction,
}

impl OverloadManager {
    /// Without any monitor or action.
    pub const fn none(refresh_interval: Duration) -> Self {
        Self {
            refresh_interval,
            fixed_heap_bytes: None,
            cgroup_memory: None,
            stop_accepting_requests: Vec::new(),
            stop_accepting_connections: Vec::new(),
            reject_incoming_connections: Vec::new(),
            disable_http_keepalive: Vec::new(),
        }
    }
}

impl Default for OverloadManager {
    fn default() -> Self {
        let at = |percent| {
            vec![Trigger { monitor: MemoryMonitor::CgroupMemory, threshold: Fraction::from_percent(percent) }]
        };
        Self {
            cgroup_memory: Some(CgroupMemory::default()),
            stop_accepting_requests: at(95),
            stop_accepting_connections: at(98),
            ..Self::none(Duration::from_millis(250))
        }
    }
}
