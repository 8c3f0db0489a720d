//! Values of the command operators for a request or connection that is over.

use super::Telemetry;
use super::access_log::{grpc_of, start_time};
use super::record::{ConnectionRecord, RequestRecord, Timeline, UpstreamFacts};
use crate::io::PeerCert;
use crate::listener::ConnFacts;
use crate::live::{LiveChain, LiveCluster};
use crate::text::Digits;
use jiff::Timestamp;
use outrigger_traffic::template::{AddressPart, Command, Facts, GrpcStatusFormat, PathSource, TimeUnit};
use outrigger_traffic::view::{path_only, query_only};
use serde_json::Value;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// A request's values.
pub(super) struct RequestView<'a> {
    pub(super) record: &'a RequestRecord<'a>,
    pub(super) total: Duration,
    pub(super) telemetry: &'a Telemetry,
    /// It is over, and this is its line in a log.
    pub(super) is_logged: bool,
}

/// A TCP connection's values.
pub(super) struct ConnectionView<'a> {
    pub(super) record: &'a ConnectionRecord<'a>,
    pub(super) telemetry: &'a Telemetry,
}

impl Facts for RequestView<'_> {
    fn write_json(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        let Command::DynamicMetadata(path) = command else { return false };
        learned(self.record, path).is_some_and(|value| serde_json::to_writer(out, value).is_ok())
    }

    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        let r = self.record;
        let t = r.timeline;
        match command {
            Command::RequestHeader { name, fallback, without_query } => {
                let value = self.request_header(name).or_else(|| self.request_header(fallback.as_deref()?));
                let cut = |v: &'_ [u8]| if *without_query { v.iter().position(|b| *b == b'?') } else { None };
                write_bytes(out, value.map(|v| v.get(..cut(v).unwrap_or(v.len())).unwrap_or(v)))
            }
            Command::Path { .. }
            | Command::QueryParam(_)
            | Command::QueryParams
            | Command::CommonDuration { .. } => self.write_part(command, out),
            Command::UpstreamConnectionPoolReadyDuration => {
                write_millis(out, t.since_start(t.upstream_start))
            }
            Command::AccessLogType => {
                write_text(out, if self.is_logged { "DownstreamEnd" } else { "NotSet" })
            }
            Command::ResponseHeader { name, fallback } => {
                let field = |name: &str| r.response.and_then(|head| head.fields.get(name.as_bytes()));
                if &**name == ":status" {
                    return write_number(out, (r.status != 0).then_some(r.status.into()));
                }
                write_bytes(out, field(name).or_else(|| field(fallback.as_deref()?)))
            }
            Command::ResponseTrailer { name, fallback } => {
                let field = |name: &str| r.trailers.and_then(|trailers| trailers.get(name.as_bytes()));
                write_bytes(out, field(name).or_else(|| field(fallback.as_deref()?)))
            }
            Command::GrpcStatus(format) => {
                // Of a gRPC request without one, the one that its HTTP status stands for.
                let implied = || (r.is_grpc && r.status != 0).then(|| grpc_of(r.status));
                write_grpc(out, r.grpc_status.or_else(implied), *format)
            }
            // What is answered here is known to the answer alone; a log has the empty text, as in Envoy.
            Command::LocalReplyBody => {
                out.extend_from_slice(r.local_body.unwrap_or_default());
                true
            }
            Command::DownstreamRemoteAddress(part) => write_address(out, Some(r.remote), *part),
            // 0 where none was sent, as in Envoy.
            Command::ResponseCode => write_number(out, Some(r.status.into())),
            Command::ResponseCodeDetails => write_text(out, r.details),
            Command::ResponseFlags => {
                let start = out.len();
                r.flags.write_short(out);
                out.len() > start
            }
            Command::ResponseFlagsLong => {
                let start = out.len();
                r.flags.write_long(out);
                out.len() > start
            }
            Command::BytesReceived => write_number(out, Some(r.request_body_bytes)),
            Command::BytesSent => write_number(out, Some(r.response_body_bytes)),
            Command::RequestHeadersBytes => write_number(out, u64::try_from(r.request.byte_size()).ok()),
            Command::ResponseHeadersBytes => {
                write_number(out, r.response.and_then(|head| u64::try_from(head.byte_size()).ok()))
            }
            Command::Duration => write_millis(out, Some(self.total)),
            Command::RequestDuration => write_millis(out, t.since_start(t.request_end)),
            Command::RequestTxDuration => write_millis(out, t.since_start(t.upstream_request_end)),
            Command::ResponseDuration => write_millis(out, t.since_start(t.response_start)),
            Command::ResponseTxDuration => write_millis(
                out,
                t.since_start(t.response_start).map(|first| self.total.saturating_sub(first)),
            ),
            Command::Protocol => write_text(out, r.request.version().as_str()),
            Command::RouteName => write_text(out, r.route),
            Command::StreamId => write_bytes(out, r.request.fields.get(b"x-request-id")),
            Command::TraceId => match r.trace {
                Some(trace) => {
                    trace.write_trace_id(out);
                    true
                }
                None => false,
            },
            Command::SpanId => match r.trace {
                Some(trace) => write!(out, "{:016x}", trace.span_id).is_ok(),
                None => false,
            },
            Command::UpstreamRequestAttemptCount => write_number(out, Some(r.attempts.into())),
            Command::DynamicMetadata(path) => match learned(r, path) {
                Some(Value::String(text)) => write_text(out, text),
                Some(Value::Null) | None => false,
                Some(value) => serde_json::to_writer(out, value).is_ok(),
            },
            other => {
                write_upstream(other, r.cluster, r.upstream, out)
                    || write_connection(other, r.connection, r.chain, out)
                    || write_common(other, t, self.telemetry, out)
            }
        }
    }
}

