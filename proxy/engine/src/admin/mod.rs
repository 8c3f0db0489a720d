//! The administration interface: readiness, statistics, configuration as held, drain.
//!
//! HTTP/1.1 on the control runtime, on loopback unless configured otherwise, without authentication. Names of paths and
//! JSON fields are Envoy's. What changes something is a POST.

mod body;
mod certs;
mod clusters;
mod config_dump;
mod listeners;
mod mutate;
mod ready;
mod server;
mod server_info;
mod stats;

pub use server::bind;
pub(crate) use server::serve;
use server::{Context, Path, Reply};

use serde_json::Value;
use std::sync::Arc;

/// What the administration shows or changes beyond the engine itself.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Resources as they came over the wire, for `/config_dump`.
    pub config_dump: Option<Arc<dyn ConfigDumpSource>>,
    /// The log level, for `/logging`.
    pub log_level: Option<Arc<dyn LogLevel>>,
    /// Runtime values, for `/runtime` and `/runtime_modify`.
    pub runtime: Option<Arc<dyn RuntimeValues>>,
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

/// Shows and changes runtime values.
pub trait RuntimeValues: Send + Sync + std::fmt::Debug {
    /// The layers and every value, as Envoy's `/runtime` prints them.
    fn layers(&self) -> Value;

    /// Sets values, or takes away those whose text is empty.
    ///
    /// *Errors*: why nothing was changed.
    fn modify(&self, changes: &[(String, String)]) -> Result<(), String>;
}

/// Metrics of a part of the program that the engine does not know, such as the configuration feed.
pub trait ExtraMetrics: Send + Sync + std::fmt::Debug {
    /// Complete families in Prometheus' text format, with `# HELP` and `# TYPE`.
    fn write(&self, out: &mut String);
}

macro_rules! paths {
    ($($method:ident $path:literal $help:literal $answer:expr;)*) => {
        /// Every path, in the order of `/help`.
        static PATHS: &[Path] = &[
            $(Path { path: $path, changes: paths!(@$method), help: $help, answer: $answer },)*
        ];
    };
    (@GET) => { false };
    (@POST) => { true };
}

paths! {
    GET "/" "print this text" help;
    GET "/certs" "print the certificates in use" certs::certs;
    GET "/clusters" "print clusters and hosts (format=json)" clusters::clusters;
    GET "/config_dump" "print the configuration in effect (resource, name_regex)" config_dump::config_dump;
    POST "/drain_listeners" "close listeners (graceful, inboundonly)" mutate::drain_listeners;
    POST "/healthcheck/fail" "make readiness fail" ready::fail;
    POST "/healthcheck/ok" "let readiness succeed again" ready::ok;
    GET "/help" "print this text" help;
    GET "/listeners" "print listeners and their addresses (format=json)" listeners::listeners;
    POST "/logging" "print or change the log level (level, paths)" mutate::logging;
    GET "/memory" "print memory in use" server_info::memory;
    POST "/quitquitquit" "end the proxy in order" mutate::quit;
    GET "/ready" "print LIVE, or 503 and why not" ready::ready;
    POST "/reopen_logs" "open access log files anew" mutate::reopen_logs;
    GET "/runtime" "print runtime values by layer" server_info::runtime;
    POST "/runtime_modify" "add or change runtime values (key=value, or key= to take one away)" mutate::runtime_modify;
    GET "/server_info" "print version, state and node" server_info::server_info;
    GET "/stats" "print statistics (format=json|prometheus, filter, usedonly)" stats::stats;
    GET "/stats/prometheus" "print statistics in Prometheus' format (filter, usedonly)" stats::prometheus;
}

fn help(_: &Context<'_>) -> Reply {
    Reply::text(help_text())
}

/// What `/help` prints.
fn help_text() -> String {
    let mut text = String::from("admin commands are:\n");
    for path in PATHS {
        let method = if path.changes { " (POST)" } else { "" };
        text.push_str(&format!("  {}{method}: {}\n", path.path, path.help));
    }
    text
}
