//! Access logs (`envoy.extensions.access_loggers`).

use super::{Fraction, HeaderMatch};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Where and how requests or connections are logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Where to.
    pub sink: AccessLogSink,
    /// How.
    pub format: AccessLogFormat,
    /// Which; `None`: all.
    #[serde(default)]
    pub filter: Option<LogFilter>,
}

/// Which requests or connections are logged (`AccessLogFilter`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum LogFilter {
    /// By status of the response; 0 where there is none.
    Status(Comparison),
    /// By duration, milliseconds.
    Duration(Comparison),
    /// Those that the filter for health checks has not found to be some.
    NotHealthCheck,
    /// This share.
    Share(Fraction),
    /// Those that satisfy all; at least two.
    And(Vec<LogFilter>),
    /// Those that satisfy any; at least two.
    Or(Vec<LogFilter>),
    /// By a request header.
    Header(HeaderMatch),
    /// Those with any of these response flags (short codes); of an empty list, with any flag at all.
    Flags(Vec<String>),
    /// By gRPC status, which other responses are given by their HTTP status.
    GrpcStatus {
        /// Numbers.
        statuses: Vec<u32>,
        /// All but these.
        exclude: bool,
    },
    /// By what is logged.
    Kind {
        /// These; empty: all.
        kinds: Vec<LogKind>,
        /// All but these.
        exclude: bool,
    },
}

/// What a line of a log is about (`AccessLogType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogKind {
    /// A request that is over.
    Request,
    /// A TCP connection that is over.
    Connection,
    /// One of those that are never logged here, such as those in the middle of a request.
    Other,
}

/// A comparison of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    /// How.
    pub is: Order,
    /// With what.
    pub than: u32,
}

/// How numbers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Equal.
    Equal,
    /// Different.
    NotEqual,
    /// As great or greater.
    AtLeast,
    /// As small or smaller.
    AtMost,
}

impl Comparison {
    /// Whether a number passes.
    pub fn holds(self, number: u64) -> bool {
        let than = u64::from(self.than);
        match self.is {
            Order::Equal => number == than,
            Order::NotEqual => number != than,
            Order::AtLeast => number >= than,
            Order::AtMost => number <= than,
        }
    }
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
    /// A service; lines are JSON objects of the shape that its protocol needs.
    Service(Box<LogService>),
}

/// A service that takes lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogService {
    /// How it is spoken to.
    pub protocol: LogProtocol,
    /// The cluster that reaches it.
    pub cluster: String,
    /// `:authority` of the calls; empty: the cluster's name.
    pub authority: String,
    /// Name of the log.
    pub log_name: String,
    /// Attributes of the sender, name and text.
    pub resource: Vec<(String, String)>,
    /// The node and the log's name are among these, too.
    pub builtin_labels: bool,
    /// Longest time that a line waits for company. Default 1 s.
    pub flush_interval: Duration,
    /// Lines of so many bytes leave at once. Default 16 KiB.
    pub buffer_bytes: u32,
}

/// How a log service is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LogProtocol {
    /// Envoy's access log service, with entries of requests.
    EnvoyHttp,
    /// The same, with entries of connections.
    EnvoyTcp,
    /// OpenTelemetry's log records over gRPC.
    Otlp,
}

/// How a line looks. Texts hold Envoy's command operators, as in `%RESPONSE_CODE%`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum AccessLogFormat {
    /// Envoy's default line.
    #[default]
    Default,
    /// A text; the newline is part of it.
    Text(String),
    /// A text in which absent values are left out instead of written as `-` (`omit_empty_values`).
    TextOmitting(String),
    /// As [`Json`](Self::Json), without the names of absent values (`omit_empty_values`).
    JsonOmitting(serde_json::Map<String, serde_json::Value>),
    /// A JSON object in this order; values are formats or nested objects.
    Json(serde_json::Map<String, serde_json::Value>),
}
