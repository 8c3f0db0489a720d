//! Trace context of a request and the spans made of it.
//!
//! [`RequestTrace::begin`] reads W3C `traceparent`/`tracestate` and B3 (single and multiple headers) from a request head,
//! decides whether the request is sampled, and takes every invalid trace header away, so that nothing invalid is passed on.
//! [`RequestTrace::inject`] writes the context towards the host. A request that is not sampled costs its headers and
//! nothing else: there is no span object. Spans of sampled requests go, many at once, to a [`SpanSink`], which must not
//! block.
//!
//! Sources: W3C Trace Context (level 1), B3 propagation specification, OpenTelemetry HTTP semantic conventions.

use outrigger_traffic::config::Tracing;
use outrigger_traffic::tracing::RouteTracing;
use outrigger_wire::RequestHead;
use outrigger_wire::syntax::hex_digits;
use std::fmt;
use std::time::SystemTime;

mod attributes;
mod b3;
mod outbox;
mod plan;
mod span;
mod w3c;

pub use attributes::{Attributes, SpanValue};
pub(in crate::telemetry) use outbox::send;
pub use outbox::{SpanQueue, SpanReceiver, SpanSink, WorkerSpans, span_queue};
pub use plan::SpanPlan;
pub(crate) use plan::spans_of_attempts;
pub use span::{Span, SpanKind};
pub(crate) use span::{attempt_span, server_span};

/// Where a request stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestTrace {
    /// The trace; never 0.
    pub trace_id: u128,
    /// Our (server) span of this request; never 0.
    pub span_id: u64,
    /// The span that called us; 0 where the trace begins here.
    pub parent_span_id: u64,
    /// Whether spans are made.
    pub sampled: bool,
    /// Flags of `traceparent` other than `sampled` that are handed on.
    other_flags: u8,
    formats: Formats,
    /// The caller decided on sampling.
    by_caller: bool,
}

/// Which headers the request came with; the same ones are written towards the host, `traceparent` always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Formats {
    b3_single: bool,
    b3_multi: bool,
}

/// What the headers of a request said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Incoming {
    /// 0: not said.
    trace_id: u128,
    span_id: u64,
    /// `None`: the decision is left to us.
    sampled: Option<bool>,
    other_flags: u8,
}

/// Why a trace is sampled or not; for the counters of the connection manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// The caller decided.
    Parent,
    /// The client asked (`x-client-trace-id`).
    Client,
    /// By chance, here.
    Random,
    /// Not sampled.
    Not,
}

impl RequestTrace {
    /// Reads and cleans the trace headers of `head` and decides on sampling: the caller's decision where there is one,
    /// else by `tracing`'s shares. `draw` gives random bits.
    ///
    /// *Cost*: no allocation unless several `tracestate` fields are joined.
    pub fn begin(
        head: &mut RequestHead,
        tracing: &Tracing,
        draw: &mut dyn FnMut() -> u64,
    ) -> (Self, Sampling) {
        let mut formats = Formats::default();
        let always_b3 = tracing.always_b3;
        let w3c = w3c::extract(head);
        let single = b3::extract_single(head, &mut formats.b3_single);
        let multi = b3::extract_multi(head, &mut formats.b3_multi);
        let incoming = w3c.or(single).or(multi).unwrap_or_default();
        let (sampled, why) = match incoming.sampled {
            Some(true) if tracing.overall_sampling.contains(low_bits(draw())) => (true, Sampling::Parent),
            Some(_) => (false, Sampling::Not),
            None => decide(head, tracing, draw),
        };
        formats.b3_multi |= always_b3 && !formats.b3_single;
        let trace_id = match incoming.trace_id {
            0 if tracing.wide_trace_ids => (u128::from(draw()) << 64) | u128::from(draw() | 1),
            0 => u128::from(draw() | 1),
            id => id,
        };
        let trace = Self {
            trace_id,
            span_id: draw().max(1),
            parent_span_id: incoming.span_id,
            sampled,
            other_flags: incoming.other_flags,
            formats,
            by_caller: incoming.sampled.is_some(),
        };
        (trace, why)
    }

    /// Decides again, by what the route says; a caller's decision stands.
    pub fn sample_by_route(
        &mut self,
        head: &RequestHead,
        chain: &Tracing,
        route: &RouteTracing,
        draw: &mut dyn FnMut() -> u64,
    ) {
        if self.by_caller {
            return;
        }
        let shares = Tracing {
            client_sampling: route.client_sampling.unwrap_or(chain.client_sampling),
            random_sampling: route.random_sampling.unwrap_or(chain.random_sampling),
            overall_sampling: route.overall_sampling.unwrap_or(chain.overall_sampling),
            ..Tracing::default()
        };
        self.sampled = decide(head, &shares, draw).0;
    }

    /// Writes the context for an attempt whose (client) span is `span_id`. Returns false where the head is full.
    pub fn inject(&self, head: &mut RequestHead, span_id: u64) -> bool {
        let mut fits = w3c::inject(self, head, span_id);
        if self.formats.b3_single {
            fits &= b3::inject_single(self, head, span_id);
        }
        if self.formats.b3_multi {
            fits &= b3::inject_multi(self, head, span_id);
        }
        fits
    }

    /// The id of a new attempt's span. A request that is not sampled names our server span, which spares the draw.
    pub fn attempt_span_id(&self, draw: &mut dyn FnMut() -> u64) -> u64 {
        if self.sampled { draw().max(1) } else { self.span_id }
    }

    /// Appends the trace id in lower-case hexadecimal (`%TRACE_ID%`).
    pub fn write_trace_id(&self, out: &mut Vec<u8>) {
        let mut text = [0_u8; 32];
        write_hex(&mut text, self.trace_id);
        out.extend_from_slice(&text);
    }
}

fn decide(head: &RequestHead, tracing: &Tracing, draw: &mut dyn FnMut() -> u64) -> (bool, Sampling) {
    let client =
        head.fields.contains(b"x-client-trace-id") && tracing.client_sampling.contains(low_bits(draw()));
    let why = if client {
        Sampling::Client
    } else if tracing.random_sampling.contains(low_bits(draw())) {
        Sampling::Random
    } else {
        return (false, Sampling::Not);
    };
    if tracing.overall_sampling.contains(low_bits(draw())) { (true, why) } else { (false, Sampling::Not) }
}

/// The low half of 64 random bits.
const fn low_bits(bits: u64) -> u32 {
    (bits & 0xffff_ffff) as u32
}

/// Fills `out` with the low digits of `value`, lower case, most significant first.
fn write_hex(out: &mut [u8], value: u128) {
    let mut rest = value;
    for part in out.rchunks_mut(8) {
        let digits = hex_digits((rest & 0xffff_ffff) as u32);
        let (_, last) = digits.split_at(8 - part.len());
        part.copy_from_slice(last);
        rest >>= 32;
    }
}

/// Reads lower-case hexadecimal (upper case too where `any_case`); `None` for anything else or nothing.
fn read_hex(text: &[u8], any_case: bool) -> Option<u128> {
    if text.is_empty() || text.len() > 32 {
        return None;
    }
    text.iter().try_fold(0_u128, |value, byte| {
        let nibble = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' if any_case => byte - b'A' + 10,
            _ => return None,
        };
        Some((value << 4) | u128::from(nibble))
    })
}

/// An id in hexadecimal, for people.
pub struct Hex(pub u128);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Nanoseconds since 1970; 0 for times before.
pub(crate) fn unix_nanos(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests;
