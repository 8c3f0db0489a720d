//! Everything in Prometheus' text exposition format (version 0.0.4).
//!
//! Values are gathered first, so that every family is written in one piece with one help text and one type, wherever its
//! samples come from. The text is made while it is sent, in pieces ([`Exposition`]): a thousand clusters make 17 MB.

use super::collect::{Scope, certificates, collect};
use super::labels::LabelText;
use super::names::{self, Metric, field_name};
use super::process;
use super::stats::{BUCKET_BOUNDS_THOUSANDTHS, Distribution, StatField, StatKind, StatValue};
use crate::live::Live;
use crate::worker::Shared;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::time::SystemTime;

/// Which metrics are shown.
pub struct Wanted<'a> {
    /// Leave out stats that are 0 (`usedonly`).
    pub used_only: bool,
    /// Whether a family of this name is shown.
    pub name: &'a dyn Fn(&str) -> bool,
}

struct Family {
    name: String,
    kind: &'static str,
    help: String,
    /// Values of stat sets.
    samples: Vec<Sample>,
    /// Lines that were written when they were gathered.
    lines: String,
}

/// One value of a family.
struct Sample {
    /// Place of its labels.
    scope: usize,
    /// Class of responses it counts, beside the labels.
    class: Option<&'static str>,
    value: StatValue,
}

/// Families in the order they came, each once.
#[derive(Default)]
struct Families {
    all: Vec<Family>,
    by_name: BTreeMap<String, usize>,
}

impl Families {
    fn number(&mut self, name: &str, kind: &'static str, help: &str) -> usize {
        if let Some(number) = self.by_name.get(name) {
            return *number;
        }
        let number = self.all.len();
        self.by_name.insert(name.to_owned(), number);
        let (name, help) = (name.to_owned(), help.to_owned());
        self.all.push(Family { name, kind, help, samples: Vec::new(), lines: String::new() });
        number
    }

    #[allow(clippy::indexing_slicing, reason = "a number is a place in the list, which never shrinks")]
    fn metric(&mut self, metric: &Metric) -> &mut String {
        let number = self.number(metric.name, metric.kind, metric.help);
        &mut self.all[number].lines
    }
}

impl Family {
    fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.lines.is_empty()
    }

    fn head(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "# HELP {0} {1}\n# TYPE {0} {2}", self.name, self.help, self.kind);
    }

    fn sample(&self, Sample { scope, class, value }: &Sample, scopes: &[String], out: &mut String) {
        let name = &self.name;
        let labels = scopes.get(*scope).map_or("", String::as_str);
        match (value, class) {
            (StatValue::Counter(n) | StatValue::Gauge(n), None) => sample(out, name, labels, *n),
            (StatValue::Counter(n) | StatValue::Gauge(n), Some(class)) => {
                let separator = if labels.is_empty() { "" } else { "," };
                for part in [name, "{", labels, separator, "envoy_response_code_class=\"", class, "\"}"] {
                    out.push_str(part);
                }
                number(out, *n);
            }
            (StatValue::Histogram(d), _) => histogram(out, name, labels, d),
        }
    }
}

/// A piece is at least this long, apart from the last: what a system call takes at once.
const PIECE_BYTES: usize = 64 << 10;

/// Everything that was counted at one moment; an iterator over the pieces of its text.
///
/// *Cost*: gathering takes about 0.05 µs for each series, the text another 0.05 µs; both belong on the control runtime, which
/// does other things between two pieces.
pub struct Exposition {
    /// By name.
    families: std::vec::IntoIter<Family>,
    scopes: Vec<String>,
    /// The family that is written, its samples as far as they are left.
    current: Option<(Family, std::vec::IntoIter<Sample>)>,
}

impl Exposition {
    /// Gathers the values of all metrics that are wanted.
    pub fn gather(shared: &Shared, live: &Live, wanted: &Wanted<'_>) -> Self {
        let mut families = Families::default();
        let scopes = gather_stats(shared, live, wanted, &mut families);
        gather_requests(shared, &mut families);
        gather_tcp(shared, &mut families);
        gather_process(shared, live, &mut families);
        let mut shown = families.all;
        shown.retain(|family| !family.is_empty() && (wanted.name)(&family.name));
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        Self { families: shown.into_iter(), scopes, current: None }
    }
}

impl Iterator for Exposition {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let mut out = String::with_capacity(PIECE_BYTES + PIECE_BYTES / 8);
        while out.len() < PIECE_BYTES {
            if let Some((family, samples)) = &mut self.current {
                if let Some(sample) = samples.next() {
                    family.sample(&sample, &self.scopes, &mut out);
                    continue;
                }
                out.push_str(&family.lines);
            }
            let Some(mut family) = self.families.next() else {
                self.current = None;
                break;
            };
            family.head(&mut out);
            let samples = std::mem::take(&mut family.samples).into_iter();
            self.current = Some((family, samples));
        }
        (!out.is_empty()).then_some(out)
    }
}

/// A field of a stat set in one kind of scope, by the places of its names: they are constants.
type FieldKey = (*const u8, *const u8, usize);

