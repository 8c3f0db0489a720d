//! Which fault a request meets. Source: Envoy: HTTP fault injection filter.

use super::pace::{Pace, of_fault};
use crate::config::{self, FaultAbort, Fraction};
use crate::route::HeaderMatcher;
use crate::view::RequestView;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// Compiled [`config::Fault`].
#[derive(Debug)]
pub struct Fault {
    delay: Option<config::FaultDelay>,
    abort: Option<FaultAbort>,
    response_rate: Option<config::FaultRate>,
    upstream_cluster: Option<Box<str>>,
    headers: Box<[HeaderMatcher]>,
    nodes: Box<[Box<[u8]>]>,
    max_active: u32,
    active: Arc<AtomicU32>,
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// An HTTP status.
    Http(u16),
    /// A gRPC status.
    Grpc(u32),
}

/// A fault under way; it counts towards the limit until it is dropped.
#[derive(Debug)]
pub struct ActiveFault(Arc<AtomicU32>);

impl Drop for ActiveFault {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Fault {
    /// Makes it ready; `refuse` is told path and reason of everything wrong.
    pub(crate) fn new(from: &config::Fault, refuse: &mut dyn FnMut(String, String)) -> Self {
        match &from.abort {
            Some(FaultAbort::Http(status, _)) if !(200..600).contains(status) => {
                refuse("abort.http_status".into(), "must be between 200 and 599".into());
            }
            _ => {}
        }
        if from.delay.as_ref().and_then(|d| d.fixed).is_some_and(|fixed| fixed.is_zero()) {
            refuse("delay.fixed_delay".into(), "must be greater than 0s".into());
        }
        if from.response_rate.as_ref().is_some_and(|rate| rate.fixed_kbps == Some(0)) {
            refuse("response_rate_limit.fixed_limit.limit_kbps".into(), "must be at least 1".into());
        }
        let mut headers = Vec::with_capacity(from.headers.len());
        for (i, header) in from.headers.iter().enumerate() {
            match HeaderMatcher::for_request(header) {
                Ok(matcher) => headers.push(matcher),
                Err(reason) => refuse(format!("headers[{i}]"), reason),
            }
        }
        Self {
            delay: from.delay.clone(),
            abort: from.abort.clone(),
            response_rate: from.response_rate.clone(),
            upstream_cluster: (!from.upstream_cluster.is_empty())
                .then(|| from.upstream_cluster.as_str().into()),
            headers: headers.into(),
            nodes: from.downstream_nodes.iter().map(|node| node.as_bytes().into()).collect(),
            max_active: from.max_active_faults.unwrap_or(u32::MAX),
            active: Arc::default(),
        }
    }

    /// Whether faults are put into this request at all; `cluster` is where it goes.
    pub fn concerns<V: RequestView + ?Sized>(&self, view: &V, cluster: Option<&str>) -> bool {
        if self.upstream_cluster.as_deref().is_some_and(|wanted| cluster != Some(wanted)) {
            return false;
        }
        let node = || view.header(b"x-envoy-downstream-service-node");
        (self.nodes.is_empty() || node().is_some_and(|node| self.nodes.iter().any(|one| **one == *node)))
            && self.headers.iter().all(|header| header.matches(view))
    }

    /// How long the request waits, where the draw falls on it.
    pub fn delay<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<Duration> {
        let delay = self.delay.as_ref()?;
        let (after, share) = match delay.fixed {
            Some(fixed) => (fixed, delay.percentage),
            None => {
                let after = number(view.header(b"x-envoy-fault-delay-request")?)?;
                let share = limited(view.header(b"x-envoy-fault-delay-request-percentage"), delay.percentage);
                (Duration::from_millis(after), share)
            }
        };
        (!after.is_zero() && share.contains(draw)).then_some(after)
    }

    /// What the request is answered with, where the draw falls on it.
    pub fn abort<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<Abort> {
        let (abort, share) = match self.abort.as_ref()? {
            FaultAbort::Http(status, share) => (Abort::Http(*status), *share),
            FaultAbort::Grpc(status, share) => (Abort::Grpc(*status), *share),
            FaultAbort::Header(share) => {
                let share = limited(view.header(b"x-envoy-fault-abort-request-percentage"), *share);
                let status = view.header(b"x-envoy-fault-abort-request").and_then(number);
                match status.filter(|status| (200..600).contains(status)) {
                    Some(status) => (Abort::Http(u16::try_from(status).ok()?), share),
                    None => {
                        let code = number(view.header(b"x-envoy-fault-abort-grpc-request")?)?;
                        (Abort::Grpc(u32::try_from(code).ok()?), share)
                    }
                }
            }
        };
        share.contains(draw).then_some(abort)
    }

    /// How fast its response may be, where the draw falls on it.
    pub fn response_rate<V: RequestView + ?Sized>(&self, view: &V, draw: u32) -> Option<Pace> {
        let rate = self.response_rate.as_ref()?;
        let (kbps, share) = match rate.fixed_kbps {
            Some(kbps) => (kbps, rate.percentage),
            None => {
                let kbps = number(view.header(b"x-envoy-fault-throughput-response")?)?;
                let asked = view.header(b"x-envoy-fault-throughput-response-percentage");
                (kbps, limited(asked, rate.percentage))
            }
        };
        (kbps > 0 && share.contains(draw)).then(|| of_fault(kbps))
    }

    /// Counts a fault; `None` where as many as may be are under way.
    pub fn begin(&self) -> Option<ActiveFault> {
        let one_more = |active: u32| (active < self.max_active).then(|| active + 1);
        self.active.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(ActiveFault(self.active.clone()))
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The percentage that the request asks for in the header, up to the one configured. A header percentage counts in the
/// unit of hundredths only (Envoy takes the denominator of the configured one; its usual one is a hundred).
fn limited(header: Option<&[u8]>, most: Fraction) -> Fraction {
    match header.and_then(number) {
        Some(percent) => Fraction::from_percent(u32::try_from(percent).unwrap_or(u32::MAX)).min(most),
        None => most,
    }
}
