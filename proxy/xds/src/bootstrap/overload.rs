//! `overload_manager`: which memory is watched, and what is refused when it runs out.

use crate::translate::{At, positive};
use outrigger_api::envoy::config::overload::v3 as proto;
use outrigger_api::envoy::config::overload::v3::trigger::TriggerOneof;
use outrigger_api::envoy::extensions::resource_monitors::cgroup_memory::v3::CgroupMemoryConfig;
use outrigger_api::envoy::extensions::resource_monitors::fixed_heap::v3::FixedHeapConfig;
use outrigger_traffic::config::{CgroupMemory, Fraction, MemoryMonitor, OverloadManager, Trigger};
use std::collections::BTreeSet;
use std::time::Duration;

/// Envoy's default of `refresh_interval`.
const REFRESH: Duration = Duration::from_secs(1);

/// What stands where one is configured: nothing of our own default goes with it.
pub(super) fn overload(message: &proto::OverloadManager, at: &At<'_>) -> OverloadManager {
    let at_refresh = at.field("refresh_interval");
    let refresh = message.refresh_interval.as_ref().and_then(|given| positive(given, &at_refresh));
    let mut manager = OverloadManager::none(refresh.unwrap_or(REFRESH));
    let mut names = BTreeSet::new();
    if message.resource_monitors.is_empty() {
        at.field("resource_monitors").refuse("at least one is required");
    }
    for (i, monitor) in message.resource_monitors.iter().enumerate() {
        let at = at.item("resource_monitors", i);
        if !names.insert(monitor.name.as_str()) {
            at.field("name").refuse(format!("`{}` is given twice", monitor.name));
        }
        resource_monitor(monitor, &mut manager, &at);
    }
    let mut names = BTreeSet::new();
    for (i, action) in message.actions.iter().enumerate() {
        let at = at.item("actions", i);
        if !names.insert(action.name.as_str()) {
            at.field("name").refuse(format!("`{}` is given twice", action.name));
        }
        let triggers = triggers(action, &manager, &at);
        match action.name.as_str() {
            "envoy.overload_actions.stop_accepting_requests" => manager.stop_accepting_requests = triggers,
            "envoy.overload_actions.stop_accepting_connections" => {
                manager.stop_accepting_connections = triggers;
            }
            "envoy.overload_actions.reject_incoming_connections" => {
                manager.reject_incoming_connections = triggers;
            }
            "envoy.overload_actions.disable_http_keepalive" => manager.disable_http_keepalive = triggers,
            "envoy.overload_actions.shrink_heap" => {
                at.field("name").notice("has no effect: memory that is not needed is given back anyway");
            }
            other => at.field("name").refuse(format!("the action `{other}` is not supported")),
        }
    }
    manager
}

/// A monitor goes by its name, as in Envoy; its configuration must be of that kind.
fn resource_monitor(message: &proto::ResourceMonitor, manager: &mut OverloadManager, at: &At<'_>) {
    let Some(kind) = monitor_kind(&message.name) else {
        at.field("name").refuse(format!("the monitor `{}` is not supported", message.name));
        return;
    };
    let config =
        message.config_type.as_ref().map(|proto::resource_monitor::ConfigType::TypedConfig(any)| any);
    let at = at.field("typed_config");
    let Some(any) = at.need(config) else { return };
    match kind {
        MemoryMonitor::FixedHeap => match at.unpack::<FixedHeapConfig>(any) {
            None => at.refuse_type(any),
            Some(config) => {
                let bytes = config.message().map_or(0, |c| c.max_heap_size_bytes);
                if bytes == 0 {
                    at.field("max_heap_size_bytes").refuse("must be above 0");
                }
                manager.fixed_heap_bytes = Some(bytes);
            }
        },
        MemoryMonitor::CgroupMemory => match at.unpack::<CgroupMemoryConfig>(any) {
            None => at.refuse_type(any),
            Some(config) => {
                let max_bytes = config.message().map(|c| c.max_memory_bytes).filter(|bytes| *bytes > 0);
                manager.cgroup_memory = Some(CgroupMemory { max_bytes });
            }
        },
    }
}

fn monitor_kind(name: &str) -> Option<MemoryMonitor> {
    match name {
        "envoy.resource_monitors.fixed_heap" => Some(MemoryMonitor::FixedHeap),
        "envoy.resource_monitors.cgroup_memory" => Some(MemoryMonitor::CgroupMemory),
        _ => None,
    }
}

fn triggers(message: &proto::OverloadAction, manager: &OverloadManager, at: &At<'_>) -> Vec<Trigger> {
    if message.triggers.is_empty() {
        at.field("triggers").refuse("at least one is required");
    }
    let mut found = Vec::with_capacity(message.triggers.len());
    for (i, trigger) in message.triggers.iter().enumerate() {
        let at = at.item("triggers", i);
        let monitor = monitor_kind(&trigger.name).filter(|monitor| match monitor {
            MemoryMonitor::FixedHeap => manager.fixed_heap_bytes.is_some(),
            MemoryMonitor::CgroupMemory => manager.cgroup_memory.is_some(),
        });
        let Some(monitor) = monitor else {
            at.field("name").refuse(format!("there is no monitor `{}`", trigger.name));
            continue;
        };
        let Some(TriggerOneof::Threshold(threshold)) = at.need(trigger.trigger_oneof.as_ref()) else {
            continue;
        };
        if !(0.0..=1.0).contains(&threshold.value) {
            at.field("threshold").field("value").refuse("must be between 0 and 1");
            continue;
        }
        // In range, as was just seen.
        let threshold = Fraction::from_millionths((threshold.value * 1e6).round() as u32);
        found.push(Trigger { monitor, threshold });
    }
    found
}
