//! Access logs (`envoy.extensions.access_loggers`).

use serde::{Deserialize, Serialize};

/// Where and how requests or connections are logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Where to.
    pub sink: AccessLogSink,
    /// How.
    pub format: AccessLogFormat,
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AccessLogSink {
    /// A file, appended to.
    File(String),
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a line looks. Texts hold Envoy's command operators, as in `%RESPONSE_CODE%`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AccessLogFormat {
    /// Envoy's default line.
    #[default]
    Default,
    /// A text; the newline is part of it.
    Text(String),
    /// A JSON object in this order; values are formats or nested objects.
    Json(serde_json::Map<String, serde_json::Value>),
}
