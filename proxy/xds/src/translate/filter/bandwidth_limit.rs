//! `BandwidthLimit`.

use super::super::At;
use super::super::value::duration;
use outrigger_api::envoy::extensions::filters::http::bandwidth_limit::v3 as proto;
use outrigger_traffic::config::BandwidthLimit;
use proto::bandwidth_limit::EnableMode;
use std::time::Duration;

pub(super) fn limit(message: &proto::BandwidthLimit, at: &At<'_>) -> BandwidthLimit {
    at.field("stat_prefix").need_text(&message.stat_prefix);
    let (request, response) = match EnableMode::try_from(message.enable_mode) {
        Ok(EnableMode::Disabled) => (false, false),
        Ok(EnableMode::Request) => (true, false),
        Ok(EnableMode::Response) => (false, true),
        Ok(EnableMode::RequestAndResponse) => (true, true),
        Err(_) => {
            at.field("enable_mode").refuse("is not known");
            (false, false)
        }
    };
    let given = message.fill_interval.as_ref().and_then(|d| duration(d, &at.field("fill_interval")));
    let enabled = message
        .runtime_enabled
        .as_ref()
        .is_none_or(|flag| at.runtime().switch(&flag.runtime_key, flag.default_value.unwrap_or(false)));
    BandwidthLimit {
        request,
        response,
        limit_kbps: message.limit_kbps,
        fill_interval: given.unwrap_or(Duration::from_millis(50)),
        enabled,
    }
}
