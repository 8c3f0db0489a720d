//! Access logs that are sent to a service: Envoy's, and OpenTelemetry's.
//!
//! What an entry needs is asked for by the same operators that text logs have: the engine writes one JSON object a line,
//! and the exporter makes the message of it.

use super::At;
use super::value::{header_name, positive_or};
use outrigger_api::envoy::config::core::v3::GrpcService;
use outrigger_api::envoy::config::core::v3::grpc_service::TargetSpecifier;
use outrigger_api::envoy::extensions::access_loggers::grpc::v3 as als;
use outrigger_api::envoy::extensions::access_loggers::open_telemetry::v3::OpenTelemetryAccessLogConfig;
use outrigger_api::opentelemetry::proto::common::v1::{AnyValue, KeyValueList, any_value::Value};
use outrigger_traffic::config::{AccessLogFormat, LogProtocol, LogService};
use prost_types::Any;
use serde_json::{Map, Number, Value as Json, json};
use std::time::Duration;

/// Envoy's defaults.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);
const BUFFER_BYTES: u32 = 16_384;

/// A log of one of these kinds, `None` for another; inside, `None` where something was refused.
pub(super) fn service(any: &Any, at: &At<'_>) -> Option<(Option<LogService>, AccessLogFormat)> {
    let nothing = || Some((None, AccessLogFormat::Default));
    if let Some(message) = at.unpack::<als::HttpGrpcAccessLogConfig>(any) {
        let Some(message) = message.message() else { return nothing() };
        let format = AccessLogFormat::Json(http_entry(&message, at));
        return Some((common(message.common_config.as_ref(), LogProtocol::EnvoyHttp, at), format));
    }
    if let Some(message) = at.unpack::<als::TcpGrpcAccessLogConfig>(any) {
        let Some(message) = message.message() else { return nothing() };
        let format = AccessLogFormat::Json(common_entry());
        return Some((common(message.common_config.as_ref(), LogProtocol::EnvoyTcp, at), format));
    }
    if let Some(message) = at.unpack::<OpenTelemetryAccessLogConfig>(any) {
        let Some(message) = message.message() else { return nothing() };
        return Some(open_telemetry(&message, at));
    }
    None
}

fn common(
    message: Option<&als::CommonGrpcAccessLogConfig>,
    protocol: LogProtocol,
    at: &At<'_>,
) -> Option<LogService> {
    let at = at.field("common_config");
    let message = at.need(message)?;
    at.field("log_name").need_text(&message.log_name);
    let (cluster, authority) = target(message.grpc_service.as_ref(), &at)?;
    Some(LogService {
        protocol,
        cluster,
        authority,
        log_name: message.log_name.clone(),
        resource: Vec::new(),
        builtin_labels: true,
        flush_interval: positive_or(
            message.buffer_flush_interval.as_ref(),
            FLUSH_INTERVAL,
            &at.field("buffer_flush_interval"),
        ),
        buffer_bytes: message.buffer_size_bytes.unwrap_or(BUFFER_BYTES),
    })
}

fn target(service: Option<&GrpcService>, at: &At<'_>) -> Option<(String, String)> {
    let at = at.field("grpc_service");
    let service = at.need(service)?;
    if !service.initial_metadata.is_empty() {
        at.field("initial_metadata").refuse("is not supported for access logs");
    }
    let TargetSpecifier::EnvoyGrpc(target) = at.need(service.target_specifier.as_ref())?;
    let at = at.field("envoy_grpc");
    at.field("cluster_name").need_text(&target.cluster_name);
    if target.retry_policy.is_some() {
        at.field("retry_policy").refuse("is not supported for access logs");
    }
    Some((target.cluster_name.clone(), target.authority.clone()))
}

