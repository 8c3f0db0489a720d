//! Spans as OTLP writes them, straight from the form they have in memory.
//!
//! A request that is traced makes some thirty attributes. As messages of generated types each would be four allocations, and
//! the control thread would do nothing else; they come in their final form (`Attributes::as_otlp`), and a span costs about as
//! much as copying it. The tests decode what is written with the generated types.
//!
//! Source: OpenTelemetry protocol 1.x, `opentelemetry/proto/{trace,common,resource}/v1`; protocol buffers' encoding.

use outrigger_engine::telemetry::trace::{Span, SpanKind};
use outrigger_wire::protobuf::{bytes, fixed32, fixed64, number};
use std::collections::BTreeMap;

/// W3C trace flag "sampled".
const FLAG_SAMPLED: u32 = 1;

/// `ExportTraceServiceRequest`: one `ResourceSpans` per service name.
pub(super) fn request(node: &str, spans: &[Span]) -> Vec<u8> {
    let mut by_service: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut scratch = Vec::with_capacity(1024);
    for span in spans {
        let out = by_service.entry(&span.service_name).or_insert_with(scope);
        scratch.clear();
        one(span, &mut scratch);
        bytes(out, 2, &scratch);
    }
    let mut out = Vec::new();
    for (service, scope_spans) in by_service {
        let mut resource = Vec::new();
        bytes(&mut resource, 1, &attribute("service.name", service));
        bytes(&mut resource, 1, &attribute("service.instance.id", node));
        let mut resource_spans = Vec::with_capacity(scope_spans.len() + resource.len() + 16);
        bytes(&mut resource_spans, 1, &resource);
        bytes(&mut resource_spans, 2, &scope_spans);
        bytes(&mut out, 1, &resource_spans);
    }
    out
}

/// The beginning of a `ScopeSpans`: who made the spans.
fn scope() -> Vec<u8> {
    let mut scope = Vec::new();
    bytes(&mut scope, 1, b"outrigger");
    bytes(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
    let mut out = Vec::new();
    bytes(&mut out, 1, &scope);
    out
}

/// A `KeyValue` with a text.
fn attribute(key: &str, value: &str) -> Vec<u8> {
    let (mut any, mut out) = (Vec::new(), Vec::new());
    bytes(&mut any, 1, value.as_bytes());
    bytes(&mut out, 1, key.as_bytes());
    bytes(&mut out, 2, &any);
    out
}

/// A `Span`.
fn one(span: &Span, out: &mut Vec<u8>) {
    bytes(out, 1, &span.trace_id.to_be_bytes());
    bytes(out, 2, &span.span_id.to_be_bytes());
    if span.parent_span_id != 0 {
        bytes(out, 4, &span.parent_span_id.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    let kind = match span.kind {
        SpanKind::Server => 2,
        SpanKind::Client => 3,
    };
    number(out, 6, kind);
    fixed64(out, 7, span.start_unix_nanos);
    fixed64(out, 8, span.end_unix_nanos);
    out.extend_from_slice(span.attributes.as_otlp());
    for (name, at) in &span.events {
        let mut event = Vec::with_capacity(name.len() + 16);
        fixed64(&mut event, 1, *at);
        bytes(&mut event, 2, name.as_bytes());
        bytes(out, 11, &event);
    }
    let mut status = Vec::new();
    if span.is_error {
        number(&mut status, 3, 2);
    }
    bytes(out, 15, &status);
    fixed32(out, 16, FLAG_SAMPLED);
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_api::opentelemetry::proto::collector::trace::v1::ExportTraceServiceRequest;
    use outrigger_api::opentelemetry::proto::common::v1::{
        AnyValue, InstrumentationScope, KeyValue, any_value,
    };
    use outrigger_api::opentelemetry::proto::resource::v1::Resource;
    use outrigger_api::opentelemetry::proto::trace::v1 as proto;
    use outrigger_engine::telemetry::trace::{Attributes, SpanValue};
    use prost::Message;

    fn pair(key: &str, value: any_value::Value) -> KeyValue {
        KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }) }
    }

    fn text(key: &str, value: &str) -> KeyValue {
        pair(key, any_value::Value::StringValue(value.into()))
    }

    /// The same by the generated types.
    fn message(span: &Span) -> proto::Span {
        proto::Span {
            trace_id: span.trace_id.to_be_bytes().to_vec(),
            span_id: span.span_id.to_be_bytes().to_vec(),
            parent_span_id: if span.parent_span_id == 0 {
                Vec::new()
            } else {
                span.parent_span_id.to_be_bytes().to_vec()
            },
            name: span.name.clone(),
            kind: match span.kind {
                SpanKind::Server => proto::span::SpanKind::Server.into(),
                SpanKind::Client => proto::span::SpanKind::Client.into(),
            },
            start_time_unix_nano: span.start_unix_nanos,
            end_time_unix_nano: span.end_unix_nanos,
            attributes: (span.attributes.iter())
                .map(|(key, value)| match value {
                    SpanValue::Text(value) => text(key, value),
                    SpanValue::Number(number) => pair(key, any_value::Value::IntValue(number)),
                })
                .collect(),
            events: (span.events.iter())
                .map(|(name, at)| proto::span::Event {
                    time_unix_nano: *at,
                    name: (*name).into(),
                    ..proto::span::Event::default()
                })
                .collect(),
            status: Some(proto::Status {
                code: if span.is_error { proto::status::StatusCode::Error.into() } else { 0 },
                ..proto::Status::default()
            }),
            flags: FLAG_SAMPLED,
            ..proto::Span::default()
        }
    }

    fn span(service: &str, seed: u64) -> Span {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut attributes = Attributes::default();
        for n in 0..rng.usize(0..20) {
            let length = [0, 1, 5, 127, 128, 300, 20_000][rng.usize(0..7)];
            match rng.u8(0..2) {
                0 => attributes.text(&format!("text.{n}"), &"é".repeat(length)),
                _ => {
                    attributes.number(&format!("number.{n}"), [0, 1, -1, 127, 128, i64::MIN, i64::MAX][n % 7])
                }
            }
        }
        Span {
            trace_id: rng.u128(1..),
            span_id: rng.u64(1..),
            parent_span_id: if rng.bool() { 0 } else { rng.u64(1..) },
            name: "GET route".into(),
            kind: if rng.bool() { SpanKind::Server } else { SpanKind::Client },
            service_name: service.into(),
            start_unix_nanos: rng.u64(1..),
            end_unix_nanos: rng.u64(1..),
            is_error: rng.bool(),
            attributes,
            events: if rng.bool() { vec![("first_upstream_tx_byte_sent", rng.u64(1..))] } else { Vec::new() },
        }
    }

    #[test]
    fn request_decodes_to_what_was_meant() {
        let spans: Vec<Span> = (0..200).map(|n| span(["front", "back", ""][n as usize % 3], n)).collect();
        let decoded = ExportTraceServiceRequest::decode(request("node-1", &spans).as_slice()).unwrap();
        let of = |service: &str| proto::ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", service), text("service.instance.id", "node-1")],
                ..Resource::default()
            }),
            scope_spans: vec![proto::ScopeSpans {
                scope: Some(InstrumentationScope {
                    name: "outrigger".into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                    ..InstrumentationScope::default()
                }),
                spans: spans.iter().filter(|span| &*span.service_name == service).map(message).collect(),
                ..proto::ScopeSpans::default()
            }],
            ..proto::ResourceSpans::default()
        };
        let expected = ExportTraceServiceRequest { resource_spans: vec![of(""), of("back"), of("front")] };
        assert_eq!(decoded, expected);
    }
}
