//! Trace context through a proxy, and the spans of it.

use crate::support::*;
use outrigger_engine::proxy::ProxyHandle;
use outrigger_engine::telemetry::trace::{Span, SpanKind, SpanQueue, SpanReceiver, SpanValue, span_queue};
use outrigger_testkit::{H1Client, Origin, within};
use outrigger_traffic::config::{
    Config, CustomTag, Fraction, Route, RouteSource, RouteTracing, SpanOptions, Terminal, Tracing,
};
use std::collections::VecDeque;
use std::sync::Arc;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn traced(random: Fraction, origin: &Origin) -> (ProxyHandle, Spans) {
    let (queue, spans) = spans(64);
    let proxy = start_with(|options| options.spans = Some(Arc::new(queue)));
    let config = simple_with(&[origin.address()], |hcm| {
        hcm.tracing = Some(Tracing {
            client_sampling: Fraction::ONE,
            random_sampling: random,
            overall_sampling: Fraction::ONE,
            service_name: "front-service".into(),
            collector_cluster: String::new(),
            ..Tracing::default()
        });
    });
    proxy.apply(config).unwrap();
    (proxy, spans)
}

async fn send(proxy: &ProxyHandle, fields: &[(&str, &str)]) {
    let mut all = vec![("host", "h.test")];
    all.extend_from_slice(fields);
    let mut client = H1Client::connect(address(proxy)).await;
    assert_eq!(client.request("GET", "/x?y=1", &all, b"").await.unwrap().status, 200);
}

fn attribute<'a>(span: &'a Span, name: &str) -> Option<SpanValue<'a>> {
    span.attributes.get(name)
}

/// Spans one by one.
struct Spans(SpanReceiver, VecDeque<Span>);

impl Spans {
    async fn recv(&mut self) -> Option<Span> {
        while self.1.is_empty() {
            self.1.extend(self.0.recv().await?);
        }
        self.1.pop_front()
    }
}

fn spans(max: usize) -> (SpanQueue, Spans) {
    let (queue, receiver) = span_queue(max);
    (queue, Spans(receiver, VecDeque::new()))
}

