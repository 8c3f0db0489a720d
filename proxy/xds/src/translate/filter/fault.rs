//! `HTTPFault`.

use super::super::At;
use super::super::route::matches::header_match;
use super::super::value::{duration, fractional};
use outrigger_api::envoy::extensions::filters::common::fault::v3::{FaultDelay as ProtoDelay, fault_delay};
use outrigger_api::envoy::extensions::filters::http::fault::v3 as proto;
use outrigger_traffic::config::{Fault, FaultAbort, FaultDelay, Fraction};

pub(super) fn fault(message: &proto::HttpFault, at: &At<'_>) -> Fault {
    Fault {
        delay: message.delay.as_ref().and_then(|d| delay(d, &at.field("delay"))),
        abort: message.abort.as_ref().and_then(|a| abort(a, &at.field("abort"))),
        upstream_cluster: message.upstream_cluster.clone(),
        headers: message
            .headers
            .iter()
            .enumerate()
            .filter_map(|(i, h)| header_match(h, &at.item("headers", i)))
            .collect(),
        downstream_nodes: message.downstream_nodes.clone(),
        max_active_faults: message.max_active_faults,
    }
}

fn delay(message: &ProtoDelay, at: &At<'_>) -> Option<FaultDelay> {
    use fault_delay::FaultDelaySecifier as D;
    let fixed = match at.need(message.fault_delay_secifier.as_ref())? {
        D::FixedDelay(fixed) => Some(duration(fixed, &at.field("fixed_delay"))?),
        D::HeaderDelay(_) => None,
    };
    Some(FaultDelay { fixed, percentage: share(message.percentage.as_ref(), at) })
}

fn abort(message: &proto::FaultAbort, at: &At<'_>) -> Option<FaultAbort> {
    use proto::fault_abort::ErrorType as E;
    let share = share(message.percentage.as_ref(), at);
    Some(match at.need(message.error_type.as_ref())? {
        E::HttpStatus(status) => FaultAbort::Http(u16::try_from(*status).unwrap_or(0), share),
        E::GrpcStatus(status) => FaultAbort::Grpc(*status, share),
        E::HeaderAbort(_) => FaultAbort::Header(share),
    })
}

/// Without a percentage nothing is hit, as in Envoy.
fn share(from: Option<&outrigger_api::envoy::r#type::v3::FractionalPercent>, at: &At<'_>) -> Fraction {
    from.map_or(Fraction::ZERO, |share| fractional(share, &at.field("percentage")))
}
