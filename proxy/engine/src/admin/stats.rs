//! `/stats`, `/stats/prometheus`.

use super::body::Content;
use super::server::{Context, Reply};
use crate::telemetry::collect::collect;
use crate::telemetry::prometheus::{Exposition, Wanted};
use crate::telemetry::stats::{Distribution, StatValue};
use http::StatusCode;
use regex::{Regex, RegexBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Memory a filter's pattern may take; the text comes from whoever can reach the port.
const FILTER_BYTES_MAX: usize = 1 << 20;

/// The quantiles Envoy shows.
const QUANTILES: [(&str, f64); 10] = [
    ("P0", 0.0),
    ("P25", 0.25),
    ("P50", 0.5),
    ("P75", 0.75),
    ("P90", 0.9),
    ("P95", 0.95),
    ("P99", 0.99),
    ("P99.5", 0.995),
    ("P99.9", 0.999),
    ("P100", 1.0),
];

/// Text (default), `format=json` or `format=prometheus`; `filter=REGEX`, `usedonly`.
pub(super) fn stats(context: &Context<'_>) -> Reply {
    match context.parameter("format").as_deref() {
        None | Some("" | "text") => shown(context, as_text),
        Some("json") => shown(context, as_json),
        Some("prometheus") => prometheus(context),
        Some(other) => {
            let body = format!("usage: /stats?format=text|json|prometheus; `{other}` is none of them\n");
            Reply::status(StatusCode::BAD_REQUEST, body)
        }
    }
}

/// Prometheus' text format; `filter` (of family names) and `usedonly` as above.
pub(super) fn prometheus(context: &Context<'_>) -> Reply {
    let filter = match filter(context) {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let shared = &context.steering.shared;
    let name = |name: &str| filter.as_ref().is_none_or(|f| f.is_match(name));
    let wanted = Wanted { used_only: context.parameter("usedonly").is_some(), name: &name };
    let pieces = Exposition::gather(shared, &shared.live.load(), &wanted);
    // Of others, and last.
    let extra = context.sources.metrics.as_ref().map(|extra| {
        let mut text = String::new();
        extra.write(&mut text);
        text
    });
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Reply { status: StatusCode::OK, content_type, body: Content::Pieces(Box::new(pieces.chain(extra))) }
}

fn filter(context: &Context<'_>) -> Result<Option<Regex>, Reply> {
    let Some(pattern) = context.parameter("filter") else { return Ok(None) };
    RegexBuilder::new(&pattern)
        .size_limit(FILTER_BYTES_MAX)
        .build()
        .map(Some)
        .map_err(|_| Reply::status(StatusCode::BAD_REQUEST, "filter is no valid regular expression\n"))
}

/// Stats by Envoy's full name, as in `cluster.a.upstream_rq_total`.
type ByName = BTreeMap<String, StatValue>;

fn shown(context: &Context<'_>, show: fn(&ByName) -> Reply) -> Reply {
    let filter = match filter(context) {
        Ok(filter) => filter,
        Err(reply) => return reply,
    };
    let used_only = context.parameter("usedonly").is_some();
    let shared = &context.steering.shared;
    let mut all = ByName::new();
    collect(shared, &shared.live.load(), &mut |scope, field, value| {
        let unused = match &value {
            StatValue::Counter(n) | StatValue::Gauge(n) => *n == 0,
            StatValue::Histogram(d) => d.count() == 0,
        };
        let name = match (scope.kind, scope.name) {
            ("", _) => field.name.to_owned(),
            (kind, "") => format!("{kind}.{}", field.name),
            (kind, name) => format!("{kind}.{name}.{}", field.name),
        };
        if !(used_only && unused) && filter.as_ref().is_none_or(|f| f.is_match(&name)) {
            all.insert(name, value);
        }
    });
    show(&all)
}

fn as_text(all: &ByName) -> Reply {
    let mut body = String::new();
    // Counters and gauges first, then histograms, as in Envoy. Writing to a String cannot fail.
    for (name, value) in all {
        if let StatValue::Counter(n) | StatValue::Gauge(n) = value {
            let _ = writeln!(body, "{name}: {n}");
        }
    }
    for (name, value) in all {
        if let StatValue::Histogram(distribution) = value {
            let _ = writeln!(body, "{name}: {}", quantiles_text(distribution));
        }
    }
    Reply::text(body)
}

fn quantiles_text(distribution: &Distribution) -> String {
    if distribution.count() == 0 {
        return "No recorded values".into();
    }
    let part =
        |(name, q): (&str, f64)| format!("{name}(nan,{})", distribution.quantile(q).unwrap_or_default());
    QUANTILES.into_iter().map(part).collect::<Vec<_>>().join(" ")
}

fn as_json(all: &ByName) -> Reply {
    let mut stats = Vec::new();
    let mut histograms = Vec::new();
    for (name, value) in all {
        match value {
            StatValue::Counter(n) | StatValue::Gauge(n) => stats.push(json!({"name": name, "value": n})),
            StatValue::Histogram(distribution) => {
                let values: Vec<Value> = QUANTILES
                    .into_iter()
                    .map(|(_, q)| json!({"interval": null, "cumulative": distribution.quantile(q)}))
                    .collect();
                histograms.push(json!({"name": name, "values": values}));
            }
        }
    }
    if !histograms.is_empty() {
        let supported: Vec<f64> = QUANTILES.into_iter().map(|(_, q)| q * 100.0).collect();
        stats.push(
            json!({"histograms": {"supported_quantiles": supported, "computed_quantiles": histograms}}),
        );
    }
    Reply::json(&json!({"stats": stats}))
}
