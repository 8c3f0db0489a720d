//! What a request costs the allocator, once everything is warm: nothing, over kept-alive plaintext HTTP/1.1.
//!
//! Client and origin run on threads of their own with memory they took before, so that every allocation counted here is
//! the proxy's. The one test of this program has it for itself: the count is that of the whole process.

mod rig;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::TcpStream;

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

#[test]
fn kept_alive_request_allocates_nothing() {
    const REQUESTS: usize = 2_000;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let proxy = rig::proxy(rig::origin(), None);
    let mut stream = TcpStream::connect(proxy.listener_addrs("edge")[0]).unwrap();
    stream.set_nodelay(true).unwrap();
    let mut room = [0; 4096];
    for _ in 0..500 {
        request(&mut stream, &mut room);
    }
    let region = Region::new(COUNTED);
    for _ in 0..REQUESTS {
        request(&mut stream, &mut room);
    }
    let change = region.change();
    let taken = change.allocations + change.reallocations;
    // Timers and the once-a-second sweep of the process may take a few, however many requests there are.
    assert!(taken <= REQUESTS / 50, "{taken} allocations in {REQUESTS} requests: {change:?}");
}