#[tokio::test]
async fn sampled_parent_gives_server_and_client_spans_in_its_trace() {
    let origin = Origin::h1("one").await;
    let (proxy, mut spans) = traced(Fraction::ZERO, &origin).await;
    send(&proxy, &[("traceparent", PARENT), ("tracestate", "a=1")]).await;
    let client = within("a span", spans.recv()).await.unwrap();
    let server = within("a span", spans.recv()).await.unwrap();
    let (client, server) = if client.kind == SpanKind::Client { (client, server) } else { (server, client) };
    assert_eq!((server.kind, client.kind), (SpanKind::Server, SpanKind::Client));
    assert_eq!(server.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
    assert_eq!(server.parent_span_id, 0xb7ad_6b71_6920_3331);
    assert_eq!((client.trace_id, client.parent_span_id), (server.trace_id, server.span_id));
    assert_eq!(&*server.service_name, "front-service");
    assert_eq!(attribute(&server, "http.request.method"), Some(SpanValue::Text("GET")));
    assert_eq!(attribute(&server, "http.response.status_code"), Some(SpanValue::Number(200)));
    assert_eq!(attribute(&server, "url.path"), Some(SpanValue::Text("/x")));
    assert!(
        server.start_unix_nanos <= client.start_unix_nanos
            && client.start_unix_nanos <= client.end_unix_nanos
    );
    let seen = origin.seen().remove(0);
    let sent = format!("00-0af7651916cd43dd8448eb211c80319c-{:016x}-01", client.span_id);
    assert_eq!(seen.field("traceparent"), Some(sent.as_str()));
    assert_eq!(seen.field("tracestate"), Some("a=1"));
}

#[tokio::test]
async fn unsampled_parent_is_passed_on_unsampled_and_makes_no_span() {
    let origin = Origin::h1("one").await;
    let (proxy, mut spans) = traced(Fraction::ONE, &origin).await;
    send(&proxy, &[("traceparent", &PARENT.replace("-01", "-00"))]).await;
    let seen = origin.seen().remove(0);
    let sent = seen.field("traceparent").unwrap();
    assert!(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent.ends_with("-00"), "{sent}");
    send(&proxy, &[]).await;
    // The first span is of the second request: the first made none.
    let span = within("a span", spans.recv()).await.unwrap();
    assert_ne!(span.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
}

#[tokio::test]
async fn invalid_parent_starts_a_new_trace_and_is_not_passed_on() {
    let origin = Origin::h1("one").await;
    let (proxy, _spans) = traced(Fraction::ONE, &origin).await;
    send(&proxy, &[("traceparent", &PARENT.to_uppercase()), ("tracestate", "a=1")]).await;
    let seen = origin.seen().remove(0);
    let sent = seen.field("traceparent").unwrap();
    assert!(!sent.contains("0af7651916cd43dd8448eb211c80319c") && sent.len() == 55, "{sent}");
    assert_eq!(seen.field("tracestate"), None);
}

#[tokio::test]
async fn full_queue_drops_and_counts() {
    let origin = Origin::h1("one").await;
    let (queue, _spans) = spans(1);
    let proxy = start_with(|options| options.spans = Some(Arc::new(queue)));
    let config = simple_with(&[origin.address()], |hcm| {
        hcm.tracing = Some(Tracing {
            client_sampling: Fraction::ONE,
            random_sampling: Fraction::ONE,
            overall_sampling: Fraction::ONE,
            service_name: String::new(),
            collector_cluster: String::new(),
            ..Tracing::default()
        });
    });
    proxy.apply(config).unwrap();
    send(&proxy, &[]).await;
    let server = &proxy.shared().server;
    eventually("the spans to be counted", async || {
        let counts = (server.total(|s| s.spans_exported.value()), server.total(|s| s.spans_dropped.value()));
        (counts == (1, 1)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn spans_have_the_names_tags_lengths_and_events_that_were_asked_for() {
    let origin = Origin::h1("one").await;
    let (queue, mut spans) = spans(64);
    let proxy = start_with(|options| options.spans = Some(Arc::new(queue)));
    let tag = |name: &str, value: &str, default_value: &str| CustomTag {
        name: name.into(),
        value: value.into(),
        default_value: default_value.into(),
    };
    let mut config = simple_with(&[origin.address()], |hcm| {
        hcm.tracing = Some(Tracing {
            spans: SpanOptions {
                tags: vec![
                    tag("who", "%REQ(x-who)%", "nobody"),
                    tag("fixed", "a", ""),
                    tag("none", "%REQ(x-none)%", ""),
                ],
                path_bytes_max: 4,
                verbose: true,
                attempts: false,
                operation: "%REQ(:METHOD)% of %REQ(x-who)%".into(),
                upstream_operation: String::new(),
            },
            always_b3: true,
            ..Tracing::default()
        });
    });
    proxy.apply(config.clone()).unwrap();
    send(&proxy, &[("x-who", "me")]).await;
    let span = within("a span", spans.recv()).await.unwrap();
    assert_eq!((span.kind, span.name.as_str()), (SpanKind::Server, "GET of me"));
    let text = attribute;
    assert_eq!(text(&span, "who"), Some(SpanValue::Text("me")));
    assert_eq!(text(&span, "fixed"), Some(SpanValue::Text("a")));
    assert_eq!(text(&span, "none"), None);
    assert_eq!(
        (text(&span, "url.path"), text(&span, "url.query")),
        (Some(SpanValue::Text("/x")), Some(SpanValue::Text("y")))
    );
    let events: Vec<&str> = span.events.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        (events.first(), events.last()),
        (Some(&"last_downstream_rx_byte_received"), Some(&"last_downstream_tx_byte_sent"))
    );
    // No span of the attempt: the host is told of the request's.
    let seen = origin.seen().remove(0);
    assert_eq!(seen.field("x-b3-spanid"), Some(format!("{:016x}", span.span_id).as_str()));
    // A route has its own word on names, tags and shares.
    route(&mut config).tracing = Some(RouteTracing {
        tags: vec![tag("who", "route", "")],
        operation: "of the route".into(),
        ..RouteTracing::default()
    });
    proxy.apply(config.clone()).unwrap();
    send(&proxy, &[]).await;
    let span = within("a span", spans.recv()).await.unwrap();
    assert_eq!((span.name.as_str(), text(&span, "who")), ("of the route", Some(SpanValue::Text("route"))));
    route(&mut config).tracing =
        Some(RouteTracing { random_sampling: Some(Fraction::ZERO), ..RouteTracing::default() });
    proxy.apply(config.clone()).unwrap();
    send(&proxy, &[]).await;
    send(&proxy, &[("traceparent", PARENT)]).await;
    let span = within("a span", spans.recv()).await.unwrap();
    assert_eq!(
        span.parent_span_id, 0xb7ad_6b71_6920_3331,
        "the caller's decision stands, the route's share gave none"
    );
}

fn route(config: &mut Config) -> &mut Route {
    let Terminal::Http(manager) = &mut config.listeners[0].filter_chains[0].terminal else {
        panic!("not HTTP")
    };
    let RouteSource::Inline(table) = &mut manager.routes else { panic!("not inline") };
    &mut table.virtual_hosts[0].routes[0]
}
