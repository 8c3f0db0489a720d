use super::*;
use crate::telemetry::Sharded;

fn sink() -> Arc<AccessLogSink> {
    Arc::new(AccessLogSink::Stdout)
}

#[test]
fn buffer_at_its_limit_drops_one_line_more_while_the_writer_is_stuck() {
    // The writer never runs: its channel takes so many buffers and no more.
    let (channel, _stuck) = log_writer(Arc::new(Sharded::new(1)), None);
    let logs = WorkerLogs::default();
    let line = vec![b'x'; 1024];
    let mut taken = 0_usize;
    let dropped = loop {
        match logs.0.append(&channel, &sink(), |out| out.extend_from_slice(&line)) {
            Appended::Dropped => break true,
            Appended::Taken | Appended::NeedsFlush => taken += 1,
        }
        if taken > 1 << 16 {
            break false;
        }
    };
    assert!(dropped);
    // 64 buffers with the writer, and the worker's own at its limit.
    assert_eq!(taken * 1024, 64 * HAND_OVER_BYTES + BUFFER_BYTES_MAX);
}

#[test]
fn lines_of_different_sinks_are_kept_apart_and_flush_is_asked_for_once() {
    let (channel, _stuck) = log_writer(Arc::new(Sharded::new(1)), None);
    let logs = WorkerLogs::default();
    let other = Arc::new(AccessLogSink::Stderr);
    let write = |out: &mut Vec<u8>| out.extend_from_slice(b"line\n");
    assert_eq!(logs.0.append(&channel, &sink(), write), Appended::NeedsFlush);
    assert_eq!(logs.0.append(&channel, &sink(), write), Appended::Taken);
    assert_eq!(logs.0.append(&channel, &other, write), Appended::NeedsFlush);
    assert!(logs.0.flush());
    assert_eq!(logs.0.append(&channel, &sink(), write), Appended::NeedsFlush);
}
