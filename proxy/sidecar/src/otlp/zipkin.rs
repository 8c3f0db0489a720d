//! Spans as Zipkin's JSON, version 2. Source: Zipkin API, `POST /api/v2/spans`.

use outrigger_engine::telemetry::trace::{Span, SpanKind, SpanValue};
use serde_json::{Map, Value, json};

/// A batch.
pub(super) fn spans(batch: &[Span]) -> Value {
    Value::Array(batch.iter().map(one).collect())
}

fn one(span: &Span) -> Value {
    let micros = |nanos: u64| nanos / 1000;
    let mut tags = Map::new();
    for (name, value) in span.attributes.iter() {
        let text = match value {
            SpanValue::Text(text) => text.to_owned(),
            SpanValue::Number(number) => number.to_string(),
        };
        tags.insert(name.to_owned(), text.into());
    }
    if span.is_error {
        // Its presence is what counts.
        tags.entry("error").or_insert_with(|| "true".into());
    }
    let events = span.events.iter();
    let annotations: Vec<Value> =
        events.map(|(name, at)| json!({"timestamp": micros(*at), "value": name})).collect();
    let mut out = json!({
        "traceId": format!("{:0width$x}", span.trace_id, width = if span.trace_id >> 64 == 0 { 16 } else { 32 }),
        "id": format!("{:016x}", span.span_id),
        "name": span.name,
        "kind": match span.kind { SpanKind::Server => "SERVER", SpanKind::Client => "CLIENT" },
        "timestamp": micros(span.start_unix_nanos),
        // Zero means unknown.
        "duration": micros(span.end_unix_nanos.saturating_sub(span.start_unix_nanos)).max(1),
        "localEndpoint": {"serviceName": &*span.service_name},
        "tags": tags,
    });
    if let Some(object) = out.as_object_mut() {
        if span.parent_span_id != 0 {
            object.insert("parentId".into(), format!("{:016x}", span.parent_span_id).into());
        }
        if !annotations.is_empty() {
            object.insert("annotations".into(), annotations.into());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_engine::telemetry::trace::Attributes;

    #[test]
    fn span_becomes_what_zipkin_reads() {
        let mut attributes = Attributes::default();
        attributes.number("http.response.status_code", 503);
        let span = Span {
            trace_id: 0xabc,
            span_id: 7,
            parent_span_id: 3,
            name: "GET".into(),
            kind: SpanKind::Client,
            service_name: "front".into(),
            start_unix_nanos: 1_000_000,
            end_unix_nanos: 1_000_500,
            is_error: true,
            attributes,
            events: vec![("first_upstream_tx_byte_sent", 1_002_000)],
        };
        let expected = json!([{
            "traceId": "0000000000000abc", "id": "0000000000000007", "parentId": "0000000000000003", "name": "GET",
            "kind": "CLIENT", "timestamp": 1000, "duration": 1, "localEndpoint": {"serviceName": "front"},
            "tags": {"http.response.status_code": "503", "error": "true"},
            "annotations": [{"timestamp": 1002, "value": "first_upstream_tx_byte_sent"}],
        }]);
        assert_eq!(spans(&[span]), expected);
    }
}