/// What is the same for a field in a thousand clusters, and for a cluster in a hundred fields, is found once.
#[derive(Default)]
struct Known {
    /// Place in `found`.
    fields: HashMap<FieldKey, usize, foldhash::fast::RandomState>,
    /// Field, family, and the class of responses; those that follow one another in a scope stand side by side.
    found: Vec<(FieldKey, usize, Option<&'static str>)>,
    /// The place after that of the last field.
    next: usize,
    /// Kind and name of the last scope.
    scope: Option<(&'static str, String)>,
    /// Labels of all scopes.
    labels: Vec<String>,
}

impl Known {
    /// The place of a scope's labels.
    fn enter(&mut self, scope: &Scope<'_>) -> usize {
        if self.scope.as_ref().is_none_or(|(kind, name)| *kind != scope.kind || name != scope.name) {
            self.scope = Some((scope.kind, scope.name.to_owned()));
            let mut labels = LabelText::default();
            if !scope.label.is_empty() {
                labels.push_raw(scope.label, scope.name);
            }
            self.labels.push(labels.into_string());
        }
        self.labels.len().saturating_sub(1)
    }

    /// Family of a field, and the class of responses it counts.
    fn family(
        &mut self,
        scope: &Scope<'_>,
        field: &StatField,
        families: &mut Families,
    ) -> (usize, Option<&'static str>) {
        let key = (scope.prometheus.as_ptr(), field.name.as_ptr(), field.name.len());
        // Scopes of a kind have the same fields in the same order, nearly always.
        let place = match self.found.get(self.next) {
            Some((expected, ..)) if *expected == key => self.next,
            _ => *self.fields.entry(key).or_insert_with(|| {
                let (family, class) = family_of(scope, field, families);
                self.found.push((key, family, class));
                self.found.len() - 1
            }),
        };
        self.next = place + 1;
        self.found.get(place).map_or((0, None), |(_, family, class)| (*family, *class))
    }
}

/// Gathers the values of all stat sets; returns the labels that they refer to.
fn gather_stats(shared: &Shared, live: &Live, wanted: &Wanted<'_>, families: &mut Families) -> Vec<String> {
    let mut known = Known::default();
    collect(shared, live, &mut |scope, field, value| {
        // The unit of this one is no base unit; the expiry itself is exposed instead.
        if field.name == "days_until_first_cert_expiring" || (wanted.used_only && is_unused(&value)) {
            return;
        }
        let labels = known.enter(scope);
        let (family, class) = known.family(scope, field, families);
        if let Some(family) = families.all.get_mut(family) {
            family.samples.push(Sample { scope: labels, class, value });
        }
    });
    known.labels
}

/// The family that a field goes to, and the class of responses it counts.
fn family_of(scope: &Scope<'_>, field: &StatField, families: &mut Families) -> (usize, Option<&'static str>) {
    let (name, class) = field_name(scope.prometheus, field.name, field.kind == StatKind::Counter);
    let kind = match field.kind {
        StatKind::Counter if name.ends_with("_total") => "counter",
        // An Envoy name without the suffix that Prometheus expects of counters.
        StatKind::Counter => "untyped",
        StatKind::Gauge if name.ends_with("_total") => "untyped",
        StatKind::Gauge => "gauge",
        StatKind::Histogram => "histogram",
    };
    let help = if class.is_some() { "Responses by class" } else { field.help };
    (families.number(&name, kind, help), class)
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
    out.push_str(name);
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    number(out, value);
}

/// A space, the value and the end of the line.
fn number(out: &mut String, value: u64) {
    match u8::try_from(value) {
        // Most values of most clusters.
        Ok(digit @ 0..10) => {
            out.push(' ');
            out.push(char::from(b'0' + digit));
            out.push('\n');
        }
        _ => drop(writeln!(out, " {value}")),
    }
}

/// [`BUCKET_BOUNDS_THOUSANDTHS`] as they are written.
const BOUNDS: [&str; BUCKET_BOUNDS_THOUSANDTHS.len()] = [
    "0.5", "1", "5", "10", "25", "50", "100", "250", "500", "1000", "2500", "5000", "10000", "30000",
    "60000", "300000", "600000", "1800000", "3600000",
];

fn histogram(out: &mut String, name: &str, labels: &str, distribution: &Distribution) {
    let separator = if labels.is_empty() { "" } else { "," };
    let start = [name, "_bucket{", labels, separator, "le=\""].concat();
    let bounds = BOUNDS.into_iter().chain(["+Inf"]);
    let mut cumulated = 0_u64;
    for (bound, n) in bounds.zip(&distribution.buckets) {
        cumulated = cumulated.wrapping_add(*n);
        out.push_str(&start);
        out.push_str(bound);
        out.push_str("\"}");
        number(out, cumulated);
    }
    let braced = if labels.is_empty() { String::new() } else { ["{", labels, "}"].concat() };
    if distribution.sum_thousandths == 0 {
        for part in [name, "_sum", &braced, " 0\n"] {
            out.push_str(part);
        }
    } else {
        let _ = writeln!(out, "{name}_sum{braced} {}", distribution.sum_thousandths as f64 / 1000.0);
    }
    for part in [name, "_count", &braced] {
        out.push_str(part);
    }
    number(out, cumulated);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_written_as_they_are() {
        let written: Vec<String> =
            BUCKET_BOUNDS_THOUSANDTHS.iter().map(|bound| (*bound as f64 / 1000.0).to_string()).collect();
        assert_eq!(written, BOUNDS);
    }

    #[test]
    fn numbers_of_any_length_are_written() {
        let mut out = String::new();
        [0, 9, 10, 255, 256, u64::MAX].into_iter().for_each(|n| number(&mut out, n));
        assert_eq!(out, " 0\n 9\n 10\n 255\n 256\n 18446744073709551615\n");
    }
}
