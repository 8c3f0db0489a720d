//! Refusing work when memory runs out, rather than being killed by the system.
//!
//! ```text
//!  control thread: memory (cgroup, own) ─▶ pressure ─▶ triggers ─▶ one byte ─▶ workers read it per request and accept
//!                  every refresh_interval               written only on a change
//! ```
//!
//! * [`memory`]: how much is used, and of what.
//! * [`Overload`]: what is in effect; what workers ask.
//! * [`watch`]: the job that keeps it current.
//!
//! Names of monitors, actions and metrics are Envoy's ("Overload manager"). What is given out stays given out: requests
//! under way go on, and what they free brings the pressure down.

pub mod memory;

use crate::telemetry::Sharded;
use crate::telemetry::stats::{Gauge, stat_set};
use memory::{ReadMemory, Usage};
use outrigger_traffic::config::{MemoryMonitor, OverloadManager, Trigger};
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::watch;

stat_set! {
    /// Of the overload manager; Envoy's `overload.`.
    pub struct OverloadStats {
        gauge heap_pressure = "envoy.resource_monitors.fixed_heap.pressure", "Percent of the configured memory that this process holds";
        counter heap_failed = "envoy.resource_monitors.fixed_heap.failed_updates", "Times that the memory of this process could not be read";
        gauge cgroup_pressure = "envoy.resource_monitors.cgroup_memory.pressure", "Percent of the control group's memory limit that is used";
        counter cgroup_failed = "envoy.resource_monitors.cgroup_memory.failed_updates", "Times that the memory of the control group could not be read";
        gauge requests = "envoy.overload_actions.stop_accepting_requests.active", "1 while new requests are refused";
        gauge connections = "envoy.overload_actions.stop_accepting_connections.active", "1 while new connections are left waiting";
        gauge rejecting = "envoy.overload_actions.reject_incoming_connections.active", "1 while new connections are closed at once";
        gauge no_keepalive = "envoy.overload_actions.disable_http_keepalive.active", "1 while connections end with the request they are in";
    }
}

/// An action, as a bit of what is in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// New requests are answered 503.
    StopRequests = 1,
    /// New connections are left waiting.
    StopConnections = 2,
    /// New connections are closed at once.
    RejectConnections = 4,
    /// Connections end with the request they are in.
    DisableKeepalive = 8,
}

/// What workers read per request: on a cache line that nobody writes as long as nothing changes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Active(AtomicU8);

/// What is in effect because of memory.
#[derive(Debug)]
pub struct Overload {
    active: Active,
    /// The same, for those who wait for a change.
    changed: watch::Sender<u8>,
    /// Pressures and actions, for metrics.
    pub stats: Sharded<OverloadStats>,
}

impl Default for Overload {
    fn default() -> Self {
        Self { active: Active::default(), changed: watch::Sender::new(0), stats: Sharded::new(0) }
    }
}

impl Overload {
    /// Whether an action is in effect. Costs a load.
    #[inline]
    pub fn is_active(&self, action: Action) -> bool {
        self.active.0.load(Ordering::Relaxed) & action as u8 != 0
    }

    /// Waits until an action is no longer in effect.
    ///
    /// *Cancel safety*: safe.
    pub async fn over(&self, action: Action) {
        let mut changes = self.changed.subscribe();
        // The sender lives in `self`, so the wait cannot fail.
        let _ = changes.wait_for(|active| active & action as u8 == 0).await;
    }

    /// Waits until an action is in effect.
    ///
    /// *Cancel safety*: safe.
    pub async fn begun(&self, action: Action) {
        let mut changes = self.changed.subscribe();
        let _ = changes.wait_for(|active| active & action as u8 != 0).await;
    }

