//! What this service counts about itself, and how that is written for Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::source::status::{SourceStatus, State};

/// All counters and gauges. A value that is passed around, so that two services in one test do not mix.
#[derive(Default, Debug)]
pub struct Metrics {
    /// Connections open now, all ports.
    pub connections_active: AtomicI64,
    /// Connections closed at once because there were too many.
    pub connections_refused: AtomicU64,
    /// TLS handshakes that failed.
    pub handshakes_failed: AtomicU64,
    /// Connections closed before the TLS handshake because too many were under way, in all or from one source.
    pub handshakes_refused: AtomicU64,
    /// Connections without a client certificate closed because there were too many, in all or from one source.
    pub anonymous_refused: AtomicU64,
    /// Certificates signed for requests.
    pub certificates_signed: AtomicU64,
    /// Certificate requests refused.
    pub certificates_refused: AtomicU64,
    /// Workloads registered.
    pub registrations: AtomicU64,
    /// Registrations refused.
    pub registrations_refused: AtomicU64,
    /// Operator requests without a valid token.
    pub operator_unauthorized: AtomicU64,
    /// Applies stored.
    pub applies: AtomicU64,
    /// Applies refused.
    pub applies_refused: AtomicU64,
    /// Plans made, one per proxy and change.
    pub plans: AtomicU64,
    /// Plans that failed; the proxy keeps what it has.
    pub plans_failed: AtomicU64,
    /// Configurations acknowledged by proxies.
    pub acks: AtomicU64,
    /// Configurations rejected by proxies.
    pub nacks: AtomicU64,
    /// Proxies turned away because there are too many.
    pub proxies_refused: AtomicU64,
}

/// Values that are known elsewhere and read when somebody asks.
#[derive(Clone, Copy, Default, Debug)]
pub struct Gauges {
    /// Workloads under a lease.
    pub workloads: usize,
    /// Proxies connected.
    pub proxies: usize,
    /// The store's revision.
    pub revision: u64,
    /// Version of the trust bundle.
    pub trust_bundle_version: u64,
}

impl Metrics {
    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self, gauges: Gauges) -> String {
        let counters: [(&str, &str, &AtomicU64); 16] = [
            ("connections_refused", "Connections closed because of the limit.", &self.connections_refused),
            ("handshakes_failed", "TLS handshakes that failed.", &self.handshakes_failed),
            (
                "handshakes_refused",
                "Connections closed before the handshake: too many, in all or from one source.",
                &self.handshakes_refused,
            ),
            (
                "anonymous_refused",
                "Connections without a certificate closed: too many, in all or from one source.",
                &self.anonymous_refused,
            ),
            ("certificates_signed", "Certificates signed for requests.", &self.certificates_signed),
            ("certificates_refused", "Certificate requests refused.", &self.certificates_refused),
            ("registrations", "Workloads registered.", &self.registrations),
            ("registrations_refused", "Registrations refused.", &self.registrations_refused),
            (
                "operator_unauthorized",
                "Operator requests without a valid token.",
                &self.operator_unauthorized,
            ),
            ("applies", "Applies stored.", &self.applies),
            ("applies_refused", "Applies refused.", &self.applies_refused),
            ("plans", "Plans made, one per proxy and change.", &self.plans),
            ("plans_failed", "Plans that failed.", &self.plans_failed),
            ("acks", "Configurations acknowledged by proxies.", &self.acks),
            ("nacks", "Configurations rejected by proxies.", &self.nacks),
            ("proxies_refused", "Proxies turned away because of the limit.", &self.proxies_refused),
        ];
        let mut text = String::new();
        for (name, help, counter) in counters {
            let value = counter.load(Ordering::Relaxed);
            let name = format!("outrigger_control_{name}_total");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}");
        }
        let active = u64::try_from(self.connections_active.load(Ordering::Relaxed)).unwrap_or(0);
        let gauges: [(&str, &str, u64); 5] = [
            ("connections_active", "Connections open now.", active),
            ("workloads", "Workloads under a lease.", gauges.workloads as u64),
            ("proxies", "Proxies connected.", gauges.proxies as u64),
            ("revision", "Revision of the store.", gauges.revision),
            ("trust_bundle_version", "Version of the trust bundle.", gauges.trust_bundle_version),
        ];
        for (name, help, value) in gauges {
            let name = format!("outrigger_control_{name}");
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}");
        }
        text
    }
}

/// What a metric of a source is made from.
type Reading = fn(&SourceStatus) -> u64;

/// Metrics of sources: name, help, type, value.
const SOURCE_METRICS: &[(&str, &str, &str, Reading)] = &[
    ("synced", "1 while a source is up to date.", "gauge", |s| u64::from(s.state == State::Synced)),
    ("workloads", "Workloads of a source that count.", "gauge", |s| s.workloads as u64),
    ("unusable", "Objects of a source that cannot be used.", "gauge", |s| s.unusable_count as u64),
    ("over_limit", "Workloads of a source left out because of the limit.", "gauge", |s| s.over_limit as u64),
    ("last_sync_timestamp_seconds", "When a source was last up to date.", "gauge", |s| {
        u64::try_from(s.synced_at.unwrap_or(0) / 1_000).unwrap_or(0)
    }),
    ("unregistered_tasks", "External ECS tasks that nobody registered.", "gauge", |s| {
        s.drift.as_ref().map_or(0, |drift| drift.unregistered_count as u64)
    }),
    ("not_running_tasks", "Registered instances of ECS tasks that do not run.", "gauge", |s| {
        s.drift.as_ref().map_or(0, |drift| drift.not_running_count as u64)
    }),
    ("syncs_total", "Times all of a source was read.", "counter", |s| s.syncs),
    ("changes_total", "Changes taken in from a source.", "counter", |s| s.changes),
    ("failures_total", "Tries to read a source that failed.", "counter", |s| s.failures),
    ("throttled_total", "Calls that a source asked to be made later.", "counter", |s| s.throttled),
];

/// The metrics of sources, in the same format, with the labels `source` and `kind`.
pub fn render_sources(sources: &[SourceStatus]) -> String {
    let mut text = String::new();
    if sources.is_empty() {
        return text;
    }
    for (name, help, kind, read) in SOURCE_METRICS {
        let name = format!("outrigger_control_source_{name}");
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for source in sources {
            // Names are DNS labels: there is nothing to escape.
            let _ = writeln!(
                text,
                "{name}{{source=\"{}\",kind=\"{}\"}} {}",
                source.name,
                source.kind,
                read(source)
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::status::Tally;

    #[test]
    fn every_metric_has_help_type_and_value() {
        let metrics = Metrics::default();
        metrics.acks.fetch_add(3, Ordering::Relaxed);
        let text = metrics.render(Gauges { proxies: 2, ..Gauges::default() });
        assert!(
            text.contains("# TYPE outrigger_control_acks_total counter\noutrigger_control_acks_total 3\n")
        );
        assert!(text.contains("\noutrigger_control_proxies 2\n"));
        assert_eq!(text.lines().count() % 3, 0);
    }

    #[test]
    fn every_metric_is_documented() {
        let manual = include_str!("../../../docs/control.md");
        let source = SourceStatus::of("a", "file", &Tally::default(), 0);
        let text = Metrics::default().render(Gauges::default()) + &render_sources(&[source]);
        assert!(text.contains("\noutrigger_control_source_synced{source=\"a\",kind=\"file\"} 0\n"));
        for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let (name, kind) = line.split_once(' ').unwrap();
            assert!(manual.contains(&format!("| `{name}` | {kind} |")), "{name} is not in docs/control.md");
        }
    }
}
