//! Names of what a scrape shows, apart from the fields of the stat sets, which name themselves (see [`super::sets`]).
//!
//! Envoy's names are kept. Where such a name breaks a Prometheus convention, the exposition adapts without renaming: a
//! counter without `_total` is exposed untyped. Only names with an abbreviated unit get another name here.

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
    SERVER_LIVE = "envoy_server_live", "gauge", "1 while the proxy serves, 0 while it drains";
    SERVER_STATE = "envoy_server_state", "gauge", "0 live, 1 draining, 2 waiting for its first configuration";
    SERVER_UPTIME = "envoy_server_uptime", "gauge", "Seconds since the start";
    SERVER_MEMORY = "envoy_server_memory_physical_size", "gauge", "Resident memory of the process in bytes";
    SERVER_CERT_DAYS = "envoy_server_days_until_first_cert_expiring", "gauge", "Whole days until the first certificate in use ends";
    CERT_EXPIRY = "outrigger_certificate_expiry_timestamp_seconds", "gauge", "When a certificate in use ends, seconds since 1970";
    LISTENERS_ACTIVE = "envoy_listener_manager_total_listeners_active", "gauge", "Listeners in use";
    CLUSTERS_ACTIVE = "envoy_cluster_manager_active_clusters", "gauge", "Clusters in use";
    MEMBERSHIP_TOTAL = "envoy_cluster_membership_total", "gauge", "Hosts of the cluster";
    MEMBERSHIP_HEALTHY = "envoy_cluster_membership_healthy", "gauge", "Hosts that are neither unhealthy nor ejected";
    MEMBERSHIP_DEGRADED = "envoy_cluster_membership_degraded", "gauge", "Hosts declared degraded";
    EJECTIONS_ACTIVE = "envoy_cluster_outlier_detection_ejections_active", "gauge", "Hosts ejected now";
    BREAKER_CX_OPEN = "envoy_cluster_circuit_breakers_cx_open", "gauge", "1 while no further connection is allowed";
    BREAKER_PENDING_OPEN = "envoy_cluster_circuit_breakers_rq_pending_open", "gauge", "1 while no further request may wait";
    BREAKER_RQ_OPEN = "envoy_cluster_circuit_breakers_rq_open", "gauge", "1 while no further request is allowed";
    BREAKER_RETRY_OPEN = "envoy_cluster_circuit_breakers_rq_retry_open", "gauge", "1 while no further retry is allowed";
    PROCESS_START = "process_start_time_seconds", "gauge", "When the process started, seconds since 1970";
    PROCESS_MEMORY = "process_resident_memory_bytes", "gauge", "Resident memory of the process";
    PROCESS_CPU = "process_cpu_seconds_total", "counter", "Processor time of the process, user and system";
    PROCESS_FDS = "process_open_fds", "gauge", "Open file descriptors";
}

/// Prometheus' name of a field of a stat set below `prefix`, as in `envoy_cluster` and `ssl.handshake`.
pub fn field_name(prefix: &str, field: &str) -> String {
    if let Some(own) = field.strip_prefix("outrigger_") {
        return format!("outrigger_{own}");
    }
    let mut name = String::with_capacity(prefix.len() + field.len() + 1);
    name.push_str(prefix);
    name.push('_');
    // Prometheus wants no abbreviated units; Envoy's `_ms` histograms are of milliseconds, said in their help text.
    name.push_str(&field.strip_suffix("_ms").unwrap_or(field).replace('.', "_"));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_names_follow_envoys_scheme() {
        assert_eq!(field_name("envoy_cluster", "ssl.handshake"), "envoy_cluster_ssl_handshake");
        assert_eq!(field_name("envoy_http", "downstream_rq_total"), "envoy_http_downstream_rq_total");
        assert_eq!(field_name("envoy_cluster", "upstream_cx_connect_ms"), "envoy_cluster_upstream_cx_connect");
        assert_eq!(field_name("envoy_server", "outrigger_defects"), "outrigger_defects");
    }

    #[test]
    fn names_are_unique() {
        for (i, a) in ALL.iter().enumerate() {
            assert!(!ALL.iter().skip(i + 1).any(|b| a.name == b.name), "{} twice", a.name);
        }
    }
}