/// What filters learned of a request, at a place.
fn learned<'a>(record: &RequestRecord<'a>, path: &[Box<str>]) -> Option<&'a Value> {
    let (namespace, path) = path.split_first()?;
    record.metadata?.find(namespace, path)
}

impl RequestView<'_> {
    /// Parts of the target, and times between two moments.
    fn write_part(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        let r = self.record;
        let t = r.timeline;
        match command {
            Command::Path { query, source } => {
                let original = || r.original_path.or_else(|| r.request.fields.get(b"x-envoy-original-path"));
                let path = match source {
                    PathSource::Original => original(),
                    PathSource::Current => Some(r.request.path()),
                    PathSource::OriginalOrCurrent => original().or_else(|| Some(r.request.path())),
                };
                write_bytes(out, path.map(|path| if *query { path } else { path_only(path) }))
            }
            Command::QueryParam(name) => {
                let query = query_only(r.request.path()).unwrap_or_default();
                let pairs = query.split(|b| *b == b'&').map(|pair| {
                    let end = pair.iter().position(|b| *b == b'=').unwrap_or(pair.len());
                    (pair.get(..end).unwrap_or_default(), pair.get(end + 1..).unwrap_or_default())
                });
                let value =
                    pairs.into_iter().find(|(key, _)| *key == name.as_bytes()).map(|(_, value)| value);
                value.is_some_and(|value| {
                    out.extend(percent_encoding::percent_decode(value));
                    true
                })
            }
            Command::QueryParams => {
                write_bytes(out, query_only(r.request.path()).filter(|query| !query.is_empty()))
            }
            Command::CommonDuration { from, to, unit } => {
                let between =
                    t.at(*from).zip(t.at(*to)).and_then(|(from, to)| to.checked_duration_since(from));
                let count = between.map(|time| match unit {
                    TimeUnit::Milliseconds => time.as_millis(),
                    TimeUnit::Microseconds => time.as_micros(),
                    TimeUnit::Nanoseconds => time.as_nanos(),
                });
                write_number(out, count.map(|count| u64::try_from(count).unwrap_or(u64::MAX)))
            }
            _ => false,
        }
    }

    fn request_header(&self, name: &str) -> Option<&[u8]> {
        let head = self.record.request;
        let value = match name {
            ":method" => head.method_bytes(),
            ":path" => head.path(),
            ":authority" => head.authority(),
            ":scheme" => head.scheme().as_bytes(),
            "x-envoy-original-path" => {
                return self.record.original_path.or_else(|| head.fields.get(name.as_bytes()));
            }
            other => return head.fields.get(other.as_bytes()),
        };
        (!value.is_empty()).then_some(value)
    }
}

