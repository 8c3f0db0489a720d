//! Which requests an access log has lines of.

use super::At;
use super::route::matches::header_match;
use super::value::fractional;
use outrigger_api::envoy::config::accesslog::v3 as proto;
use outrigger_api::envoy::data::accesslog::v3::AccessLogType;
use outrigger_traffic::config::{Comparison, LogFilter, LogKind, Order};
use proto::access_log_filter::FilterSpecifier as F;

/// Filters may be nested this deep.
const DEPTH_MAX: usize = 8;

/// The short codes that Envoy knows and we do too: others are never set.
const FLAGS: &[&str] = &[
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
];

/// A filter; `None` where something was refused.
pub(super) fn log_filter(message: &proto::AccessLogFilter, at: &At<'_>) -> Option<LogFilter> {
    nested(message, 0, at)
}

fn nested(message: &proto::AccessLogFilter, depth: usize, at: &At<'_>) -> Option<LogFilter> {
    Some(match at.need(message.filter_specifier.as_ref())? {
        F::StatusCodeFilter(f) => {
            LogFilter::Status(comparison(f.comparison.as_ref(), &at.field("status_code_filter"))?)
        }
        F::DurationFilter(f) => {
            LogFilter::Duration(comparison(f.comparison.as_ref(), &at.field("duration_filter"))?)
        }
        F::NotHealthCheckFilter(_) => LogFilter::NotHealthCheck,
        F::RuntimeFilter(f) => {
            let at = at.field("runtime_filter");
            at.field("runtime_key").need_text(&f.runtime_key);
            // Absent, it is nothing: only the runtime value can log then.
            let share = f.percent_sampled.as_ref().map(|p| fractional(p, &at.field("percent_sampled")));
            LogFilter::Share(at.runtime().share(&f.runtime_key, share.unwrap_or_default()))
        }
        F::AndFilter(f) => LogFilter::And(several(&f.filters, depth, &at.field("and_filter"))?),
        F::OrFilter(f) => LogFilter::Or(several(&f.filters, depth, &at.field("or_filter"))?),
        F::HeaderFilter(f) => {
            let at = at.field("header_filter");
            let at = at.field("header");
            LogFilter::Header(header_match(at.need(f.header.as_ref())?, &at)?)
        }
        F::ResponseFlagFilter(f) => {
            let at = at.field("response_flag_filter");
            for (i, flag) in f.flags.iter().enumerate() {
                if !FLAGS.contains(&flag.as_str()) {
                    at.item("flags", i).refuse(format!("`{flag}` is not a response flag"));
                }
            }
            let never = ["LH", "RLSE", "RFCF"];
            let known: Vec<String> =
                f.flags.iter().filter(|f| !never.contains(&f.as_str())).cloned().collect();
            if known.is_empty() && !f.flags.is_empty() {
                at.field("flags").refuse("none of these flags is ever set here");
            }
            LogFilter::Flags(known)
        }
        F::GrpcStatusFilter(f) => {
            let at = at.field("grpc_status_filter");
            let statuses = f.statuses.iter().enumerate().filter_map(|(i, status)| {
                let number = u32::try_from(*status).ok().filter(|status| *status <= 16);
                if number.is_none() {
                    at.item("statuses", i).refuse("is not known");
                }
                number
            });
            LogFilter::GrpcStatus { statuses: statuses.collect(), exclude: f.exclude }
        }
        F::LogTypeFilter(f) => {
            let kind = |value: &i32| match AccessLogType::try_from(*value) {
                Ok(AccessLogType::DownstreamEnd) => LogKind::Request,
                Ok(AccessLogType::TcpConnectionEnd) => LogKind::Connection,
                _ => LogKind::Other,
            };
            LogFilter::Kind { kinds: f.types.iter().map(kind).collect(), exclude: f.exclude }
        }
    })
}

fn several(from: &[proto::AccessLogFilter], depth: usize, at: &At<'_>) -> Option<Vec<LogFilter>> {
    if from.len() < 2 {
        at.field("filters").refuse("needs at least two");
    }
    if depth >= DEPTH_MAX {
        at.refuse(format!("filters may be nested {DEPTH_MAX} deep"));
        return None;
    }
    from.iter().enumerate().map(|(i, filter)| nested(filter, depth + 1, &at.item("filters", i))).collect()
}

fn comparison(message: Option<&proto::ComparisonFilter>, at: &At<'_>) -> Option<Comparison> {
    use proto::comparison_filter::Op;
    let at = at.field("comparison");
    let message = at.need(message)?;
    let is = match Op::try_from(message.op) {
        Ok(Op::Eq) => Order::Equal,
        Ok(Op::Ge) => Order::AtLeast,
        Ok(Op::Le) => Order::AtMost,
        Ok(Op::Ne) => Order::NotEqual,
        Err(_) => {
            at.field("op").refuse("is not known");
            return None;
        }
    };
    let number = at.field("value").need(message.value.as_ref())?;
    Some(Comparison { is, than: at.runtime().whole_u32(&number.runtime_key, number.default_value) })
}
