//! `LocalReplyConfig`.

use super::access_log::line;
use super::log_filter::log_filter;
use super::route::headers::header_edits_of;
use super::{At, files};
use outrigger_api::envoy::config::core::v3::SubstitutionFormatString;
use outrigger_api::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use outrigger_traffic::config::{LocalReply, ReplyFormat, ReplyMapper};

pub(super) fn local_reply(message: &proto::LocalReplyConfig, at: &At<'_>) -> LocalReply {
    let mappers = message.mappers.iter().enumerate();
    LocalReply {
        mappers: mappers.filter_map(|(i, one)| mapper(one, &at.item("mappers", i))).collect(),
        format: message.body_format.as_ref().and_then(|one| format(one, &at.field("body_format"))),
    }
}

fn mapper(message: &proto::ResponseMapper, at: &At<'_>) -> Option<ReplyMapper> {
    let at_filter = at.field("filter");
    let filter = log_filter(at_filter.need(message.filter.as_ref())?, &at_filter)?;
    let status = message.status_code.and_then(|code| match u16::try_from(code) {
        Ok(code @ 200..=599) => Some(code),
        _ => {
            at.field("status_code").refuse("must be between 200 and 599");
            None
        }
    });
    Some(ReplyMapper {
        filter,
        status,
        body: message.body.as_ref().and_then(|body| files::text(body, &at.field("body"))),
        format: message
            .body_format_override
            .as_ref()
            .and_then(|one| format(one, &at.field("body_format_override"))),
        headers: header_edits_of(&message.headers_to_add, "headers_to_add", at),
    })
}

fn format(message: &SubstitutionFormatString, at: &At<'_>) -> Option<ReplyFormat> {
    Some(ReplyFormat { format: line(message, at)?, content_type: message.content_type.clone() })
}
