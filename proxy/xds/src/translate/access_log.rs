//! Access logs.

use super::log_filter::log_filter;
use super::{At, files, log_service, metadata};
use outrigger_api::envoy::config::accesslog::v3::{AccessLog as ProtoLog, access_log};
use outrigger_api::envoy::config::core::v3::{SubstitutionFormatString, substitution_format_string};
use outrigger_api::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use outrigger_api::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use outrigger_api::envoy::extensions::formatter::metadata::v3::Metadata as MetadataFormatter;
use outrigger_api::envoy::extensions::formatter::req_without_query::v3::ReqWithoutQuery;
use outrigger_traffic::config::{AccessLog, AccessLogFormat, AccessLogSink};
use prost_types::Struct;

/// The logs in the field `access_log` of the message here.
pub(super) fn access_logs(logs: &[ProtoLog], at: &At<'_>) -> Vec<AccessLog> {
    logs.iter().enumerate().filter_map(|(i, log)| one(log, &at.item("access_log", i))).collect()
}

fn one(log: &ProtoLog, at: &At<'_>) -> Option<AccessLog> {
    let filter = match &log.filter {
        None => None,
        Some(filter) => Some(log_filter(filter, &at.field("filter"))?),
    };
    let at = at.field("typed_config");
    let access_log::ConfigType::TypedConfig(any) = at.need(log.config_type.as_ref())?;
    if let Some(message) = at.unpack::<FileAccessLog>(any) {
        let message = message.message()?;
        at.field("path").need_text(&message.path);
        let format = file_format(message.access_log_format.as_ref(), &at)?;
        return Some(AccessLog { sink: AccessLogSink::File(message.path), format, filter });
    }
    if let Some(message) = at.unpack::<StdoutAccessLog>(any) {
        let format = match message.message()?.access_log_format {
            None => AccessLogFormat::Default,
            Some(stdout_access_log::AccessLogFormat::LogFormat(f)) => format(&f, &at.field("log_format"))?,
        };
        return Some(AccessLog { sink: AccessLogSink::Stdout, format, filter });
    }
    if let Some(message) = at.unpack::<StderrAccessLog>(any) {
        let format = match message.message()?.access_log_format {
            None => AccessLogFormat::Default,
            Some(stderr_access_log::AccessLogFormat::LogFormat(f)) => format(&f, &at.field("log_format"))?,
        };
        return Some(AccessLog { sink: AccessLogSink::Stderr, format, filter });
    }
    if let Some((service, format)) = log_service::service(any, &at) {
        let (service, format) = (service?, format);
        return Some(AccessLog { sink: AccessLogSink::Service(Box::new(service)), format, filter });
    }
    at.refuse_type(any);
    None
}

fn file_format(from: Option<&file_access_log::AccessLogFormat>, at: &At<'_>) -> Option<AccessLogFormat> {
    use file_access_log::AccessLogFormat as F;
    match from {
        None => Some(AccessLogFormat::Default),
        Some(F::Format(text)) => Some(AccessLogFormat::Text(text.clone())),
        Some(F::JsonFormat(map)) => object(map, &at.field("json_format")),
        Some(F::TypedJsonFormat(map)) => object(map, &at.field("typed_json_format")),
        Some(F::LogFormat(f)) => format(f, &at.field("log_format")),
    }
}

fn format(from: &SubstitutionFormatString, at: &At<'_>) -> Option<AccessLogFormat> {
    if !from.content_type.is_empty() {
        at.field("content_type").refuse("has no meaning for a log");
    }
    line(from, at)
}

/// A text or an object, and what is left out of it.
pub(super) fn line(from: &SubstitutionFormatString, at: &At<'_>) -> Option<AccessLogFormat> {
    // What these add is there anyway: `REQ_WITHOUT_QUERY`, and `METADATA` as far as it is known.
    for (i, formatter) in from.formatters.iter().enumerate() {
        let at = at.item("formatters", i);
        let at = at.field("typed_config");
        let Some(any) = at.need(formatter.typed_config.as_ref()) else { continue };
        if at.unpack::<ReqWithoutQuery>(any).is_none() && at.unpack::<MetadataFormatter>(any).is_none() {
            at.refuse_type(any);
        }
    }
    let format = shape(from, at)?;
    Some(match format {
        AccessLogFormat::Text(text) if from.omit_empty_values => AccessLogFormat::TextOmitting(text),
        AccessLogFormat::Json(object) if from.omit_empty_values => AccessLogFormat::JsonOmitting(object),
        format => format,
    })
}

/// Objects are written in the order of their names, whatever `json_format_options.sort_properties` says.
fn shape(from: &SubstitutionFormatString, at: &At<'_>) -> Option<AccessLogFormat> {
    use substitution_format_string::Format as F;
    match at.need(from.format.as_ref())? {
        F::TextFormat(text) => Some(AccessLogFormat::Text(text.clone())),
        F::TextFormatSource(source) => {
            files::text(source, &at.field("text_format_source")).map(AccessLogFormat::Text)
        }
        F::JsonFormat(map) => object(map, &at.field("json_format")),
    }
}

fn object(from: &Struct, at: &At<'_>) -> Option<AccessLogFormat> {
    if from.fields.is_empty() {
        at.refuse("must not be empty");
    }
    metadata::map(from).map(AccessLogFormat::Json).or_else(|| {
        at.refuse("holds a number that JSON cannot express");
        None
    })
}
