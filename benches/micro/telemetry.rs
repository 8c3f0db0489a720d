//! What telling about a request costs: counters, histograms, trace context.
//!
//! `cargo bench -p outrigger-benches --bench telemetry`. Goals: a counter or histogram 1–2 ns, as each has one writer; a
//! trace context read and handed on below 300 ns.

#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use outrigger_engine::telemetry::{HttpStats, RequestTrace, Sharded, StatSet};
use outrigger_traffic::config::{Fraction, Tracing};
use outrigger_wire::RequestHead;
use outrigger_wire::h1::{Limits, parse_request};
use std::hint::black_box;
use std::time::Duration;

const FIELDS: &str = "Host: catalogue.shop.internal:8080\r\nUser-Agent: python-requests/2.32.3\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nX-Request-Id: 5b2e0c1e-53a5-4b6b-9d7c-93d2d5cdb4a1\r\n";
const PARENT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n";

fn metrics(criterion: &mut Criterion) {
    let stats: Sharded<HttpStats> = Sharded::new(2);
    criterion.bench_function("metrics: add one to a counter", |bench| {
        bench.iter(|| stats.at(black_box(1)).downstream_rq_total.inc());
    });
    criterion.bench_function("metrics: record a duration", |bench| {
        bench.iter(|| stats.at(1).downstream_rq_time.record(black_box(Duration::from_micros(740))));
    });
    criterion.bench_function("metrics: what a connection manager counts for a request", |bench| {
        bench.iter(|| {
            let stats = stats.at(black_box(1));
            stats.downstream_rq_total.inc();
            stats.downstream_rq_active.inc();
            stats.downstream_rq_http1_total.inc();
            stats.downstream_rq_active.dec();
            stats.downstream_rq_2xx.inc();
            stats.downstream_rq_completed.inc();
            stats.downstream_rq_time.record(black_box(Duration::from_micros(740)));
        });
    });
    criterion.bench_function("metrics: sum up a set of 3 shards, as a scrape does", |bench| {
        bench.iter(|| (0..HttpStats::FIELDS.len()).filter_map(|at| stats.sum(black_box(at))).count());
    });
}

fn head(more: &str) -> RequestHead {
    let text = format!("GET /api/v1/items/4711?fields=name,price HTTP/1.1\r\n{FIELDS}{more}\r\n");
    let mut head = RequestHead::default();
    assert!(parse_request(text.as_bytes(), &Limits::default(), &mut head).is_ok());
    head
}

fn trace(criterion: &mut Criterion) {
    let tracing = Tracing {
        client_sampling: Fraction::ONE,
        random_sampling: Fraction::from_percent(1),
        overall_sampling: Fraction::ONE,
        service_name: String::new(),
        collector_cluster: "spans".into(),
        ..Tracing::default()
    };
    let mut seed = 1_u64;
    let mut draw = move || {
        seed = seed.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        seed
    };
    for (name, more) in [("from the caller", PARENT), ("begun here", "")] {
        let original = head(more);
        let mut copy = RequestHead::default();
        criterion.bench_function(&format!("trace: context {name}, copy of the head included"), |bench| {
            bench.iter(|| {
                copy.clone_from(black_box(&original));
                let (trace, _) = RequestTrace::begin(&mut copy, &tracing, &mut draw);
                let span = trace.attempt_span_id(&mut draw);
                trace.inject(&mut copy, span)
            });
        });
    }
}

criterion_group!(benches, metrics, trace);
criterion_main!(benches);
