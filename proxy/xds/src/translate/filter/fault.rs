//! `HTTPFault`.

use super::super::At;
use super::super::route::matches::header_match;
use super::super::value::{duration, fractional};
use outrigger_api::envoy::extensions::filters::common::fault::v3::{
    FaultDelay as ProtoDelay, FaultRateLimit, fault_delay, fault_rate_limit,
};
use outrigger_api::envoy::extensions::filters::http::fault::v3 as proto;
use outrigger_traffic::config::{Fault, FaultAbort, FaultDelay, FaultRate, Fraction};
use std::time::Duration;

pub(super) fn fault(message: &proto::HttpFault, at: &At<'_>) -> Fault {
    Fault {
        delay: message.delay.as_ref().and_then(|d| delay(d, &at.field("delay"))),
        abort: message.abort.as_ref().and_then(|a| abort(a, &at.field("abort"))),
        response_rate: message
            .response_rate_limit
            .as_ref()
            .and_then(|rate| response_rate(rate, &at.field("response_rate_limit"))),
        upstream_cluster: message.upstream_cluster.clone(),
        headers: message
            .headers
            .iter()
            .enumerate()
            .filter_map(|(i, h)| header_match(h, &at.item("headers", i)))
            .collect(),
        downstream_nodes: message.downstream_nodes.clone(),
        max_active_faults: limit(message.max_active_faults, at),
    }
}

/// The limit of faults at a time, which a runtime value may set, too.
fn limit(given: Option<u32>, at: &At<'_>) -> Option<u32> {
    let value = at.runtime().whole_u32("fault.http.max_active_faults", given.unwrap_or(u32::MAX));
    (value != u32::MAX).then_some(value)
}

fn delay(message: &ProtoDelay, at: &At<'_>) -> Option<FaultDelay> {
    use fault_delay::FaultDelaySecifier as D;
    let fixed = match at.need(message.fault_delay_secifier.as_ref())? {
        D::FixedDelay(fixed) => {
            let given = duration(fixed, &at.field("fixed_delay"))?;
            let given = u64::try_from(given.as_millis()).unwrap_or(u64::MAX);
            Some(Duration::from_millis(at.runtime().whole("fault.http.delay.fixed_duration_ms", given)))
        }
        D::HeaderDelay(_) => None,
    };
    Some(FaultDelay {
        fixed,
        percentage: share(message.percentage.as_ref(), "fault.http.delay.fixed_delay_percent", at),
    })
}

fn abort(message: &proto::FaultAbort, at: &At<'_>) -> Option<FaultAbort> {
    use proto::fault_abort::ErrorType as E;
    let share = share(message.percentage.as_ref(), "fault.http.abort.abort_percent", at);
    Some(match at.need(message.error_type.as_ref())? {
        E::HttpStatus(status) => {
            let status = at.runtime().whole_u32("fault.http.abort.http_status", *status);
            FaultAbort::Http(u16::try_from(status).unwrap_or(0), share)
        }
        E::GrpcStatus(status) => {
            FaultAbort::Grpc(at.runtime().whole_u32("fault.http.abort.grpc_status", *status), share)
        }
        E::HeaderAbort(_) => FaultAbort::Header(share),
    })
}

fn response_rate(message: &FaultRateLimit, at: &At<'_>) -> Option<FaultRate> {
    use fault_rate_limit::LimitType as L;
    let fixed_kbps = match at.need(message.limit_type.as_ref())? {
        L::FixedLimit(fixed) => Some(fixed.limit_kbps),
        L::HeaderLimit(_) => None,
    };
    let key = "fault.http.rate_limit.response_percent";
    Some(FaultRate { fixed_kbps, percentage: share(message.percentage.as_ref(), key, at) })
}

/// Without a percentage nothing is hit, as in Envoy, unless a runtime value says so.
fn share(
    from: Option<&outrigger_api::envoy::r#type::v3::FractionalPercent>,
    key: &str,
    at: &At<'_>,
) -> Fraction {
    let given = from.map_or(Fraction::ZERO, |share| fractional(share, &at.field("percentage")));
    at.runtime().share(key, given)
}
