//! Which requests and connections a log has lines of. Source: Envoy: access log filters.

use crate::http::view::HeadView;
use crate::telemetry::record::{ConnectionRecord, RequestRecord};
use crate::telemetry::{ResponseFlags, flags};
use crate::worker::Worker;
use outrigger_traffic::config::{Comparison, Fraction, LogFilter, LogKind};
use outrigger_traffic::route::HeaderMatcher;
use outrigger_wire::RequestHead;
use std::time::Duration;

/// A compiled [`LogFilter`].
#[derive(Debug)]
pub(in crate::telemetry) enum Filter {
    Status(Comparison),
    Duration(Comparison),
    NotHealthCheck,
    Share(Fraction),
    And(Box<[Filter]>),
    Or(Box<[Filter]>),
    Header(Box<HeaderMatcher>),
    Flags(ResponseFlags),
    AnyFlag,
    GrpcStatus { statuses: Box<[u32]>, exclude: bool },
    Kind { kinds: Box<[LogKind]>, exclude: bool },
}

/// What filters look at.
pub(in crate::telemetry) struct Sample<'a> {
    status: u16,
    duration: Duration,
    flags: ResponseFlags,
    request: Option<&'a RequestHead>,
    grpc_status: u32,
    kind: LogKind,
    is_health_check: bool,
    draw: u32,
}

impl<'a> Sample<'a> {
    pub(in crate::telemetry) fn of_request(
        worker: &Worker,
        record: &RequestRecord<'a>,
        total: Duration,
    ) -> Self {
        Self {
            status: record.status,
            duration: total,
            flags: record.flags,
            request: Some(record.request),
            grpc_status: record.grpc_status.unwrap_or_else(|| grpc_of(record.status)),
            kind: LogKind::Request,
            is_health_check: record.is_health_check,
            draw: worker.draw_u32(),
        }
    }

    pub(super) fn of_connection(worker: &Worker, record: &ConnectionRecord<'a>) -> Self {
        Self {
            status: 0,
            duration: record.timeline.total(),
            flags: record.flags,
            request: None,
            grpc_status: grpc_of(0),
            kind: LogKind::Connection,
            is_health_check: false,
            draw: worker.draw_u32(),
        }
    }
}