impl Facts for ConnectionView<'_> {
    fn write(&self, command: &Command, out: &mut Vec<u8>) -> bool {
        let r = self.record;
        match command {
            Command::ResponseFlags => {
                let start = out.len();
                r.flags.write_short(out);
                out.len() > start
            }
            Command::ResponseFlagsLong => {
                let start = out.len();
                r.flags.write_long(out);
                out.len() > start
            }
            Command::AccessLogType => write_text(out, "TcpConnectionEnd"),
            // A connection has no status; Envoy logs 0.
            Command::ResponseCode => write_number(out, Some(0)),
            Command::DownstreamRemoteAddress(part) => write_address(out, Some(r.connection.remote), *part),
            Command::BytesReceived => write_number(out, Some(r.received_bytes)),
            Command::BytesSent => write_number(out, Some(r.sent_bytes)),
            Command::Duration => write_millis(out, Some(r.timeline.total())),
            Command::UpstreamRequestAttemptCount => write_number(out, Some(r.attempts.into())),
            other => {
                write_upstream(other, r.cluster, r.upstream, out)
                    || write_connection(other, r.connection, r.chain, out)
                    || write_common(other, r.timeline, self.telemetry, out)
            }
        }
    }
}

/// Values that say where it went.
fn write_upstream(
    command: &Command,
    cluster: Option<&Arc<LiveCluster>>,
    upstream: Option<&UpstreamFacts>,
    out: &mut Vec<u8>,
) -> bool {
    let tls = upstream.and_then(|u| u.tls.as_ref());
    let peer = tls.and_then(|tls| tls.peer.as_ref());
    match command {
        Command::UpstreamCluster => match cluster {
            Some(c) if c.cluster.config.alt_stat_name.is_empty() => write_text(out, &c.name),
            Some(c) => write_text(out, &c.cluster.config.alt_stat_name),
            None => false,
        },
        Command::UpstreamClusterRaw => cluster.is_some_and(|c| write_text(out, &c.name)),
        Command::UpstreamRemoteAddress(part) => write_address(out, upstream.map(|u| u.host.address), *part),
        Command::UpstreamLocalAddress(part) => write_address(out, upstream.and_then(|u| u.local), *part),
        Command::UpstreamHostName => match upstream {
            Some(u) if u.host.hostname.is_empty() => {
                write_address(out, Some(u.host.address), AddressPart::Both)
            }
            Some(u) => write_text(out, &u.host.hostname),
            None => false,
        },
        Command::UpstreamHostNameWithoutPort => match upstream {
            Some(u) if u.host.hostname.is_empty() => {
                write_address(out, Some(u.host.address), AddressPart::WithoutPort)
            }
            Some(u) => write_text(out, &u.host.hostname),
            None => false,
        },
        Command::UpstreamPeerIssuer => peer.is_some_and(|p| write_text(out, &p.issuer)),
        Command::UpstreamPeerDnsSan => peer.is_some_and(|p| write_list(out, &p.dns_sans)),
        Command::UpstreamTransportFailureReason => upstream.is_some_and(|u| write_text(out, &u.failure)),
        Command::UpstreamProtocol => upstream.is_some_and(|u| write_text(out, u.protocol.as_str())),
        Command::UpstreamTlsVersion => tls.is_some_and(|tls| write_text(out, tls.version)),
        Command::UpstreamTlsCipher => tls.is_some_and(|tls| write_text(out, tls.cipher)),
        Command::UpstreamPeerUriSan => peer.is_some_and(|p| write_list(out, &p.uri_sans)),
        Command::UpstreamPeerSubject => peer.is_some_and(|p| write_text(out, &p.subject)),
        _ => false,
    }
}

