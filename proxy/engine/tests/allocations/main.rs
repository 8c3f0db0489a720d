//! What a request costs the allocator, once everything is warm: nothing, over kept-alive plaintext HTTP/1.1; a few boxes,
//! between two HTTP/2 connections.
//!
//! Client and origin run on threads of their own with memory they took before, so that every allocation counted here is
//! the proxy's. The one test of this program has it for itself: the count is that of the whole process.

mod h2;
mod rig;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

use outrigger_traffic::config::HttpUpstream;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn request(stream: &mut TcpStream, room: &mut [u8; 4096]) {
    stream.write_all(rig::REQUEST).unwrap();
    let mut have = 0;
    while !room[..have].ends_with(b"hello") {
        let n = stream.read(&mut room[have..]).unwrap();
        assert!(n > 0, "the proxy closed the connection");
        have += n;
    }
    assert!(room.starts_with(b"HTTP/1.1 200 OK\r\n"));
}

/// Allocations of the process for one request after the other, once warm.
fn taken(requests: usize, mut request: impl FnMut()) -> usize {
    for _ in 0..500 {
        request();
    }
    let region = Region::new(COUNTED);
    for _ in 0..requests {
        request();
    }
    let change = region.change();
    change.allocations + change.reallocations
}

#[test]
fn kept_alive_request_allocates_nothing_and_a_stream_little() {
    const REQUESTS: usize = 2_000;
    /// Between two HTTP/2 connections: the exchange, its state in the express lane, the two halves of the upstream stream.
    const BOXES: usize = 3;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();

    let http1 = rig::proxy(rig::origin(), None, HttpUpstream::Http1, 1);
    let mut stream = TcpStream::connect(http1.listener_addrs("edge")[0]).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut room = [0; 4096];
    let taken_h1 = taken(REQUESTS, || request(&mut stream, &mut room));
    // Timers and the once-a-second sweep of the process may take a few, however many requests there are.
    assert!(taken_h1 <= REQUESTS / 50, "{taken_h1} allocations in {REQUESTS} requests over HTTP/1.1");

    let http2 = rig::proxy(h2::origin(), None, HttpUpstream::Http2, 1);
    let mut client = h2::Client::connect(http2.listener_addrs("edge")[0]);
    let taken_h2 = taken(REQUESTS, || client.request());
    let limit = REQUESTS * BOXES + REQUESTS / 20;
    assert!(taken_h2 <= limit, "{taken_h2} allocations in {REQUESTS} requests over HTTP/2");
}