/// The gRPC status that an HTTP status stands for. Source: gRPC: HTTP to gRPC status code mapping.
pub(in crate::telemetry) const fn grpc_of(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

impl Filter {
    /// Makes a filter ready; how deep it may be nested was checked before.
    ///
    /// *Errors*: a bad header criterion, or a flag that does not exist.
    pub(in crate::telemetry) fn compile(from: &LogFilter) -> Result<Self, String> {
        let all = |parts: &[LogFilter]| parts.iter().map(Self::compile).collect::<Result<Box<[_]>, _>>();
        Ok(match from {
            LogFilter::Status(comparison) => Self::Status(*comparison),
            LogFilter::Duration(comparison) => Self::Duration(*comparison),
            LogFilter::NotHealthCheck => Self::NotHealthCheck,
            LogFilter::Share(share) => Self::Share(*share),
            LogFilter::And(parts) => Self::And(all(parts)?),
            LogFilter::Or(parts) => Self::Or(all(parts)?),
            LogFilter::Header(header) => Self::Header(Box::new(HeaderMatcher::for_request(header)?)),
            LogFilter::Flags(names) if names.is_empty() => Self::AnyFlag,
            LogFilter::Flags(names) => {
                let mut flags = ResponseFlags::NONE;
                for name in names {
                    let known = flags::ALL.iter().find(|(_, short, _)| short == name);
                    let (flag, ..) = known.ok_or_else(|| format!("`{name}` is not a response flag"))?;
                    flags.insert(*flag);
                }
                Self::Flags(flags)
            }
            LogFilter::GrpcStatus { statuses, exclude } => {
                Self::GrpcStatus { statuses: statuses.as_slice().into(), exclude: *exclude }
            }
            LogFilter::Kind { kinds, exclude } => {
                Self::Kind { kinds: kinds.as_slice().into(), exclude: *exclude }
            }
        })
    }

    /// Whether there is a line of it.
    pub(in crate::telemetry) fn wants(&self, sample: &Sample<'_>) -> bool {
        match self {
            Self::Status(comparison) => comparison.holds(sample.status.into()),
            Self::Duration(comparison) => {
                comparison.holds(u64::try_from(sample.duration.as_millis()).unwrap_or(u64::MAX))
            }
            Self::NotHealthCheck => !sample.is_health_check,
            Self::Share(share) => share.contains(sample.draw),
            Self::And(parts) => parts.iter().all(|part| part.wants(sample)),
            Self::Or(parts) => parts.iter().any(|part| part.wants(sample)),
            Self::Header(header) => {
                let nothing = RequestHead::default();
                header.matches(&HeadView(sample.request.unwrap_or(&nothing)))
            }
            Self::Flags(flags) => flags.bits() & sample.flags.bits() != 0,
            Self::AnyFlag => !sample.flags.is_empty(),
            Self::GrpcStatus { statuses, exclude } => {
                statuses.is_empty() || statuses.contains(&sample.grpc_status) != *exclude
            }
            Self::Kind { kinds, exclude } => kinds.is_empty() || kinds.contains(&sample.kind) != *exclude,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_traffic::config::Order;

    fn wants(filter: &LogFilter, change: impl FnOnce(&mut Sample<'_>)) -> bool {
        let mut sample = Sample {
            status: 200,
            duration: Duration::from_millis(20),
            flags: ResponseFlags::NONE,
            request: None,
            grpc_status: grpc_of(200),
            kind: LogKind::Request,
            is_health_check: false,
            draw: 0,
        };
        change(&mut sample);
        Filter::compile(filter).unwrap().wants(&sample)
    }

    #[test]
    fn comparisons_hold_at_their_number_and_not_one_past_it() {
        for (is, below, at, above) in [
            (Order::Equal, false, true, false),
            (Order::NotEqual, true, false, true),
            (Order::AtLeast, false, true, true),
            (Order::AtMost, true, true, false),
        ] {
            let filter = LogFilter::Status(Comparison { is, than: 500 });
            let found = [499, 500, 501].map(|status| wants(&filter, |s| s.status = status));
            assert_eq!(found, [below, at, above], "{is:?}");
        }
        let slow = LogFilter::Duration(Comparison { is: Order::AtLeast, than: 20 });
        assert!(wants(&slow, |_| {}));
        assert!(!wants(&slow, |s| s.duration = Duration::from_micros(19_999)));
    }

    #[test]
    fn flags_statuses_and_kinds_are_looked_up() {
        let timeout = LogFilter::Flags(vec!["UT".into(), "UF".into()]);
        assert!(wants(&timeout, |s| s.flags = ResponseFlags::UPSTREAM_TIMEOUT));
        assert!(!wants(&timeout, |s| s.flags = ResponseFlags::NO_ROUTE));
        let any = LogFilter::Flags(Vec::new());
        assert!(wants(&any, |s| s.flags = ResponseFlags::NO_ROUTE));
        assert!(!wants(&any, |_| {}));
        assert!(Filter::compile(&LogFilter::Flags(vec!["ZZ".into()])).is_err());
        let unavailable = |exclude| LogFilter::GrpcStatus { statuses: vec![14], exclude };
        assert!(wants(&unavailable(false), |s| s.grpc_status = grpc_of(503)));
        assert!(!wants(&unavailable(true), |s| s.grpc_status = 14));
        assert!(wants(&unavailable(true), |_| {}));
        let connections = LogFilter::Kind { kinds: vec![LogKind::Connection], exclude: false };
        assert!(!wants(&connections, |_| {}));
        assert!(wants(&connections, |s| s.kind = LogKind::Connection));
    }

    #[test]
    fn combined_filters_need_all_or_any_and_shares_chance() {
        let status = |than| LogFilter::Status(Comparison { is: Order::Equal, than });
        assert!(!wants(&LogFilter::And(vec![status(200), status(500)]), |_| {}));
        assert!(wants(&LogFilter::And(vec![status(200), LogFilter::NotHealthCheck]), |_| {}));
        assert!(wants(&LogFilter::Or(vec![status(500), status(200)]), |_| {}));
        assert!(!wants(&LogFilter::Or(vec![status(500), status(400)]), |_| {}));
        assert!(wants(&LogFilter::Share(Fraction::from_percent(50)), |s| s.draw = 0));
        assert!(!wants(&LogFilter::Share(Fraction::from_percent(50)), |s| s.draw = u32::MAX));
        assert!(wants(&LogFilter::NotHealthCheck, |_| {}));
        assert!(!wants(&LogFilter::NotHealthCheck, |s| s.is_health_check = true));
    }
}