    fn set(&self, active: u8) {
        let before = self.active.0.load(Ordering::Relaxed);
        if before == active {
            return;
        }
        self.active.0.store(active, Ordering::Relaxed);
        self.changed.send_replace(active);
        let stats = self.stats.control();
        for (action, gauge, name) in actions(stats) {
            let bit = action as u8;
            gauge.set(u64::from(active & bit != 0));
            match (before & bit != 0, active & bit != 0) {
                (false, true) => tracing::warn!(action = name, "memory runs out"),
                (true, false) => tracing::info!(action = name, "memory is there again"),
                _ => {}
            }
        }
    }

    /// Looks at memory once and draws the consequences.
    pub fn refresh(&self, rules: &OverloadManager, memory: &dyn ReadMemory) {
        let stats = self.stats.control();
        let mut pressures = Pressures::default();
        if let Some(limit) = rules.fixed_heap_bytes {
            match memory.process_bytes() {
                Ok(used) => pressures.heap = Some(Usage { used, limit }),
                Err(error) => failed("fixed_heap", &error, &stats.heap_failed),
            }
        }
        if let Some(group) = rules.cgroup_memory {
            match memory.cgroup(group.max_bytes) {
                Ok(found) => pressures.cgroup = found,
                Err(error) => failed("cgroup_memory", &error, &stats.cgroup_failed),
            }
        }
        for (gauge, usage) in
            [(&stats.heap_pressure, pressures.heap), (&stats.cgroup_pressure, pressures.cgroup)]
        {
            gauge.set(usage.map_or(0, |usage| u64::from(usage.millionths() / 10_000)));
        }
        let all = [
            (Action::StopRequests, &rules.stop_accepting_requests),
            (Action::StopConnections, &rules.stop_accepting_connections),
            (Action::RejectConnections, &rules.reject_incoming_connections),
            (Action::DisableKeepalive, &rules.disable_http_keepalive),
        ];
        let fired = all.into_iter().filter(|(_, triggers)| triggers.iter().any(|t| pressures.fire(t)));
        self.set(fired.fold(0, |active, (action, _)| active | action as u8));
    }
}

fn failed(monitor: &str, error: &io::Error, counter: &crate::telemetry::stats::Counter) {
    if counter.value() == 0 {
        tracing::warn!(monitor, error = %error, "memory cannot be read");
    }
    counter.inc();
}

fn actions(stats: &OverloadStats) -> [(Action, &Gauge, &'static str); 4] {
    [
        (Action::StopRequests, &stats.requests, "stop_accepting_requests"),
        (Action::StopConnections, &stats.connections, "stop_accepting_connections"),
        (Action::RejectConnections, &stats.rejecting, "reject_incoming_connections"),
        (Action::DisableKeepalive, &stats.no_keepalive, "disable_http_keepalive"),
    ]
}

#[derive(Default)]
struct Pressures {
    heap: Option<Usage>,
    cgroup: Option<Usage>,
}

impl Pressures {
    /// Envoy: a threshold is reached by the pressure that equals it.
    fn fire(&self, trigger: &Trigger) -> bool {
        let usage = match trigger.monitor {
            MemoryMonitor::FixedHeap => self.heap,
            MemoryMonitor::CgroupMemory => self.cgroup,
        };
        usage.is_some_and(|usage| usage.millionths() >= trigger.threshold.millionths())
    }
}

/// Shortest time between two looks, so that a configuration cannot keep the control thread busy.
const REFRESH_MIN: Duration = Duration::from_millis(1);

/// Keeps it current until the proxy is gone. Runs on the control thread.
pub(crate) async fn watch(
    shared: Weak<crate::worker::Shared>,
    rules: OverloadManager,
    memory: Arc<dyn ReadMemory>,
) {
    if rules.fixed_heap_bytes.is_none() && rules.cgroup_memory.is_none() {
        return;
    }
    let mut tick = tokio::time::interval(rules.refresh_interval.max(REFRESH_MIN));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        shared.overload.refresh(&rules, &*memory);
    }
}

#[cfg(test)]
mod tests;
