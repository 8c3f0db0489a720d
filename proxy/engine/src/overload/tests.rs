use super::memory::{ReadMemory, SystemMemory, Usage};
use super::{Action, Overload};
use outrigger_traffic::config::{CgroupMemory, Fraction, MemoryMonitor, OverloadManager, Trigger};
use std::io;
use std::path::Path;
use std::time::Duration;

/// A machine with this much memory in use, of 1000 bytes.
#[derive(Debug)]
struct Fake {
    process: u64,
    group: Option<u64>,
}

impl ReadMemory for Fake {
    fn process_bytes(&self) -> io::Result<u64> {
        Ok(self.process)
    }

    fn cgroup(&self, max_bytes: Option<u64>) -> io::Result<Option<Usage>> {
        Ok(self.group.map(|used| Usage { used, limit: max_bytes.unwrap_or(1000) }))
    }
}

fn active(rules: &OverloadManager, process: u64, group: Option<u64>) -> Vec<Action> {
    let overload = Overload::default();
    overload.refresh(rules, &Fake { process, group });
    let all =
        [Action::StopRequests, Action::StopConnections, Action::RejectConnections, Action::DisableKeepalive];
    all.into_iter().filter(|action| overload.is_active(*action)).collect()
}

#[test]
fn default_refuses_requests_at_95_percent_of_the_cgroup_and_connections_at_98() {
    let rules = OverloadManager::default();
    for (used, expected) in [
        (None, vec![]),
        (Some(949), vec![]),
        (Some(950), vec![Action::StopRequests]),
        (Some(979), vec![Action::StopRequests]),
        (Some(980), vec![Action::StopRequests, Action::StopConnections]),
        (Some(5000), vec![Action::StopRequests, Action::StopConnections]),
    ] {
        assert_eq!(active(&rules, 10_000, used), expected, "{used:?}");
    }
}

#[test]
fn every_action_follows_the_monitors_of_its_own_triggers() {
    let at = |monitor, percent| vec![Trigger { monitor, threshold: Fraction::from_percent(percent) }];
    let (heap, group) = (MemoryMonitor::FixedHeap, MemoryMonitor::CgroupMemory);
    let rules = OverloadManager {
        fixed_heap_bytes: Some(200),
        cgroup_memory: Some(CgroupMemory { max_bytes: Some(400) }),
        stop_accepting_requests: at(heap, 100),
        stop_accepting_connections: at(group, 100),
        reject_incoming_connections: [at(heap, 50), at(group, 75)].concat(),
        disable_http_keepalive: at(heap, 0),
        ..OverloadManager::none(Duration::from_secs(1))
    };
    use Action::{DisableKeepalive as K, RejectConnections as J, StopConnections as C, StopRequests as R};
    for (process, used, expected) in [
        (99, 299, vec![K]),
        (100, 299, vec![J, K]),
        (99, 300, vec![J, K]),
        (199, 399, vec![J, K]),
        (200, 399, vec![R, J, K]),
        (199, 400, vec![C, J, K]),
    ] {
        assert_eq!(active(&rules, process, Some(used)), expected, "{process} {used}");
    }
}

#[tokio::test]
async fn waiting_for_the_end_of_an_action_ends_when_memory_is_there_again() {
    let (overload, rules) = (Overload::default(), OverloadManager::default());
    overload.refresh(&rules, &Fake { process: 0, group: Some(990) });
    let stats = overload.stats.control();
    assert_eq!(
        (stats.cgroup_pressure.value(), stats.requests.value(), stats.connections.value()),
        (99, 1, 1)
    );
    let mut over = std::pin::pin!(overload.over(Action::StopConnections));
    assert!(futures_pending(over.as_mut()).await);
    overload.refresh(&rules, &Fake { process: 0, group: Some(960) });
    over.await;
    assert!(overload.is_active(Action::StopRequests));
    assert_eq!(
        (stats.cgroup_pressure.value(), stats.requests.value(), stats.connections.value()),
        (96, 1, 0)
    );
}

async fn futures_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|cx| std::task::Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

fn write(root: &Path, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

#[test]
fn cgroup_of_either_version_is_found_with_the_limits_above_it() {
    let v2 = "0::/a/b\n";
    let v1 = "11:cpu,cpuacct:/x\n5:memory:/a\n1:name=systemd:/x\n";
    let stat = "anon 5\nfile 7\ninactive_file 100\n";
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, Option<u64>, Option<Usage>);
    let cases: Vec<Case<'_>> = vec![
        (v2, vec![], None, None),
        // Seen from inside a container: our own group is the root of what there is.
        (
            "0::/\n",
            vec![("memory.max", "1000\n"), ("memory.current", "600\n"), ("memory.stat", stat)],
            None,
            Some(Usage { used: 500, limit: 1000 }),
        ),
        // The limit of the group above is the closer one.
        (
            v2,
            vec![
                ("a/b/memory.max", "max\n"),
                ("a/b/memory.current", "600\n"),
                ("a/memory.max", "800\n"),
                ("a/memory.current", "700\n"),
            ],
            None,
            Some(Usage { used: 700, limit: 800 }),
        ),
        // A limit of our own, where the group has a higher one or none.
        (
            v2,
            vec![("a/b/memory.max", "1000"), ("a/b/memory.current", "300")],
            Some(400),
            Some(Usage { used: 300, limit: 400 }),
        ),
        (
            v2,
            vec![("a/b/memory.max", "max"), ("a/b/memory.current", "300")],
            Some(400),
            Some(Usage { used: 300, limit: 400 }),
        ),
        (
            v1,
            vec![
                ("memory/a/memory.limit_in_bytes", "1000\n"),
                ("memory/a/memory.usage_in_bytes", "900\n"),
                ("memory/a/memory.stat", "inactive_file 1\ntotal_inactive_file 50\n"),
            ],
            None,
            Some(Usage { used: 850, limit: 1000 }),
        ),
        (
            v1,
            vec![
                ("memory/a/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/a/memory.usage_in_bytes", "900\n"),
            ],
            None,
            None,
        ),
    ];
    for (own, files, max, expected) in cases {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &files);
        assert_eq!(SystemMemory::new(root.path(), own).cgroup(max).unwrap(), expected, "{own:?} {files:?}");
    }
    let root = tempfile::tempdir().unwrap();
    write(root.path(), &[("memory.max", "plenty\n")]);
    assert!(SystemMemory::new(root.path(), "0::/").cgroup(None).is_err());
}

#[test]
fn process_knows_its_own_memory() {
    let before = SystemMemory::default().process_bytes().unwrap();
    assert!(before > 100_000, "{before}");
    let filled = vec![1_u8; 64 << 20];
    let after = SystemMemory::default().process_bytes().unwrap();
    assert!(after - before > 32 << 20, "{before} {after} {}", filled.len());
}
