//! The table of metrics and response flags for the documentation, made from the same constants as the metrics.

use super::flags;
use super::names::{self, field_name};
use super::sets::{
    ClusterStats, DnsStats, HttpStats, ListenerFilterStats, ListenerStats, ServerStats, TcpStats,
};
use super::stats::{StatField, StatKind, StatSet};
use crate::overload::OverloadStats;
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Markdown: every counted metric by area, then the response flags.
pub fn markdown() -> String {
    let mut out = String::new();
    for (title, label, prefix, fields) in [
        ("Listeners", "`envoy_listener_address`", "envoy_listener", ListenerStats::FIELDS),
        ("Listener filters", "none", "envoy", ListenerFilterStats::FIELDS),
        ("DNS listeners", "`envoy_dns_filter_prefix`", "envoy_dns_filter", DnsStats::FIELDS),
        ("HTTP connection managers", "`envoy_http_conn_manager_prefix`", "envoy_http", HttpStats::FIELDS),
        ("TCP proxies", "`envoy_tcp_prefix`", "envoy_tcp", TcpStats::FIELDS),
        ("Clusters", "`envoy_cluster_name`", "envoy_cluster", ClusterStats::FIELDS),
        ("Process", "none", "envoy_server", ServerStats::FIELDS),
        ("Overload", "none", "envoy_overload", OverloadStats::FIELDS),
    ] {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "### {title}\n\nLabel: {label}\n\n| metric | type | meaning |\n|---|---|---|");
        write_fields(prefix, fields, &mut out);
        out.push('\n');
    }
    out.push_str(
        "### Requests by identity, certificates, process\n\n| metric | type | meaning |\n|---|---|---|\n",
    );
    for metric in names::ALL {
        let _ = writeln!(out, "| `{}` | {} | {} |", metric.name, metric.kind, metric.help);
    }
    out.push_str("\n### Response flags\n\n| code | long name |\n|---|---|\n");
    for (_, short, long) in flags::ALL {
        let _ = writeln!(out, "| `{short}` | `{long}` |");
    }
    out
}

fn write_fields(prefix: &str, fields: &[StatField], out: &mut String) {
    let mut seen = BTreeSet::new();
    for field in fields {
        let (name, class) = field_name(prefix, field.name, field.kind == StatKind::Counter);
        if !seen.insert(name.clone()) {
            continue;
        }
        let kind = match field.kind {
            StatKind::Counter if name.ends_with("_total") => "counter",
            StatKind::Counter => "untyped",
            StatKind::Gauge => "gauge",
            StatKind::Histogram => "histogram, ms",
        };
        let help = if class.is_some() { "Responses by `envoy_response_code_class`" } else { field.help };
        let _ = writeln!(out, "| `{name}` | {kind} | {help} |");
    }
}