/// Values that say where it came from.
fn write_connection(command: &Command, facts: &ConnFacts, chain: &LiveChain, out: &mut Vec<u8>) -> bool {
    let tls = facts.tls.as_ref();
    let peer: Option<&Arc<PeerCert>> = tls.and_then(|tls| tls.peer.as_ref());
    match command {
        Command::DownstreamDirectRemoteAddress(part) => write_address(out, Some(facts.peer), *part),
        Command::DownstreamLocalAddress(part) => write_address(out, Some(facts.local), *part),
        Command::RequestedServerName => facts.server_name.as_ref().is_some_and(|name| write_text(out, name)),
        Command::ListenerName => write_text(out, &facts.listener),
        Command::FilterChainName => write_text(out, &facts.chain),
        Command::ConnectionId => write_number(out, Some(facts.id)),
        Command::DownstreamTlsVersion => tls.is_some_and(|tls| write_text(out, tls.version)),
        Command::DownstreamTlsCipher => tls.is_some_and(|tls| write_text(out, tls.cipher)),
        Command::DownstreamPeerUriSan => peer.is_some_and(|p| write_list(out, &p.uri_sans)),
        Command::DownstreamPeerDnsSan => peer.is_some_and(|p| write_list(out, &p.dns_sans)),
        Command::DownstreamPeerSubject => peer.is_some_and(|p| write_text(out, &p.subject)),
        Command::DownstreamPeerIssuer => peer.is_some_and(|p| write_text(out, &p.issuer)),
        Command::DownstreamPeerSerial => peer.is_some_and(|p| write_text(out, &p.serial)),
        Command::DownstreamPeerFingerprint256 => peer.is_some_and(|p| write_text(out, &p.sha256)),
        Command::DownstreamLocalUriSan | Command::DownstreamLocalSubject => {
            let Some(own) = chain.tls.as_ref().and_then(|tls| tls.certificates().next()) else {
                return false;
            };
            match command {
                Command::DownstreamLocalSubject => write_text(out, &own.subject),
                _ => own.uri_sans.first().is_some_and(|uri| write_text(out, uri)),
            }
        }
        _ => false,
    }
}

/// Values that are the same for every kind of record.
fn write_common(command: &Command, timeline: &Timeline, telemetry: &Telemetry, out: &mut Vec<u8>) -> bool {
    match command {
        Command::StartTime(format) => write_time(out, telemetry.calendar(timeline.start), format.as_deref()),
        Command::EmitTime(format) => write_time(out, telemetry.calendar(Instant::now()), format.as_deref()),
        Command::Environment(variable) => {
            // What is not set is a text too, as in Envoy.
            write_text(out, std::env::var(&**variable).as_deref().unwrap_or("-"))
        }
        Command::Hostname => write_text(out, &telemetry.hostname),
        // What this proxy never has: session ids of TLS 1.3 say nothing, bodies of local replies are not kept,
        // a connection that failed its handshake has no record.
        _ => false,
    }
}

fn write_time(out: &mut Vec<u8>, at: SystemTime, format: Option<&str>) -> bool {
    if format.is_none() && put_rfc3339(out, at) {
        return true;
    }
    let at = Timestamp::try_from(at).unwrap_or_default();
    start_time(at, format).is_some_and(|text| write_text(out, &text))
}

/// Appends `2026-11-23T13:30:00.123Z`; false, with nothing done, for times outside of 1970 to 9999.
///
/// Every line of a log begins with a time, so that it is worth to write it without a general formatter. The date is
/// counted in eras of 400 years that begin in March, so that leap days come last.
fn put_rfc3339(out: &mut Vec<u8>, at: SystemTime) -> bool {
    let Ok(since) = at.duration_since(SystemTime::UNIX_EPOCH) else { return false };
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    if days >= 2_932_897 {
        return false;
    }
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let digit = |value: u64| b'0' + (value % 10) as u8;
    let two = |value: u64| [digit(value / 10), digit(value)];
    let ([y1, y2], [y3, y4]) = (two(year / 100), two(year));
    let ([m1, m2], [d1, d2]) = (two(month), two(day));
    let ([h1, h2], [n1, n2], [s1, s2]) = (two(second / 3_600), two(second / 60 % 60), two(second % 60));
    let milli = u64::from(since.subsec_millis());
    let (f1, [f2, f3]) = (digit(milli / 100), two(milli));
    out.extend_from_slice(&[
        y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'.', f1, f2,
        f3, b'Z',
    ]);
    true
}

fn write_bytes(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    value.is_some_and(|value| {
        out.extend_from_slice(value);
        true
    })
}

/// Appends a text; an empty one is absent.
fn write_text(out: &mut Vec<u8>, value: &str) -> bool {
    out.extend_from_slice(value.as_bytes());
    !value.is_empty()
}

