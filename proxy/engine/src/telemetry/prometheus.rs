//! Everything in Prometheus' text exposition format (version 0.0.4).
//!
//! Families are gathered first, so that every one is written in one piece with one help text and one type, wherever its
//! samples come from.

use super::collect::{certificates, collect};
use super::labels::LabelText;
use super::names::{self, Metric, field_name};
use super::process;
use super::stats::{BUCKET_BOUNDS_THOUSANDTHS, Distribution, StatKind, StatValue};
use crate::live::Live;
use crate::worker::Shared;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::SystemTime;

/// Which metrics are shown.
pub struct Wanted<'a> {
    /// Leave out stats that are 0 (`usedonly`).
    pub used_only: bool,
    /// Whether a family of this name is shown.
    pub name: &'a dyn Fn(&str) -> bool,
}

#[derive(Default)]
struct Family {
    kind: &'static str,
    help: String,
    samples: String,
}

/// Families by name.
#[derive(Default)]
struct Families(BTreeMap<String, Family>);

impl Families {
    fn family(&mut self, name: &str, kind: &'static str, help: &str) -> &mut String {
        if !self.0.contains_key(name) {
            let family = Family { kind, help: help.to_owned(), samples: String::new() };
            self.0.insert(name.to_owned(), family);
        }
        // Just inserted.
        &mut self.0.entry(name.to_owned()).or_default().samples
    }

    fn metric(&mut self, metric: &Metric) -> &mut String {
        self.family(metric.name, metric.kind, metric.help)
    }
}

/// Writes all metrics.
pub fn write(shared: &Shared, live: &Live, wanted: &Wanted<'_>, out: &mut String) {
    let mut families = Families::default();
    gather_stats(shared, live, wanted, &mut families);
    gather_requests(shared, &mut families);
    gather_tcp(shared, &mut families);
    gather_process(shared, live, &mut families);
    for (name, family) in families.0 {
        if !family.samples.is_empty() && (wanted.name)(&name) {
            // Writing to a String cannot fail.
            let _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {}", family.help, family.kind);
            out.push_str(&family.samples);
        }
    }
}

fn gather_stats(shared: &Shared, live: &Live, wanted: &Wanted<'_>, families: &mut Families) {
    collect(shared, live, &mut |scope, field, value| {
        // The unit of this one is no base unit; the expiry itself is exposed instead.
        if field.name == "days_until_first_cert_expiring" || (wanted.used_only && is_unused(&value)) {
            return;
        }
        let is_counter = field.kind == StatKind::Counter;
        let (name, class) = field_name(scope.prometheus, field.name, is_counter);
        let kind = match field.kind {
            StatKind::Counter if name.ends_with("_total") => "counter",
            // An Envoy name without the suffix that Prometheus expects of counters.
            StatKind::Counter => "untyped",
            StatKind::Gauge if name.ends_with("_total") => "untyped",
            StatKind::Gauge => "gauge",
            StatKind::Histogram => "histogram",
        };
        let mut labels = LabelText::default();
        if !scope.label.is_empty() {
            labels.push_raw(scope.label, scope.name);
        }
        if let Some(class) = class {
            labels.push_raw("envoy_response_code_class", class);
        }
        let help = match class {
            Some(_) => "Responses by class",
            None => field.help,
        };
        let samples = families.family(&name, kind, help);
        match value {
            StatValue::Counter(n) | StatValue::Gauge(n) => sample(samples, &name, &labels.into_string(), n),
            StatValue::Histogram(d) => histogram(samples, &name, &labels.into_string(), &d),
        }
    });
}

fn is_unused(value: &StatValue) -> bool {
    match value {
        StatValue::Counter(n) | StatValue::Gauge(n) => *n == 0,
        StatValue::Histogram(d) => d.count() == 0,
    }
}

fn gather_requests(shared: &Shared, families: &mut Families) {
    for (labels, totals) in shared.telemetry.series.requests() {
        sample(families.metric(&names::ISTIO_REQUESTS), names::ISTIO_REQUESTS.name, &labels, totals.requests);
        for (metric, distribution) in [
            (&names::ISTIO_DURATION, &totals.duration),
            (&names::ISTIO_REQUEST_BYTES, &totals.request_bytes),
            (&names::ISTIO_RESPONSE_BYTES, &totals.response_bytes),
        ] {
            histogram(families.metric(metric), metric.name, &labels, distribution);
        }
    }
}

fn gather_tcp(shared: &Shared, families: &mut Families) {
    for (labels, totals) in shared.telemetry.series.tcp() {
        for (metric, value) in [
            (&names::ISTIO_TCP_OPENED, totals.opened),
            (&names::ISTIO_TCP_CLOSED, totals.closed),
            (&names::ISTIO_TCP_SENT, totals.sent_bytes),
            (&names::ISTIO_TCP_RECEIVED, totals.received_bytes),
        ] {
            sample(families.metric(metric), metric.name, &labels, value);
        }
    }
}

fn gather_process(shared: &Shared, live: &Live, families: &mut Families) {
    let version = env!("CARGO_PKG_VERSION");
    let mut labels = LabelText::default();
    labels.push_raw("component", "proxy");
    labels.push_raw("tag", version);
    sample(families.metric(&names::ISTIO_BUILD), names::ISTIO_BUILD.name, &labels.into_string(), 1);
    let mut seen = BTreeMap::new();
    for used in certificates(live) {
        let name = used.facts.uri_sans.first().or_else(|| used.facts.dns_sans.first());
        let mut labels = LabelText::default();
        labels.push_raw("user", &used.user);
        labels.push_raw("name", name.unwrap_or(&used.facts.subject));
        labels.push_raw("serial", &used.facts.serial);
        seen.insert(labels.into_string(), used.facts.not_after);
    }
    for (labels, expiry) in seen {
        let samples = families.metric(&names::CERT_EXPIRY);
        let _ = writeln!(samples, "{}{{{labels}}} {expiry}", names::CERT_EXPIRY.name);
    }
    let started = shared.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    for (metric, value) in [
        (&names::PROCESS_START, started.as_secs_f64()),
        (&names::PROCESS_MEMORY, process::resident_bytes() as f64),
        (&names::PROCESS_CPU, process::cpu_seconds()),
        (&names::PROCESS_FDS, process::open_fds() as f64),
    ] {
        let _ = writeln!(families.metric(metric), "{} {value}", metric.name);
    }
}

fn sample(out: &mut String, name: &str, labels: &str, value: u64) {
    let _ = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
}

fn histogram(out: &mut String, name: &str, labels: &str, distribution: &Distribution) {
    let separator = if labels.is_empty() { "" } else { "," };
    let mut cumulated = 0_u64;
    for (index, n) in distribution.buckets.iter().enumerate() {
        cumulated = cumulated.wrapping_add(*n);
        let _ = match BUCKET_BOUNDS_THOUSANDTHS.get(index) {
            Some(bound) => {
                writeln!(
                    out,
                    "{name}_bucket{{{labels}{separator}le=\"{}\"}} {cumulated}",
                    *bound as f64 / 1000.0
                )
            }
            None => writeln!(out, "{name}_bucket{{{labels}{separator}le=\"+Inf\"}} {cumulated}"),
        };
    }
    let sum = distribution.sum_thousandths as f64 / 1000.0;
    let braced = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let _ = writeln!(out, "{name}_sum{braced} {sum}\n{name}_count{braced} {cumulated}");
}
