//! Access logs.

use outrigger_api::any;
use outrigger_api::envoy::config::accesslog::v3::{AccessLog as ProtoLog, access_log};
use outrigger_api::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string};
use outrigger_api::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use outrigger_api::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use outrigger_traffic::config::{AccessLog, AccessLogFormat, AccessLogSink};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Value as Json};

pub(super) fn access_logs(values: &[AccessLog]) -> Vec<ProtoLog> {
    values.iter().map(one).collect()
}

fn one(value: &AccessLog) -> ProtoLog {
    let format = format(&value.format);
    let (name, config) = match &value.sink {
        AccessLogSink::File(path) => {
            let access_log_format = format.map(file_access_log::AccessLogFormat::LogFormat);
            ("envoy.access_loggers.file", any(&FileAccessLog { path: path.clone(), access_log_format }))
        }
        AccessLogSink::Stdout => {
            let access_log_format = format.map(stdout_access_log::AccessLogFormat::LogFormat);
            ("envoy.access_loggers.stdout", any(&StdoutAccessLog { access_log_format }))
        }
        AccessLogSink::Stderr => {
            let access_log_format = format.map(stderr_access_log::AccessLogFormat::LogFormat);
            ("envoy.access_loggers.stderr", any(&StderrAccessLog { access_log_format }))
        }
    };
    ProtoLog { name: name.to_owned(), config_type: Some(access_log::ConfigType::TypedConfig(config)) }
}

fn format(value: &AccessLogFormat) -> Option<SubstitutionFormatString> {
    use substitution_format_string::Format;
    let format = match value {
        AccessLogFormat::Default => return None,
        AccessLogFormat::Text(text) => Format::TextFormat(text.clone()),
        AccessLogFormat::Json(map) => Format::JsonFormat(object(map)),
    };
    Some(SubstitutionFormatString { format: Some(format) })
}

fn object(map: &Map<String, Json>) -> Struct {
    Struct { fields: map.iter().map(|(key, value)| (key.clone(), json(value))).collect() }
}

fn json(value: &Json) -> Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(*value),
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or_default()),
        Json::String(value) => Kind::StringValue(value.clone()),
        Json::Array(list) => Kind::ListValue(ListValue { values: list.iter().map(json).collect() }),
        Json::Object(map) => Kind::StructValue(object(map)),
    };
    Value { kind: Some(kind) }
}