fn write_list(out: &mut Vec<u8>, values: &[String]) -> bool {
    for (index, value) in values.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value.as_bytes());
    }
    !values.is_empty()
}

fn write_number(out: &mut Vec<u8>, value: Option<u64>) -> bool {
    value.is_some_and(|value| {
        put_decimal(out, value);
        true
    })
}

fn write_millis(out: &mut Vec<u8>, value: Option<Duration>) -> bool {
    write_number(out, value.map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX)))
}

fn put_decimal(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(Digits::default().write(value));
}

/// The one to three digits of an octet.
fn put_octet(out: &mut Vec<u8>, octet: u8) {
    if octet >= 100 {
        out.push(b'0' + octet / 100);
    }
    if octet >= 10 {
        out.push(b'0' + octet / 10 % 10);
    }
    out.push(b'0' + octet % 10);
}

fn write_address(out: &mut Vec<u8>, address: Option<SocketAddr>, part: AddressPart) -> bool {
    let Some(address) = address else { return false };
    match (part, address) {
        (AddressPart::Port, _) => put_decimal(out, address.port().into()),
        (AddressPart::Both, SocketAddr::V6(_)) => return write!(out, "{address}").is_ok(),
        (AddressPart::WithoutPort, SocketAddr::V6(v6)) => return write!(out, "{}", v6.ip()).is_ok(),
        (part, SocketAddr::V4(v4)) => {
            let [a, b, c, d] = v4.ip().octets();
            put_octet(out, a);
            for octet in [b, c, d] {
                out.push(b'.');
                put_octet(out, octet);
            }
            if part == AddressPart::Both {
                out.push(b':');
                put_decimal(out, v4.port().into());
            }
        }
    }
    true
}

/// gRPC's status names. Source: gRPC: status codes.
const GRPC: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn write_grpc(out: &mut Vec<u8>, status: Option<u32>, format: GrpcStatusFormat) -> bool {
    let Some(status) = status else { return false };
    let names = usize::try_from(status).ok().and_then(|index| GRPC.get(index));
    match (format, names) {
        (GrpcStatusFormat::Camel, Some((camel, _))) => write_text(out, camel),
        (GrpcStatusFormat::Snake, Some((_, snake))) => write_text(out, snake),
        (GrpcStatusFormat::Number, _) | (_, None) => write_number(out, Some(status.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_what_the_formatter_writes() {
        let mut rng = fastrand::Rng::with_seed(11);
        let days = [0, 58, 59, 60, 789, 790, 11_016, 11_017, 20_000, 47_540, 2_932_894];
        let random = (0..2_000).map(|_| rng.u64(0..2_932_895)); // the formatter's times end a day before the year 10000
        for day in days.into_iter().chain(random.collect::<Vec<_>>()) {
            let since = Duration::from_millis(day * 86_400_000 + rng.u64(0..86_400_000));
            let at = SystemTime::UNIX_EPOCH + since;
            let mut out = Vec::new();
            assert!(put_rfc3339(&mut out, at));
            let expected = start_time(Timestamp::try_from(at).unwrap(), None).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{since:?}");
        }
        let far = SystemTime::UNIX_EPOCH + Duration::from_secs(2_932_897 * 86_400);
        assert!(!put_rfc3339(&mut Vec::new(), far), "year 10000");
    }

    #[test]
    fn numbers_and_addresses_are_what_the_formatter_writes() {
        for value in [0, 1, 9, 10, 99, 100, 65_535, 1_234_567_890, u64::MAX - 1, u64::MAX] {
            let mut out = Vec::new();
            put_decimal(&mut out, value);
            assert_eq!(out, value.to_string().as_bytes());
        }
        for text in [
            "0.0.0.0:0",
            "127.0.0.1:80",
            "255.254.100.9:65535",
            "10.99.19.200:1",
            "[::1]:443",
            "[2001:db8::7]:1",
        ] {
            let address: SocketAddr = text.parse().unwrap();
            let written = |part| {
                let mut out = Vec::new();
                assert!(write_address(&mut out, Some(address), part));
                String::from_utf8(out).unwrap()
            };
            assert_eq!(written(AddressPart::Both), text);
            assert_eq!(written(AddressPart::WithoutPort), address.ip().to_string());
            assert_eq!(written(AddressPart::Port), address.port().to_string());
        }
    }
}
