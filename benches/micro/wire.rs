//! What reading and writing HTTP/1.1 costs: `cargo bench -p outrigger-benches --bench wire`.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outrigger_wire::h1::{
    BodyLength, BodyStep, ChunkDecoder, ConnectionHeader, Limits, encode_chunk_head, encode_request,
    encode_response, parse_request, parse_response,
};
use outrigger_wire::{Known, Method, RequestHead, ResponseHead};

/// An ordinary request of a service: seven fields and `host`.
const REQUEST: &[u8] = b"GET /api/v1/items/4711?fields=name,price HTTP/1.1\r\n\
    Host: catalogue.shop.internal:8080\r\n\
    User-Agent: python-requests/2.32.3\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate\r\n\
    X-Request-Id: 5b2e0c1e-53a5-4b6b-9d7c-93d2d5cdb4a1\r\n\
    Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
    X-Forwarded-For: 10.1.2.3\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: gunicorn\r\n\
    Date: Mon, 23 Nov 2026 02:00:00 GMT\r\n\
    Content-Type: application/json\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: no-store\r\n\
    X-Request-Id: 5b2e0c1e-53a5-4b6b-9d7c-93d2d5cdb4a1\r\n\r\n";

fn heads(criterion: &mut Criterion) {
    let limits = Limits::default();
    let mut request = RequestHead::default();
    criterion.bench_function("parse request, 8 fields", |bench| {
        bench.iter(|| parse_request(black_box(REQUEST), &limits, &mut request));
    });
    let mut response = ResponseHead::default();
    criterion.bench_function("parse response, 6 fields", |bench| {
        bench.iter(|| parse_response(black_box(RESPONSE), Method::Get, &limits, &mut response));
    });
    let mut out = Vec::with_capacity(4096);
    criterion.bench_function("write request, 7 fields", |bench| {
        bench.iter(|| {
            out.clear();
            encode_request(black_box(&request), BodyLength::None, ConnectionHeader::None, &mut out);
        });
    });
    criterion.bench_function("write response, 6 fields", |bench| {
        bench.iter(|| {
            out.clear();
            encode_response(black_box(&response), BodyLength::Length(1024), ConnectionHeader::None, &mut out);
        });
    });
    let mut copy = RequestHead::default();
    criterion
        .bench_function("copy a request head", |bench| bench.iter(|| copy.clone_from(black_box(&request))));
    criterion.bench_function("rewrite a copy: replace, append, remove a field", |bench| {
        bench.iter(|| {
            copy.clone_from(black_box(&request));
            let fields = &mut copy.fields;
            fields.set(b"x-request-id", b"0d5c9f1c-1111-4b6b-9d7c-93d2d5cdb4a1");
            fields.append(b"x-envoy-expected-rq-timeout-ms", b"15000");
            fields.remove(b"accept-encoding");
        });
    });
}

fn fields(criterion: &mut Criterion) {
    let mut request = RequestHead::default();
    assert!(parse_request(REQUEST, &Limits::default(), &mut request).is_ok());
    let fields = &request.fields;
    criterion.bench_function("look up a known field, present", |bench| {
        bench.iter(|| fields.get_known(black_box(Known::XForwardedFor)));
    });
    criterion.bench_function("look up a known field, absent", |bench| {
        bench.iter(|| fields.get_known(black_box(Known::GrpcTimeout)));
    });
    criterion.bench_function("look up by name, present", |bench| {
        bench.iter(|| fields.get(black_box(b"x-request-id")));
    });
    criterion.bench_function("recognise a name", |bench| {
        bench.iter(|| Known::from_lower(black_box(b"x-forwarded-proto")));
    });
}

fn chunks(criterion: &mut Criterion) {
    let mut wire = Vec::new();
    for _ in 0..16 {
        encode_chunk_head(4096, &mut wire);
        wire.resize(wire.len() + 4096, b'x');
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    let limits = Limits::default();
    let mut group = criterion.benchmark_group("chunks");
    group.throughput(Throughput::Bytes(wire.len() as u64));
    group.bench_function("read 16 chunks of 4 KiB", |bench| {
        bench.iter(|| {
            let mut decoder = ChunkDecoder::default();
            let mut rest = black_box(&wire[..]);
            let mut total = 0;
            while let Ok(BodyStep::Data { skip, len }) = decoder.step(rest, &limits) {
                total += len;
                rest = &rest[skip + len..];
            }
            total
        });
    });
    group.finish();
}

criterion_group!(benches, heads, fields, chunks);
criterion_main!(benches);