fn open_telemetry(
    message: &OpenTelemetryAccessLogConfig,
    at: &At<'_>,
) -> (Option<LogService>, AccessLogFormat) {
    let mut line = Map::new();
    line.insert("time".into(), json!("%START_TIME(%s%9f)%"));
    line.insert("trace_id".into(), json!("%TRACE_ID%"));
    line.insert("span_id".into(), json!("%SPAN_ID%"));
    if let Some(body) = &message.body {
        line.insert("body".into(), value(body, 0, &at.field("body")));
    }
    if let Some(list) = &message.attributes {
        line.insert("attributes".into(), Json::Object(pairs(list, 0, &at.field("attributes"))));
    }
    let resource = message.resource_attributes.iter().flat_map(|list| &list.values);
    let resource = resource
        .map(|pair| {
            let text = match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
                Some(Value::StringValue(text)) => text.clone(),
                _ => {
                    at.field("resource_attributes").refuse(format!("`{}` is not a text", pair.key));
                    String::new()
                }
            };
            (pair.key.clone(), text)
        })
        .collect();
    let service = common(message.common_config.as_ref(), LogProtocol::Otlp, at);
    let builtin_labels = !message.disable_builtin_labels;
    (service.map(|service| LogService { resource, builtin_labels, ..service }), AccessLogFormat::Json(line))
}

/// Values may be nested this deep.
const DEPTH_MAX: usize = 8;

fn pairs(list: &KeyValueList, depth: usize, at: &At<'_>) -> Map<String, Json> {
    let pair = |pair: &outrigger_api::opentelemetry::proto::common::v1::KeyValue| {
        let empty = AnyValue::default();
        (pair.key.clone(), value(pair.value.as_ref().unwrap_or(&empty), depth, at))
    };
    list.values.iter().map(pair).collect()
}

fn value(from: &AnyValue, depth: usize, at: &At<'_>) -> Json {
    if depth > DEPTH_MAX {
        at.refuse(format!("values may be nested {DEPTH_MAX} deep"));
        return Json::Null;
    }
    match &from.value {
        None => Json::Null,
        Some(Value::StringValue(text)) => Json::String(text.clone()),
        Some(Value::BoolValue(switch)) => Json::Bool(*switch),
        Some(Value::IntValue(number)) => Json::Number((*number).into()),
        Some(Value::DoubleValue(number)) => Number::from_f64(*number).map_or(Json::Null, Json::Number),
        Some(Value::ArrayValue(list)) => {
            Json::Array(list.values.iter().map(|one| value(one, depth + 1, at)).collect())
        }
        Some(Value::KvlistValue(list)) => Json::Object(pairs(list, depth + 1, at)),
        Some(Value::BytesValue(_)) => {
            at.refuse("bytes are not supported");
            Json::Null
        }
    }
}

