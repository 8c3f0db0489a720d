//! Names of metrics that are no field of a stat set, and how fields are named in Prometheus.
//!
//! Envoy's and Istio's names are kept. Where such a name breaks a Prometheus convention, the exposition adapts without
//! renaming (a counter without `_total` is exposed untyped); names with an abbreviated unit lose it.

/// Name, type and meaning of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name in Prometheus.
    pub name: &'static str,
    /// `counter`, `gauge`, `histogram` or `untyped`.
    pub kind: &'static str,
    /// What it is.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($ident:ident = $name:literal, $kind:literal, $help:literal;)*) => {
        $(#[doc = $help] pub const $ident: Metric = Metric { name: $name, kind: $kind, help: $help };)*

        /// All of them.
        pub const ALL: &[Metric] = &[$($ident,)*];
    };
}

metrics! {
    ISTIO_REQUESTS = "istio_requests_total", "counter", "Requests, by both ends' identity and the outcome";
    ISTIO_DURATION = "istio_request_duration_milliseconds", "histogram", "How long requests took";
    ISTIO_REQUEST_BYTES = "istio_request_bytes", "histogram", "Sizes of request bodies";
    ISTIO_RESPONSE_BYTES = "istio_response_bytes", "histogram", "Sizes of response bodies";
    ISTIO_TCP_OPENED = "istio_tcp_connections_opened_total", "counter", "TCP connections opened, by both ends' identity";
    ISTIO_TCP_CLOSED = "istio_tcp_connections_closed_total", "counter", "TCP connections closed";
    ISTIO_TCP_SENT = "istio_tcp_sent_bytes_total", "counter", "Bytes sent to the client over TCP connections";
    ISTIO_TCP_RECEIVED = "istio_tcp_received_bytes_total", "counter", "Bytes received from the client over TCP connections";
    ISTIO_BUILD = "istio_build", "gauge", "Always 1; labels say which build this is";
    CERT_EXPIRY = "outrigger_certificate_expiry_timestamp_seconds", "gauge", "When a certificate in use ends, seconds since 1970";
    PROCESS_START = "process_start_time_seconds", "gauge", "When the process started, seconds since 1970";
    PROCESS_MEMORY = "process_resident_memory_bytes", "gauge", "Resident memory of the process";
    PROCESS_CPU = "process_cpu_seconds_total", "counter", "Processor time of the process, user and system";
    PROCESS_FDS = "process_open_fds", "gauge", "Open file descriptors";
}

/// Prometheus' name of a field of a stat set below `prefix`, as in `envoy_cluster` and `ssl.handshake`, and the class of
/// responses it counts where its name ends in one (`_2xx`).
pub fn field_name(prefix: &str, field: &str, is_counter: bool) -> (String, Option<&'static str>) {
    if field.starts_with("outrigger_") {
        let total = if is_counter { "_total" } else { "" };
        return (format!("{}{total}", field.replace('.', "_")), None);
    }
    let class = ["1", "2", "3", "4", "5"].into_iter().find(|class| {
        field
            .strip_suffix("xx")
            .and_then(|rest| rest.strip_suffix(class))
            .is_some_and(|rest| rest.ends_with("_rq_"))
    });
    let mut name = String::with_capacity(prefix.len() + field.len() + 1);
    name.push_str(prefix);
    name.push('_');
    match class {
        Some(_) => {
            name.push_str(field.get(..field.len() - 3).unwrap_or(field));
            name.push_str("xx");
        }
        // Prometheus wants no abbreviated units; the help text says that these are milliseconds.
        None => name.push_str(&field.strip_suffix("_ms").unwrap_or(field).replace('.', "_")),
    }
    (name, class)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_follow_envoys_scheme() {
        let name = |prefix, field, counter| field_name(prefix, field, counter).0;
        assert_eq!(name("envoy_cluster", "ssl.handshake", true), "envoy_cluster_ssl_handshake");
        assert_eq!(name("envoy_http", "downstream_rq_total", true), "envoy_http_downstream_rq_total");
        assert_eq!(
            name("envoy_cluster", "upstream_cx_connect_ms", false),
            "envoy_cluster_upstream_cx_connect"
        );
        assert_eq!(name("envoy_server", "outrigger_defects", true), "outrigger_defects_total");
        assert_eq!(
            field_name("envoy_http", "downstream_rq_5xx", true),
            ("envoy_http_downstream_rq_xx".to_owned(), Some("5"))
        );
    }

    #[test]
    fn names_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(!ALL.iter().skip(i + 1).any(|b| a.name == b.name), "{} twice", a.name);
        }
    }
}
