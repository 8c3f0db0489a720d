//! `/server_info`, `/memory`, `/runtime`.

use super::server::{Context, Reply};
use crate::telemetry::process;
use serde_json::{Value, json};

/// Envoy's fields; the command line comes from the program.
pub(super) fn server_info(context: &Context<'_>) -> Reply {
    let shared = &context.steering.shared;
    let node = &shared.telemetry.node;
    let state = match context.steering.readiness() {
        Ok(()) => "LIVE",
        Err(state) => state,
    };
    let uptime = format!("{}s", shared.started.elapsed().as_secs());
    let mut options = json!({
        "concurrency": shared.concurrency,
        "service_node": node.id,
        "service_cluster": node.cluster,
    });
    if let Some(options) = options.as_object_mut() {
        options.extend(context.sources.command_line.clone());
    }
    Reply::json(&json!({
        "version": concat!("outrigger/", env!("CARGO_PKG_VERSION")),
        "state": state,
        "hot_restart_version": "disabled",
        "command_line_options": options,
        "node": {
            "id": node.id,
            "cluster": node.cluster,
            "metadata": node.metadata,
            "user_agent_name": "outrigger",
            "user_agent_version": env!("CARGO_PKG_VERSION"),
        },
        "uptime_current_epoch": uptime,
        "uptime_all_epochs": uptime,
    }))
}

/// Envoy's fields as far as the system tells: 64-bit integers are strings.
pub(super) fn memory(_: &Context<'_>) -> Reply {
    let resident = process::resident_bytes().to_string();
    Reply::json(&json!({
        "allocated": resident,
        "heap_size": resident,
        "pageheap_unmapped": "0",
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident,
        "resident_max": process::resident_bytes_max().to_string(),
    }))
}

/// Runtime values by layer.
pub(super) fn runtime(context: &Context<'_>) -> Reply {
    let nothing = || json!({"layers": Vec::<Value>::new(), "entries": {}});
    Reply::json(&context.sources.runtime.as_ref().map_or_else(nothing, |runtime| runtime.layers()))
}
