//! A line as OpenTelemetry's log record.

use outrigger_api::envoy::config::core::v3::Node;
use outrigger_api::opentelemetry::proto::collector::logs::v1::ExportLogsServiceRequest;
use outrigger_api::opentelemetry::proto::common::v1::{
    AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value,
};
use outrigger_api::opentelemetry::proto::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use outrigger_api::opentelemetry::proto::resource::v1::Resource;
use outrigger_traffic::config::LogService;
use serde_json::{Map, Value};

/// The records of some lines. Names of attributes are those of Envoy's sink: `log_name`, `zone_name`, `cluster_name`,
/// `node_name`.
pub fn request(
    service: &LogService,
    node: &Node,
    lines: Vec<Map<String, Value>>,
) -> ExportLogsServiceRequest {
    let mut attributes = Vec::new();
    if service.builtin_labels {
        let zone = node.locality.as_ref().map_or("", |locality| locality.zone.as_str());
        for (name, text) in [
            ("log_name", service.log_name.as_str()),
            ("zone_name", zone),
            ("cluster_name", &node.cluster),
            ("node_name", &node.id),
        ] {
            attributes.push(pair(name, Value::String(text.to_owned())));
        }
    }
    attributes.extend(service.resource.iter().map(|(name, text)| pair(name, Value::String(text.clone()))));
    let scope = InstrumentationScope {
        name: "outrigger".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    };
    let log_records = lines.into_iter().map(record).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_logs: vec![ScopeLogs { scope: Some(scope), log_records, ..ScopeLogs::default() }],
            ..ResourceLogs::default()
        }],
    }
}

fn record(mut line: Map<String, Value>) -> LogRecord {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let attributes = match line.remove("attributes") {
        Some(Value::Object(map)) => map.into_iter().map(|(name, value)| pair(&name, value)).collect(),
        _ => Vec::new(),
    };
    LogRecord {
        time_unix_nano: text(line.get("time")).parse().unwrap_or_default(),
        trace_id: hex(&text(line.get("trace_id")), 16),
        span_id: hex(&text(line.get("span_id")), 8),
        body: line.remove("body").map(any),
        attributes,
        ..LogRecord::default()
    }
}

/// An id of so many bytes; empty where there is none.
fn hex(text: &str, bytes: usize) -> Vec<u8> {
    let digits = |at: usize| u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok();
    if text.len() == bytes * 2 { (0..bytes).map_while(digits).collect() } else { Vec::new() }
}

fn pair(name: &str, value: Value) -> KeyValue {
    KeyValue { key: name.to_owned(), value: Some(any(value)) }
}

/// Text operators that have no value are `null`, and say `-` as in Envoy.
fn any(value: Value) -> AnyValue {
    let value = match value {
        Value::Null => any_value::Value::StringValue("-".into()),
        Value::Bool(switch) => any_value::Value::BoolValue(switch),
        // Envoy's texts stay texts, numbers too.
        Value::Number(number) => any_value::Value::StringValue(number.to_string()),
        Value::String(text) => any_value::Value::StringValue(text),
        Value::Array(list) => {
            any_value::Value::ArrayValue(ArrayValue { values: list.into_iter().map(any).collect() })
        }
        Value::Object(map) => any_value::Value::KvlistValue(KeyValueList {
            values: map.into_iter().map(|(name, value)| pair(&name, value)).collect(),
        }),
    };
    AnyValue { value: Some(value) }
}
