//! What HTTP/2 costs in the codec: `cargo bench -p outrigger-benches --bench h2`.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use outrigger_wire::h2::head::{HeadLimits, RequestSink};
use outrigger_wire::h2::hpack::{Decoder, Encoder, huffman_decode, huffman_encode};
use outrigger_wire::h2::{Connection, Event, Options, Role, Settings};
use outrigger_wire::{FieldBlock, RequestHead, ResponseHead};

/// An ordinary request of a service: seven fields.
fn request() -> RequestHead {
    let mut head = RequestHead::default();
    head.set_authority(b"catalogue.shop.internal:8080");
    head.set_path(b"/api/v1/items/4711");
    fields(&mut head.fields);
    head
}

fn fields(block: &mut FieldBlock) {
    for (name, value) in [
        ("user-agent", "python-requests/2.32.3"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("x-request-id", "5b2e0c1e-53a5-4b6b-9d7c-93d2d5cdb4a1"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        ("x-forwarded-for", "10.1.2.3"),
        ("x-forwarded-proto", "http"),
    ] {
        block.append(name.as_bytes(), value.as_bytes());
    }
}

fn hpack(criterion: &mut Criterion) {
    let head = request();
    let (mut encoder, mut decoder) = (Encoder::default(), Decoder::new());
    let (mut out, mut read) = (Vec::with_capacity(4096), RequestHead::default());
    let limits = HeadLimits { fields: 100, bytes: 60 << 10 };
    // What repeats is in the tables after the second block.
    for _ in 0..3 {
        out.clear();
        encoder.request(&head, &mut out);
        let mut sink = RequestSink::new(&mut read, limits, false);
        decoder.decode(&out, &mut sink).expect("a good block");
        sink.finish(true, false).expect("a good head");
    }
    criterion.bench_function("hpack: read a request, 7 fields", |bench| {
        bench.iter(|| {
            let mut sink = RequestSink::new(&mut read, limits, false);
            let _ = decoder.decode(black_box(&out), &mut sink);
            sink.finish(true, false)
        });
    });
    let mut written = Vec::with_capacity(4096);
    criterion.bench_function("hpack: write a request, 7 fields", |bench| {
        bench.iter(|| {
            written.clear();
            encoder.request(black_box(&head), &mut written);
        });
    });
    let text = b"https://www.example.com/a/path/of/some/length?with=a&query=too";
    let mut coded = Vec::new();
    huffman_encode(text, &mut coded);
    let mut plain = Vec::with_capacity(256);
    criterion.bench_function("huffman: read 62 bytes", |bench| {
        bench.iter(|| {
            plain.clear();
            huffman_decode(black_box(&coded), &mut plain)
        });
    });
    let mut again = Vec::with_capacity(256);
    criterion.bench_function("huffman: write 62 bytes", |bench| {
        bench.iter(|| {
            again.clear();
            huffman_encode(black_box(text), &mut again);
        });
    });
}

fn options() -> Options {
    let settings = Settings {
        max_header_list_bytes: 60 << 10,
        initial_window: 1 << 20,
        max_concurrent_streams: 1024,
        ..Settings::default()
    };
    Options { settings, connection_window: 1 << 24, max_fields: 100, secure: false }
}

/// Moves everything that waits from one end to the other.
fn pass(from: &mut Connection, to: &mut Connection, buffer: &mut Vec<u8>) {
    from.take_output(buffer);
    let mut input = &buffer[..];
    while let Some(event) = to.receive(&mut input, Duration::ZERO).expect("good frames") {
        match event {
            Event::Request { stream, .. } => {
                let mut response = ResponseHead { status: 200, ..ResponseHead::default() };
                response.fields.append(b"content-type", b"application/json");
                to.send_response(stream, &response, false).expect("a stream that began");
                let _ = to.send_data(stream, &[b'x'; 100], true);
                to.release(stream);
            }
            Event::Data { stream, octets, ended } => {
                to.consumed(stream, octets.len());
                if ended {
                    to.release(stream);
                }
            }
            _ => {}
        }
    }
    buffer.clear();
}

fn connection(criterion: &mut Criterion) {
    let mut client = Connection::new(Role::Client, options(), Duration::ZERO);
    let mut server = Connection::new(Role::Server, options(), Duration::ZERO);
    let mut buffer = Vec::new();
    for _ in 0..2 {
        pass(&mut client, &mut server, &mut buffer);
        pass(&mut server, &mut client, &mut buffer);
    }
    let head = request();
    let mut group = criterion.benchmark_group("connection");
    const STREAMS: u64 = 100;
    group.throughput(Throughput::Elements(STREAMS));
    group.bench_function("100 requests and responses, both ends", |bench| {
        bench.iter(|| {
            for _ in 0..STREAMS {
                if client.open(&head, true).is_err() {
                    // The ids are used up: begin again.
                    client = Connection::new(Role::Client, options(), Duration::ZERO);
                    server = Connection::new(Role::Server, options(), Duration::ZERO);
                }
            }
            pass(&mut client, &mut server, &mut buffer);
            pass(&mut server, &mut client, &mut buffer);
        });
    });
    group.finish();
}

criterion_group!(benches, hpack, connection);
criterion_main!(benches);
