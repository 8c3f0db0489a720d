//! What the mesh's proxies tell of the traffic: access logs and traces, as the service was started.

use std::net::IpAddr;

use outrigger_plan::MeshTracing;
use outrigger_traffic::config::{AccessLog, AccessLogFormat, AccessLogSink, EndpointAddress, Fraction};
use serde_json::{Map, Value};

/// See the module. The default: nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observing {
    /// Access log of every proxy.
    pub access_log: Vec<AccessLog>,
    /// Traces of every proxy.
    pub tracing: Option<MeshTracing>,
}

/// Fields of a JSON line. Names are those of Istio's JSON log where it has the field.
const JSON_FIELDS: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("method", "%REQ(:METHOD)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("attempts", "%UPSTREAM_REQUEST_ATTEMPT_COUNT%"),
    ("route_name", "%ROUTE_NAME%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("source_principal", "%DOWNSTREAM_PEER_URI_SAN%"),
    ("destination_principal", "%UPSTREAM_PEER_URI_SAN%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("trace_id", "%TRACE_ID%"),
];

/// An access log in JSON lines: `stdout`, `stderr` or the absolute path of a file.
///
/// # Errors
/// Anything else.
pub fn json_access_log(to: &str) -> Result<AccessLog, String> {
    let sink = match to {
        "stdout" => AccessLogSink::Stdout,
        "stderr" => AccessLogSink::Stderr,
        path if path.starts_with('/') => AccessLogSink::File(path.to_owned()),
        _ => return Err("must be stdout, stderr or an absolute path".to_owned()),
    };
    let fields: Map<String, Value> =
        JSON_FIELDS.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    Ok(AccessLog { sink, format: AccessLogFormat::Json(fields), filter: None })
}

/// A collector, `HOST:PORT`.
///
/// # Errors
/// Anything else.
pub fn collector(text: &str) -> Result<EndpointAddress, String> {
    if let Ok(address) = text.parse() {
        return Ok(EndpointAddress::Socket(address));
    }
    let wrong = || "must be HOST:PORT".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(wrong)?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || !host.chars().all(is_name) || host.parse::<IpAddr>().is_ok() {
        return Err(wrong());
    }
    Ok(EndpointAddress::Name(host.to_owned(), port))
}

/// A share in percent, with up to four decimals.
///
/// # Errors
/// What is no number from 0 to 100.
pub fn sampling(text: &str) -> Result<Fraction, String> {
    let percent: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if !(0.0..=100.0).contains(&percent) {
        return Err("must be from 0 to 100".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    Ok(Fraction::from_millionths((percent * 10_000.0).round() as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_read_or_refused() {
        assert_eq!(collector("10.0.0.9:4317"), Ok(EndpointAddress::Socket("10.0.0.9:4317".parse().unwrap())));
        assert_eq!(collector("otel.internal:4317"), Ok(EndpointAddress::Name("otel.internal".into(), 4317)));
        for bad in [
            "",
            "otel",
            "otel:",
            ":4317",
            "otel:0",
            "otel:99999",
            "http://otel:4317",
            "10.0.0.9",
            "10.0.0.9:x",
        ] {
            assert!(collector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn shares_are_read_or_refused() {
        assert_eq!(sampling("100"), Ok(Fraction::ONE));
        assert_eq!(sampling("0.5"), Ok(Fraction::from_millionths(5_000)));
        for bad in ["", "-1", "100.1", "NaN", "1%"] {
            assert!(sampling(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn logs_go_to_known_places_only() {
        assert_eq!(
            json_access_log("/var/log/mesh.log").unwrap().sink,
            AccessLogSink::File("/var/log/mesh.log".into())
        );
        assert!(json_access_log("stdin").is_err() && json_access_log("log/mesh").is_err());
    }
}
