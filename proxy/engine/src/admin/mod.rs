//! The administration interface: readiness, statistics, configuration as held, drain.
//!
//! HTTP/1.1 on the control runtime, on loopback unless configured otherwise, without authentication. Names of paths and
//! JSON fields are Envoy's. What changes something is a POST.

mod ready;
mod server;

pub use server::bind;
pub(crate) use server::serve;
use server::Path;

use serde_json::Value;
use std::sync::Arc;

/// What the administration shows or changes beyond the engine itself.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Resources as they came over the wire, for `/config_dump`.
    pub config_dump: Option<Arc<dyn ConfigDumpSource>>,
    /// The log level, for `/logging`.
    pub log_level: Option<Arc<dyn LogLevel>>,
    /// Further metrics, appended to `/stats/prometheus`.
    pub metrics: Option<Arc<dyn ExtraMetrics>>,
    /// The command line, for `/server_info`: flags and their values.
    pub command_line: serde_json::Map<String, Value>,
}

/// Knows the resources of the configuration feed.
pub trait ConfigDumpSource: Send + Sync + std::fmt::Debug {
    /// The entries of `configs[]` of Envoy's `/config_dump`, each with its `@type`. Private keys must be redacted.
    fn configs(&self) -> Vec<Value>;
}

/// Shows and changes the level of the program's log.
pub trait LogLevel: Send + Sync + std::fmt::Debug {
    /// The level, as in `info` or `info,outrigger_engine=debug`.
    fn level(&self) -> String;

    /// Changes it.
    ///
    /// *Errors*: why the text is no level.
    fn set_level(&self, level: &str) -> Result<(), String>;
}

/// Metrics of a part of the program that the engine does not know, such as the configuration feed.
pub trait ExtraMetrics: Send + Sync + std::fmt::Debug {
    /// Complete families in Prometheus' text format, with `# HELP` and `# TYPE`.
    fn write(&self, out: &mut String);
}

/// Every path, in the order of `/help`.
static PATHS: &[Path] = &[
    Path { path: "/ready", changes: false, help: "print LIVE, or 503 and why not", answer: ready::ready },
    Path { path: "/healthcheck/fail", changes: true, help: "make readiness fail", answer: ready::fail },
    Path { path: "/healthcheck/ok", changes: true, help: "let readiness succeed again", answer: ready::ok },
];

/// What `/help` prints.
fn help_text() -> String {
    let mut text = String::from("admin commands are:\n");
    for path in PATHS {
        let method = if path.changes { " (POST)" } else { "" };
        text.push_str(&format!("  {}{method}: {}\n", path.path, path.help));
    }
    text
}
