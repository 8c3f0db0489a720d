//! Probes by a request.

use super::probe::{Stream, scheme};
use crate::live::LiveCluster;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{HttpProbe, Probe};
use outrigger_traffic::health::Found;
use outrigger_traffic::text::TextMatcher;
use std::io;
use tokio::task::AbortHandle;

/// What is sent.
pub(super) type Request = hyper::Request<Full<Bytes>>;

/// By this, servers and their logs know a health check.
const AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

/// A body without a limit of its own is kept up to this.
const KEPT_MAX: usize = 1 << 20;

/// A connection.
pub(super) struct Client {
    sender: Sender,
    driver: AbortHandle,
}

enum Sender {
    H1(http1::SendRequest<Full<Bytes>>),
    H2(http2::SendRequest<Full<Bytes>>),
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    /// As much as was to be kept.
    pub(super) body: Vec<u8>,
    pub(super) trailers: Option<HeaderMap>,
    /// The server closes the connection.
    pub(super) closes: bool,
}

impl Client {
    pub(super) async fn new(stream: Box<dyn Stream>, http2: bool) -> io::Result<Self> {
        let io = TokioIo::new(stream);
        Ok(if http2 {
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), io).await.map_err(io::Error::other)?;
            let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Self { sender: Sender::H2(sender), driver }
        } else {
            let (sender, connection) = http1::handshake(io).await.map_err(io::Error::other)?;
            let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
            Self { sender: Sender::H1(sender), driver }
        })
    }

    /// Whether another request may be sent.
    pub(super) fn is_open(&self) -> bool {
        match &self.sender {
            Sender::H1(sender) => !sender.is_closed(),
            Sender::H2(sender) => !sender.is_closed(),
        }
    }

    /// Sends a request and waits for the whole answer, of whose body it keeps so many bytes.
    pub(super) async fn send(&mut self, request: Request, keep: usize) -> io::Result<Answer> {
        let answer = match &mut self.sender {
            Sender::H1(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await
            }
            Sender::H2(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                sender.send_request(request).await
            }
        };
        let (head, body) = answer.map_err(io::Error::other)?.into_parts();
        let closes = head.version == hyper::Version::HTTP_10
            || head.headers.get_all(CONNECTION).iter().any(|value| {
                value.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case("close")))
            });
        let (body, trailers) = collect(body, keep).await?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers, closes })
    }
}

async fn collect(mut body: Incoming, keep: usize) -> io::Result<(Vec<u8>, Option<HeaderMap>)> {
    let (mut kept, mut trailers) = (Vec::new(), None);
    while let Some(frame) = body.frame().await {
        match frame.map_err(io::Error::other)?.into_data() {
            Ok(data) => {
                let room = keep.saturating_sub(kept.len()).min(data.len());
                kept.extend_from_slice(data.get(..room).unwrap_or_default());
            }
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((kept, trailers))
}

/// How much of a body must be kept.
pub(super) fn kept_bytes(probe: &Probe) -> usize {
    match probe {
        Probe::Http(probe) if probe.receive.is_empty() => 0,
        Probe::Http(probe) => match usize::try_from(probe.response_buffer_size) {
            Ok(0) | Err(_) => KEPT_MAX,
            Ok(size) => size.min(KEPT_MAX),
        },
        Probe::Grpc(_) => super::grpc::ANSWER_MAX,
        Probe::Tcp(_) => 0,
    }
}

/// The authority of a probe: the endpoint's, else the health check's, else the cluster's name.
pub(super) fn authority<'a>(cluster: &'a LiveCluster, host: &'a Host, configured: &'a str) -> &'a str {
    [&*host.check.hostname, configured].into_iter().find(|name| !name.is_empty()).unwrap_or(&cluster.name)
}

/// The request of a probe.
pub(super) fn request(cluster: &LiveCluster, host: &Host, probe: &HttpProbe) -> io::Result<Request> {
    let authority = authority(cluster, host, &probe.host);
    let uri = if probe.http2 {
        format!("{}://{authority}{}", scheme(cluster), probe.path)
    } else {
        probe.path.clone()
    };
    let mut request = hyper::Request::builder()
        .method(probe.method.as_str())
        .uri(uri)
        .body(Full::new(Bytes::copy_from_slice(&probe.send)))
        .map_err(io::Error::other)?;
    let headers = request.headers_mut();
    if !probe.http2 {
        headers.insert(HOST, HeaderValue::from_str(authority).map_err(io::Error::other)?);
    }
    headers.insert(USER_AGENT, AGENT);
    for name in &probe.headers_remove {
        headers.remove(name.as_str());
    }
    add(headers, &probe.headers_add)?;
    Ok(request)
}

/// Sets or adds headers.
pub(super) fn add(headers: &mut HeaderMap, edits: &[(String, String, bool)]) -> io::Result<()> {
    for (name, value, beside) in edits {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(io::Error::other)?;
        let value = HeaderValue::from_str(value).map_err(io::Error::other)?;
        if *beside {
            headers.append(name, value);
        } else {
            headers.insert(name, value);
        }
    }
    Ok(())
}

/// What an answer means. Source: Envoy: HTTP health checking.
pub(super) fn judge(cluster: &LiveCluster, probe: &HttpProbe, answer: &Answer) -> io::Result<Found> {
    let exclude = answer.headers.contains_key("x-envoy-immediate-health-check-fail");
    if !contains_in_order(&answer.body, &probe.receive) {
        return Ok(Found::Wrong { retriable: false, exclude });
    }
    let within =
        |ranges: &[(u16, u16)]| ranges.iter().any(|(from, until)| (*from..*until).contains(&answer.status));
    let expected = if probe.expected_statuses.is_empty() {
        answer.status == 200
    } else {
        within(&probe.expected_statuses)
    };
    if !expected {
        return Ok(Found::Wrong { retriable: within(&probe.retriable_statuses), exclude });
    }
    if let Some(name) = &probe.service_name {
        cluster.stats.control().health_check_verify_cluster.inc();
        let said = answer.headers.get("x-envoy-upstream-healthchecked-cluster");
        let said = said.map(HeaderValue::as_bytes).unwrap_or_default();
        if !TextMatcher::new(name).is_ok_and(|matcher| matcher.is_match(said)) {
            return Ok(Found::Wrong { retriable: false, exclude: false });
        }
    }
    let degraded = answer.headers.contains_key("x-envoy-degraded");
    Ok(if degraded { Found::Degraded } else { Found::Healthy })
}

/// Whether a text has all of these, one after the other.
pub(super) fn contains_in_order(text: &[u8], wanted: &[Vec<u8>]) -> bool {
    let mut rest = text;
    wanted.iter().all(|one| match memchr::memmem::find(rest, one) {
        Some(at) => {
            rest = rest.get(at + one.len()..).unwrap_or_default();
            true
        }
        None => false,
    })
}
