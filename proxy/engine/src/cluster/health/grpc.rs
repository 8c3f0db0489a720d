//! Probes by `grpc.health.v1.Health/Check`. Source: gRPC health checking protocol; the two messages have one field each, so
//! they are written and read here by hand.

use super::http::{Answer, Request, add, authority};
use super::probe::scheme;
use crate::live::LiveCluster;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue, TE, USER_AGENT};
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{GrpcProbe, HealthCheck};
use outrigger_traffic::health::Found;
use std::io;

/// A longer answer is not one of the health service.
pub(super) const ANSWER_MAX: usize = 1024;

/// `HealthCheckResponse.SERVING`.
const SERVING: u64 = 1;

/// The call.
pub(super) fn request(
    cluster: &LiveCluster,
    host: &Host,
    rules: &HealthCheck,
    probe: &GrpcProbe,
) -> io::Result<Request> {
    let authority = authority(cluster, host, &probe.authority);
    let mut request = hyper::Request::builder()
        .method("POST")
        .uri(format!("{}://{authority}/grpc.health.v1.Health/Check", scheme(cluster)))
        .body(Full::new(Bytes::from(question(&probe.service_name))))
        .map_err(io::Error::other)?;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, HeaderValue::from_static("Envoy/HC"));
    let millis = rules.timeout.as_millis().min(99_999_999);
    if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
        headers.insert("grpc-timeout", value);
    }
    add(headers, &probe.metadata)?;
    Ok(request)
}

/// `HealthCheckRequest { service }` with its frame.
fn question(service: &str) -> Vec<u8> {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(length as u8 | 0x80);
            length >>= 7;
        }
        message.push(length as u8);
        message.extend_from_slice(service.as_bytes());
    }
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.append(&mut message);
    frame
}

/// What an answer means: only a whole answer of status OK that says SERVING is well.
pub(super) fn judge(answer: &Answer) -> Found {
    let status =
        answer.trailers.as_ref().and_then(|t| t.get("grpc-status")).or(answer.headers.get("grpc-status"));
    let ok = answer.status == 200 && status.is_some_and(|status| status == "0");
    if ok && serving(&answer.body) {
        Found::Healthy
    } else {
        Found::Wrong { retriable: false, exclude: false }
    }
}

/// Reads a frame with `HealthCheckResponse { status }`.
fn serving(frame: &[u8]) -> bool {
    let Some(([compressed, length @ ..], message)) = frame.split_first_chunk::<5>() else { return false };
    if *compressed != 0 || u32::from_be_bytes(*length) as usize != message.len() {
        return false;
    }
    let mut rest = message;
    let mut status = 0;
    while let Some((key, after)) = varint(rest) {
        rest = match key & 7 {
            0 => {
                let Some((value, after)) = varint(after) else { return false };
                if key >> 3 == 1 {
                    status = value;
                }
                after
            }
            2 => {
                let Some((length, after)) = varint(after) else { return false };
                let Some(after) = usize::try_from(length).ok().and_then(|n| after.get(n..)) else {
                    return false;
                };
                after
            }
            _ => return false,
        };
    }
    rest.is_empty() && status == SERVING
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (i, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(i + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_is_a_frame_with_the_service() {
        assert_eq!(question(""), [0, 0, 0, 0, 0]);
        assert_eq!(question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(question(&"x".repeat(200))[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
    }

    #[test]
    fn only_a_whole_serving_is_well() {
        for (frame, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], true),
            (&[0, 0, 0, 0, 2, 8, 2], false),
            (&[0, 0, 0, 0, 0], false),
            (&[1, 0, 0, 0, 2, 8, 1], false),
            (&[0, 0, 0, 0, 3, 8, 1], false),
            (&[0, 0, 0, 0, 6, 0x12, 2, 1, 1, 8, 1], true),
            (&[0, 0, 0, 0, 2, 0x12, 9], false),
            (&[], false),
        ] {
            assert_eq!(serving(frame), expected, "{frame:?}");
        }
    }
}
