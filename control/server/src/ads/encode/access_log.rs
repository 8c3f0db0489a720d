//! Access logs.

use outrigger_api::any;
use outrigger_api::envoy::config::accesslog::v3::{self as proto, AccessLog as ProtoLog, access_log};
use outrigger_api::envoy::config::core::v3::{
    RuntimeUInt32, SubstitutionFormatString, substitution_format_string,
};
use outrigger_api::envoy::data::accesslog::v3::AccessLogType;
use outrigger_api::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use outrigger_api::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use outrigger_traffic::config::{
    AccessLog, AccessLogFormat, AccessLogSink, Comparison, LogFilter, LogKind, Order,
};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Value as Json};

use super::mirror::share_of;
use super::route::header_match;

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
        // The planner makes none; a message of nothing is refused.
        AccessLogSink::Service(_) => ("", prost_types::Any::default()),
        AccessLogSink::Stderr => {
            let access_log_format = format.map(stderr_access_log::AccessLogFormat::LogFormat);
            ("envoy.access_loggers.stderr", any(&StderrAccessLog { access_log_format }))
        }
    };
    let filter = value.filter.as_ref().map(filter);
    ProtoLog { name: name.to_owned(), filter, config_type: Some(access_log::ConfigType::TypedConfig(config)) }
}

fn filter(value: &LogFilter) -> proto::AccessLogFilter {
    use proto::access_log_filter::FilterSpecifier as F;
    let all = |parts: &[LogFilter]| parts.iter().map(filter).collect();
    let specifier = match value {
        LogFilter::Status(c) => {
            F::StatusCodeFilter(proto::StatusCodeFilter { comparison: Some(comparison(*c)) })
        }
        LogFilter::Duration(c) => {
            F::DurationFilter(proto::DurationFilter { comparison: Some(comparison(*c)) })
        }
        LogFilter::NotHealthCheck => F::NotHealthCheckFilter(proto::NotHealthCheckFilter {}),
        LogFilter::Share(share) => F::RuntimeFilter(proto::RuntimeFilter {
            // Required; no runtime value of such a name exists.
            runtime_key: "outrigger.access_log".into(),
            percent_sampled: share_of(*share).default_value,
            use_independent_randomness: true,
        }),
        LogFilter::And(parts) => F::AndFilter(proto::AndFilter { filters: all(parts) }),
        LogFilter::Or(parts) => F::OrFilter(proto::OrFilter { filters: all(parts) }),
        LogFilter::Header(header) => {
            F::HeaderFilter(proto::HeaderFilter { header: Some(header_match(header)) })
        }
        LogFilter::Flags(flags) => F::ResponseFlagFilter(proto::ResponseFlagFilter { flags: flags.clone() }),
        LogFilter::GrpcStatus { statuses, exclude } => F::GrpcStatusFilter(proto::GrpcStatusFilter {
            statuses: statuses.iter().filter_map(|status| i32::try_from(*status).ok()).collect(),
            exclude: *exclude,
        }),
        LogFilter::Kind { kinds, exclude } => F::LogTypeFilter(proto::LogTypeFilter {
            types: kinds.iter().map(|kind| kind_of(*kind).into()).collect(),
            exclude: *exclude,
        }),
    };
    proto::AccessLogFilter { filter_specifier: Some(specifier) }
}

const fn kind_of(kind: LogKind) -> AccessLogType {
    match kind {
        LogKind::Request => AccessLogType::DownstreamEnd,
        LogKind::Connection => AccessLogType::TcpConnectionEnd,
        LogKind::Other => AccessLogType::NotSet,
    }
}

fn comparison(value: Comparison) -> proto::ComparisonFilter {
    use proto::comparison_filter::Op;
    let op = match value.is {
        Order::Equal => Op::Eq,
        Order::NotEqual => Op::Ne,
        Order::AtLeast => Op::Ge,
        Order::AtMost => Op::Le,
    };
    let value = RuntimeUInt32 { default_value: value.than, runtime_key: "outrigger.access_log".into() };
    proto::ComparisonFilter { op: op.into(), value: Some(value) }
}

fn format(value: &AccessLogFormat) -> Option<SubstitutionFormatString> {
    use substitution_format_string::Format;
    let format = match value {
        AccessLogFormat::Default => return None,
        AccessLogFormat::Text(text) | AccessLogFormat::TextOmitting(text) => Format::TextFormat(text.clone()),
        AccessLogFormat::Json(map) | AccessLogFormat::JsonOmitting(map) => Format::JsonFormat(object(map)),
    };
    let omit_empty_values =
        matches!(value, AccessLogFormat::TextOmitting(_) | AccessLogFormat::JsonOmitting(_));
    Some(SubstitutionFormatString {
        format: Some(format),
        omit_empty_values,
        ..SubstitutionFormatString::default()
    })
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
