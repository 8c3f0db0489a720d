//! The agent's counters, in Prometheus' text format.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! metrics {
    ($($kind:ident $field:ident = $name:literal, $help:literal;)*) => {
        /// See the module.
        #[derive(Debug, Default)]
        pub struct Metrics {
            $(#[doc = $help] pub $field: AtomicU64,)*
        }

        impl Metrics {
            /// All of them, as `/metrics` shows them.
            pub fn render(&self) -> String {
                let mut out = String::new();
                $(
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "# HELP {} {}", $name, $help);
                    let _ = writeln!(out, "# TYPE {} {}", $name, stringify!($kind));
                    let _ = writeln!(out, "{} {}", $name, self.$field.load(Ordering::Relaxed));
                )*
                out
            }
        }
    };
}

metrics! {
    gauge docker_connected = "outrigger_agent_docker_connected", "1 while docker's events are followed.";
    counter docker_reconnects = "outrigger_agent_docker_reconnects_total", "Times that docker's events ended.";
    counter events = "outrigger_agent_events_total", "Events of tasks and sidecars.";
    counter reconciles = "outrigger_agent_reconciles_total", "Looks at everything.";
    gauge containers = "outrigger_agent_containers", "Containers that are cared for.";
    counter containers_over_limit = "outrigger_agent_containers_over_limit_total", "Containers not cared for because there are too many.";
    counter members_refused = "outrigger_agent_members_refused_total", "Containers that asked to be members and cannot be.";
    counter sidecars_created = "outrigger_agent_sidecars_created_total", "Sidecars made.";
    counter sidecars_restarted = "outrigger_agent_sidecars_restarted_total", "Sidecars started again after they had ended.";
    counter sidecars_removed = "outrigger_agent_sidecars_removed_total", "Sidecars removed.";
    counter rules_installed = "outrigger_agent_rules_installed_total", "Times that rules were written into a network namespace.";
    counter rules_removed = "outrigger_agent_rules_removed_total", "Times that rules were taken out of one.";
    counter rules_failed = "outrigger_agent_rules_failed_total", "Times that rules could not be written or removed.";
    counter withdrawals = "outrigger_agent_withdrawals_total", "Instances taken out of the registry.";
    counter withdrawals_failed = "outrigger_agent_withdrawals_failed_total", "Instances that could not be taken out; their leases end by themselves.";
    counter rounds_failed = "outrigger_agent_rounds_failed_total", "Rounds of work on one container that failed and are repeated.";
    gauge identities_held = "outrigger_agent_identities", "Identities a certificate is held for.";
    gauge identities_missing = "outrigger_agent_identities_missing", "Identities without a certificate.";
}

impl Metrics {
    /// One more.
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A value of now.
    pub fn set(gauge: &AtomicU64, value: usize) {
        gauge.store(u64::try_from(value).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_shown_with_their_kinds() {
        let metrics = Metrics::default();
        Metrics::count(&metrics.sidecars_created);
        Metrics::set(&metrics.containers, 3);
        let text = metrics.render();
        assert!(text.contains("# TYPE outrigger_agent_containers gauge\noutrigger_agent_containers 3\n"));
        assert!(text.contains("# TYPE outrigger_agent_sidecars_created_total counter\noutrigger_agent_sidecars_created_total 1\n"));
    }
}
