//! Memory runs out: what is refused, what goes on, and that it comes back.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use outrigger_engine::overload::Action;
use outrigger_engine::overload::memory::{ReadMemory, Usage};
use outrigger_engine::proxy::ProxyOptions;
use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{Fraction, MemoryMonitor, OverloadManager, Trigger};

use crate::bed::{Bed, eventually, to};

/// A control group of 1000 bytes, of which this many are used.
#[derive(Clone, Debug, Default)]
struct Group(Arc<AtomicU64>);

impl ReadMemory for Group {
    fn process_bytes(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn cgroup(&self, _: Option<u64>) -> io::Result<Option<Usage>> {
        Ok(Some(Usage { used: self.0.load(Ordering::Relaxed), limit: 1000 }))
    }
}

async fn bed(rules: OverloadManager, origin: &Origin) -> (Bed, Group) {
    let group = Group::default();
    let overload = OverloadManager { refresh_interval: Duration::from_millis(5), ..rules };
    let options = ProxyOptions { overload, memory: Arc::new(group.clone()), ..ProxyOptions::default() };
    (Bed::start_with(options, to(&[origin])), group)
}

/// Uses so many bytes and waits until that is noticed.
async fn use_bytes(bed: &Bed, group: &Group, bytes: u64) {
    group.0.store(bytes, Ordering::Relaxed);
    let overload = &bed.handle.shared().overload;
    eventually("the pressure", || {
        let stats = overload.stats.control();
        stats.cgroup_pressure.value() == bytes / 10
            && (stats.requests.value() == 1) == overload.is_active(Action::StopRequests)
    })
    .await;
}

fn listener_stat(bed: &Bed, pick: impl Fn(&outrigger_engine::telemetry::ListenerStats) -> u64) -> u64 {
    bed.handle.shared().live.load_full().listeners.get("edge").expect("the listener").stats.total(pick)
}

#[tokio::test]
async fn requests_are_refused_from_95_percent_on_and_served_again_below() {
    let origin = Origin::h1("one").await;
    let (bed, group) = bed(OverloadManager::default(), &origin).await;
    use_bytes(&bed, &group, 940).await;
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    use_bytes(&bed, &group, 950).await;
    let refused = get(bed.address, "h", "/").await;
    assert_eq!((refused.status, refused.text().as_str()), (503, "envoy overloaded"));
    let h2 = bed.h2().await;
    assert_eq!(h2.get("h", "/").await.unwrap().status, 503);
    assert_eq!(bed.http_stat(|stats| stats.downstream_rq_overload_close.value()), 2);
    use_bytes(&bed, &group, 940).await;
    assert_eq!(get(bed.address, "h", "/").await.status, 200);
    assert_eq!(h2.get("h", "/").await.unwrap().status, 200);
    assert_eq!(bed.http_stat(|stats| stats.downstream_rq_overload_close.value()), 2);
}

#[tokio::test]
async fn connections_wait_from_98_percent_on_and_are_served_when_memory_is_there_again() {
    let origin = Origin::h1("one").await;
    let (bed, group) = bed(OverloadManager::default(), &origin).await;
    use_bytes(&bed, &group, 980).await;
    let accepted = listener_stat(&bed, |stats| stats.downstream_cx_total.value());
    let address = bed.address;
    let waiting = tokio::spawn(async move { get(address, "h", "/").await.status });
    // Connected as far as the system is concerned, and not accepted: a whole look at memory long.
    use_bytes(&bed, &group, 990).await;
    assert_eq!(listener_stat(&bed, |stats| stats.downstream_cx_total.value()), accepted);
    use_bytes(&bed, &group, 500).await;
    assert_eq!(waiting.await.expect("an answer"), 200);
}

#[tokio::test]
async fn rejecting_closes_new_connections_and_no_keepalive_ends_old_ones() {
    let origin = Origin::h1("one").await;
    let at = |percent| {
        vec![Trigger { monitor: MemoryMonitor::CgroupMemory, threshold: Fraction::from_percent(percent) }]
    };
    let rules = OverloadManager {
        cgroup_memory: Some(Default::default()),
        reject_incoming_connections: at(80),
        disable_http_keepalive: at(60),
        ..OverloadManager::none(Duration::from_secs(1))
    };
    let (bed, group) = bed(rules, &origin).await;
    use_bytes(&bed, &group, 590).await;
    let mut h1 = bed.h1().await;
    let answer = h1.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    assert_eq!(answer.field("connection"), None);
    use_bytes(&bed, &group, 600).await;
    let answer = h1.request("GET", "/", &[("host", "h")], b"").await.unwrap();
    assert_eq!(answer.field("connection"), Some("close"));
    assert_eq!(bed.http_stat(|stats| stats.downstream_cx_overload_disable_keepalive.value()), 1);
    use_bytes(&bed, &group, 800).await;
    let answer = outrigger_testkit::client::send_raw(bed.address, b"GET / HTTP/1.1\r\nhost: h\r\n\r\n").await;
    assert_eq!(answer, b"");
    assert_eq!(listener_stat(&bed, |stats| stats.downstream_cx_overload_reject.value()), 1);
}