/// What entries of requests and connections have in common.
fn common_entry() -> Map<String, Json> {
    let fields = [
        ("start_time", "%START_TIME(%s%9f)%"),
        ("duration", "%DURATION%"),
        ("to_last_rx", "%COMMON_DURATION(DS_RX_BEG:DS_RX_END:ns)%"),
        ("to_first_upstream_tx", "%COMMON_DURATION(DS_RX_BEG:US_TX_BEG:ns)%"),
        ("to_last_upstream_tx", "%COMMON_DURATION(DS_RX_BEG:US_TX_END:ns)%"),
        ("to_first_upstream_rx", "%COMMON_DURATION(DS_RX_BEG:US_RX_BEG:ns)%"),
        ("to_last_upstream_rx", "%COMMON_DURATION(DS_RX_BEG:US_RX_END:ns)%"),
        ("to_first_downstream_tx", "%COMMON_DURATION(DS_RX_BEG:DS_TX_BEG:ns)%"),
        ("to_last_downstream_tx", "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:ns)%"),
        ("remote", "%DOWNSTREAM_REMOTE_ADDRESS%"),
        ("direct_remote", "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%"),
        ("local", "%DOWNSTREAM_LOCAL_ADDRESS%"),
        ("upstream_remote", "%UPSTREAM_REMOTE_ADDRESS%"),
        ("upstream_local", "%UPSTREAM_LOCAL_ADDRESS%"),
        ("cluster", "%UPSTREAM_CLUSTER%"),
        ("flags", "%RESPONSE_FLAGS%"),
        ("upstream_failure", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("downstream_failure", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%"),
        ("route", "%ROUTE_NAME%"),
        ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
        ("termination", "%CONNECTION_TERMINATION_DETAILS%"),
        ("stream_id", "%STREAM_ID%"),
        ("received", "%BYTES_RECEIVED%"),
        ("sent", "%BYTES_SENT%"),
    ];
    fields.into_iter().map(|(name, text)| (name.to_owned(), json!(text))).collect()
}

fn http_entry(message: &als::HttpGrpcAccessLogConfig, at: &At<'_>) -> Map<String, Json> {
    let mut line = common_entry();
    for (name, text) in [
        ("protocol", "%PROTOCOL%"),
        ("method", "%REQ(:METHOD)%"),
        ("scheme", "%REQ(:SCHEME)%"),
        ("authority", "%REQ(:AUTHORITY)%"),
        ("path", "%REQ(:PATH)%"),
        ("user_agent", "%REQ(USER-AGENT)%"),
        ("referer", "%REQ(REFERER)%"),
        ("forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
        ("request_id", "%REQ(X-REQUEST-ID)%"),
        ("original_path", "%REQ(X-ENVOY-ORIGINAL-PATH)%"),
        ("request_headers_bytes", "%REQUEST_HEADERS_BYTES%"),
        ("code", "%RESPONSE_CODE%"),
        ("details", "%RESPONSE_CODE_DETAILS%"),
        ("response_headers_bytes", "%RESPONSE_HEADERS_BYTES%"),
    ] {
        line.insert(name.into(), json!(text));
    }
    for (field, operator, names) in [
        ("additional_request_headers_to_log", "REQ", &message.additional_request_headers_to_log),
        ("additional_response_headers_to_log", "RESP", &message.additional_response_headers_to_log),
        ("additional_response_trailers_to_log", "TRAILER", &message.additional_response_trailers_to_log),
    ] {
        let mut fields = Map::new();
        for (i, name) in names.iter().enumerate() {
            let name = header_name(name, true, &at.item(field, i));
            fields.insert(name.clone(), json!(format!("%{operator}({name})%")));
        }
        line.insert(operator.into(), Json::Object(fields));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::{Surroundings, run};
    use super::*;
    use outrigger_api::strict::{Format, from_text};

    fn found(text: &str) -> Result<Option<(Option<LogService>, AccessLogFormat)>, Vec<String>> {
        let message: als::HttpGrpcAccessLogConfig =
            from_text::<als::HttpGrpcAccessLogConfig>(text, Format::Yaml).unwrap().into_typed().unwrap();
        let any = outrigger_api::any(&message);
        run(String::new(), &Surroundings::default(), |at| service(&any, at))
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn service_has_envoys_defaults_and_the_fields_that_are_asked_for() {
        let text = "{common_config: {log_name: l, grpc_service: {envoy_grpc: {cluster_name: c}}}, additional_request_headers_to_log: [X-One]}";
        let (service, format) = found(text).unwrap().unwrap();
        let service = service.unwrap();
        assert_eq!((service.cluster.as_str(), service.log_name.as_str()), ("c", "l"));
        assert_eq!((service.flush_interval, service.buffer_bytes), (FLUSH_INTERVAL, BUFFER_BYTES));
        let AccessLogFormat::Json(line) = format else { panic!("an object") };
        assert_eq!(line["REQ"]["x-one"], "%REQ(x-one)%");
    }

    #[test]
    fn service_without_name_or_cluster_is_refused() {
        let wrong = found("{common_config: {grpc_service: {envoy_grpc: {}}}}").unwrap_err();
        assert_eq!(
            wrong,
            [
                "common_config.log_name: must not be empty",
                "common_config.grpc_service.envoy_grpc.cluster_name: must not be empty"
            ]
        );
        assert_eq!(found("{}").unwrap_err(), ["common_config: is required"]);
    }
}
