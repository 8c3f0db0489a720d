//! Header edits.

use crate::translate::At;
use crate::translate::value::header_name;
use outrigger_api::envoy::config::core::v3::HeaderValueOption;
use outrigger_api::envoy::config::core::v3::header_value_option::HeaderAppendAction as A;
use outrigger_traffic::config::{HeaderAppend, HeaderEdit, HeaderEdits};

/// The four lists that tables, virtual hosts, routes and shares of clusters have alike.
pub(super) fn header_edits(
    request_add: &[HeaderValueOption],
    request_remove: &[String],
    response_add: &[HeaderValueOption],
    response_remove: &[String],
    at: &At<'_>,
) -> HeaderEdits {
    HeaderEdits {
        request_add: added(request_add, "request_headers_to_add", at),
        request_remove: removed(request_remove, "request_headers_to_remove", at),
        response_add: added(response_add, "response_headers_to_add", at),
        response_remove: removed(response_remove, "response_headers_to_remove", at),
    }
}

fn removed(names: &[String], field: &str, at: &At<'_>) -> Vec<String> {
    names.iter().enumerate().map(|(i, name)| editable(name, &at.item(field, i))).collect()
}

/// One such list of a filter.
pub(in crate::translate) fn header_edits_of(
    options: &[HeaderValueOption],
    field: &str,
    at: &At<'_>,
) -> Vec<HeaderEdit> {
    added(options, field, at)
}

fn added(options: &[HeaderValueOption], field: &str, at: &At<'_>) -> Vec<HeaderEdit> {
    options.iter().enumerate().filter_map(|(i, option)| header_edit(option, &at.item(field, i))).collect()
}

/// One header to add.
pub(in crate::translate) fn header_edit(option: &HeaderValueOption, at: &At<'_>) -> Option<HeaderEdit> {
    let at_header = at.field("header");
    let header = at_header.need(option.header.as_ref())?;
    let name = editable(&header.key, &at_header.field("key"));
    let raw = std::str::from_utf8(&header.raw_value).unwrap_or_else(|_| {
        at_header.field("raw_value").refuse("is not UTF-8");
        ""
    });
    if !raw.is_empty() && !header.value.is_empty() {
        at_header.field("raw_value").refuse("cannot be given together with `value`");
    }
    let action = A::try_from(option.append_action);
    let append = match (option.append, action) {
        (None, Ok(A::AppendIfExistsOrAdd)) | (Some(true), Ok(A::AppendIfExistsOrAdd)) => {
            HeaderAppend::AppendIfExistsOrAdd
        }
        (None, Ok(A::AddIfAbsent)) => HeaderAppend::AddIfAbsent,
        (None, Ok(A::OverwriteIfExistsOrAdd)) => HeaderAppend::OverwriteIfExistsOrAdd,
        (None, Ok(A::OverwriteIfExists)) => HeaderAppend::OverwriteIfExists,
        // The older switch: false overwrites.
        (Some(false), Ok(A::AppendIfExistsOrAdd)) => HeaderAppend::OverwriteIfExistsOrAdd,
        (Some(_), Ok(_)) => {
            at.field("append").refuse("cannot be given together with `append_action`");
            HeaderAppend::AppendIfExistsOrAdd
        }
        (_, Err(_)) => {
            at.field("append_action").refuse("is not known");
            HeaderAppend::AppendIfExistsOrAdd
        }
    };
    let value = if raw.is_empty() { header.value.clone() } else { raw.to_owned() };
    Some(HeaderEdit { name, value, append, keep_empty_value: option.keep_empty_value })
}

/// A header that may be edited: neither a pseudo-header nor `host`, which routing and framing depend on.
pub(in crate::translate) fn editable(name: &str, at: &At<'_>) -> String {
    let lower = header_name(name, false, at);
    if lower == "host" {
        at.refuse("`host` is changed by the host rewrites of the route");
    }
    lower
}
