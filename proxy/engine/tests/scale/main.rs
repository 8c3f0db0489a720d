//! A second worker costs the first nothing: CPU time per request of the data threads, one worker against two.
//!
//! What workers share shows there. A lock that requests take makes threads sleep and wake one another; a queue between
//! threads does the same; either adds tens of microseconds to a request. The test is made for these: it runs in debug
//! builds on machines with two busy cores, so its bound is wide, and it takes the best of several tries. What a shared
//! cache line costs is below it; `cargo bench-proxy --scale` measures that with a release build.
//!
//! Needs Linux's `/proc/self/task/*/schedstat`. The one test of this program has it for itself: threads are told apart by
//! their names.

#[path = "../allocations/rig.rs"]
mod rig;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use outrigger_traffic::config::HttpUpstream;

/// Connections per worker: a worker's turns must be as full with two workers as with one.
const CONNECTIONS: usize = 8;
/// Requests per connection and try.
const ROUNDS: usize = 150;
/// The cheapest try counts: others were disturbed.
const TRIES: usize = 5;
/// How much more a request may cost with two workers.
const BOUND: f64 = 1.5;

/// A request on every connection, then the answers: the workers have them all at a time.
fn round(streams: &mut [TcpStream]) {
    for stream in &mut *streams {
        stream.write_all(rig::REQUEST).unwrap();
    }
    let mut room = [0; 4096];
    for stream in streams {
        let mut have = 0;
        while !room[..have].ends_with(b"hello") {
            let n = stream.read(&mut room[have..]).unwrap();
            assert!(n > 0, "the proxy closed the connection");
            have += n;
        }
        assert!(room.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

/// Nanoseconds on a core of every data thread, by its name.
fn worker_cpu() -> Vec<(String, u64)> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default().trim().to_owned();
        let is_worker = name.strip_prefix("outrigger-").is_some_and(|id| id.parse::<usize>().is_ok());
        let text = std::fs::read_to_string(path.join("schedstat")).unwrap_or_default();
        if let (true, Some(cpu)) = (is_worker, text.split(' ').next().and_then(|n| n.parse().ok())) {
            found.push((name, cpu));
        }
    }
    found.sort();
    found
}

/// CPU time per request in µs, of all workers together; the cheapest of some tries.
async fn cost(workers: usize) -> f64 {
    let proxy = rig::proxy(rig::origin(), None, HttpUpstream::Http1, workers);
    let address = proxy.listener_addrs("edge")[0];
    let mut streams: Vec<_> =
        (0..CONNECTIONS * workers).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stream in &streams {
        stream.set_nodelay(true).unwrap();
    }
    for _ in 0..50 {
        round(&mut streams);
    }
    let mut cheapest = f64::INFINITY;
    for _ in 0..TRIES {
        let before = worker_cpu();
        for _ in 0..ROUNDS {
            round(&mut streams);
        }
        let after = worker_cpu();
        assert_eq!(after.len(), workers, "one data thread per worker: {after:?}");
        let spent: Vec<u64> = after.iter().zip(&before).map(|(after, before)| after.1 - before.1).collect();
        let total: u64 = spent.iter().sum();
        // The kernel deals connections out by hash: an even split is not promised, a worker without any is a defect.
        assert!(spent.iter().all(|cpu| cpu * 20 > total), "a worker has nothing to do: {spent:?}");
        cheapest = cheapest.min(total as f64 / 1000.0 / (ROUNDS * streams.len()) as f64);
    }
    drop(streams);
    proxy.drain_within(Duration::ZERO).await;
    cheapest
}

#[test]
fn second_worker_leaves_the_cost_of_a_request_as_it_is() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let one = cost(1).await;
        let two = cost(2).await;
        println!(
            "CPU per request: {one:.1} µs with one worker, {two:.1} µs with two: {:.2} times",
            two / one
        );
        assert!(two <= one * BOUND, "{two:.1} µs with two workers, {one:.1} µs with one");
    });
}
