//! Access logs: one line per request or TCP connection.
//!
//! A worker formats a line into a buffer of its own ([`WorkerLogs`]). Buffers are handed, when they are full or a moment
//! later, over a bounded channel to one writer thread ([`log_writer`]), so that a slow disk or a blocked pipe never
//! stops a worker. When the channel stays full and the buffer has reached its limit, lines are dropped and counted.

mod filter;
mod format;
mod writer;

pub use format::LineFormat;
pub(super) use format::start_time;
pub use writer::{LogChannel, LogIntake, LogOutlet, SERVICE_LINES_MAX, log_outlet, log_writer};

pub(super) use filter::{Filter, Sample, grpc_of};

use super::facts::{ConnectionView, RequestView};
use super::record::{ConnectionRecord, RequestRecord};
use crate::worker::Worker;
use outrigger_traffic::config::{AccessLog, AccessLogSink};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// A buffer of this size is handed over at once.
const HAND_OVER_BYTES: usize = 32 << 10;

/// Most lines are shorter.
const LINE_BYTES_USUAL: usize = 2 << 10;

/// A buffer that cannot be handed over grows to this and no more.
const BUFFER_BYTES_MAX: usize = 256 << 10;

/// A line waits no longer than this in a worker's buffer.
const FLUSH_AFTER: Duration = Duration::from_millis(50);

/// Whether lines can go to a sink: a file is opened for appending (and made), as Envoy does before it accepts a listener.
///
/// *Errors*: why not.
pub fn check_sink(sink: &AccessLogSink) -> Result<(), String> {
    match sink {
        AccessLogSink::Stdout | AccessLogSink::Stderr | AccessLogSink::Service(_) => Ok(()),
        AccessLogSink::File(path) => {
            writer::open(path).map(drop).map_err(|error| format!("`{path}` cannot be opened: {error}"))
        }
    }
}

/// One access log of a chain, compiled.
#[derive(Debug)]
pub struct AccessLogger {
    /// Where lines go.
    pub sink: Arc<AccessLogSink>,
    /// How they look.
    pub format: LineFormat,
    /// Which there are; `None`: all.
    filter: Option<Filter>,
}

impl AccessLogger {
    /// Compiles a configured log.
    ///
    /// *Errors*: a text that is no valid format, with its reason.
    pub fn compile(config: &AccessLog) -> Result<Self, String> {
        Ok(Self {
            sink: Arc::new(config.sink.clone()),
            format: LineFormat::compile(&config.format)?,
            filter: config.filter.as_ref().map(Filter::compile).transpose()?,
        })
    }
}

/// Lines of one worker that are not yet with the writer, per sink. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct WorkerLogs(Rc<Buffers>);

#[derive(Debug, Default)]
struct Buffers {
    pending: RefCell<Vec<Pending>>,
    channel: RefCell<Option<LogChannel>>,
}

#[derive(Debug)]
struct Pending {
    sink: Arc<AccessLogSink>,
    lines: Vec<u8>,
    /// Whether a job will hand the lines over.
    scheduled: bool,
}

/// What became of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appended {
    /// It waits; the buffer must be flushed later by a job that is not yet scheduled.
    NeedsFlush,
    /// It waits or was handed over.
    Taken,
    /// There was no room.
    Dropped,
}

impl Buffers {
    fn append(
        &self,
        channel: &LogChannel,
        sink: &Arc<AccessLogSink>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Appended {
        let mut pending = self.pending.borrow_mut();
        let index = match pending.iter().position(|p| *p.sink == **sink) {
            Some(index) => index,
            None => {
                self.channel.borrow_mut().get_or_insert_with(|| channel.clone());
                pending.push(Pending { sink: sink.clone(), lines: Vec::new(), scheduled: false });
                pending.len() - 1
            }
        };
        let Some(buffer) = pending.get_mut(index) else { return Appended::Dropped };
        if buffer.lines.len() >= BUFFER_BYTES_MAX {
            buffer.hand_over(channel);
            if buffer.lines.len() >= BUFFER_BYTES_MAX {
                return Appended::Dropped;
            }
        }
        if buffer.lines.capacity() == 0 {
            // At once what it grows to: the last line is the one that goes beyond.
            buffer.lines.reserve(HAND_OVER_BYTES + LINE_BYTES_USUAL);
        }
        write(&mut buffer.lines);
        if buffer.lines.len() >= HAND_OVER_BYTES {
            buffer.hand_over(channel);
        }
        if !buffer.lines.is_empty() && !buffer.scheduled {
            buffer.scheduled = true;
            return Appended::NeedsFlush;
        }
        Appended::Taken
    }

    /// Hands over what can be handed over; false: something is left.
    fn flush(&self) -> bool {
        let channel = self.channel.borrow();
        let Some(channel) = channel.as_ref() else { return true };
        let mut all = true;
        for buffer in self.pending.borrow_mut().iter_mut() {
            buffer.hand_over(channel);
            buffer.scheduled = !buffer.lines.is_empty();
            all &= !buffer.scheduled;
        }
        all
    }
}

impl WorkerLogs {
    /// Hands lines to the writer now, as far as it takes them.
    pub fn flush(&self) {
        self.0.flush();
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Pending {
    fn hand_over(&mut self, channel: &LogChannel) {
        if self.lines.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        if let Err(lines) = channel.write(&self.sink, lines) {
            self.lines = lines;
        }
    }
}

/// Logs a request that is over.
pub(super) fn write_request(
    worker: &Worker,
    log: &AccessLogger,
    record: &RequestRecord<'_>,
    total: Duration,
) {
    if log.filter.as_ref().is_some_and(|filter| !filter.wants(&Sample::of_request(worker, record, total))) {
        return;
    }
    let view = RequestView { record, total, telemetry: &worker.shared.telemetry, is_logged: true };
    append(worker, log, |out| log.format.write(&view, out));
}

/// Logs a TCP connection that is over.
pub(super) fn write_connection(worker: &Worker, log: &AccessLogger, record: &ConnectionRecord<'_>) {
    if log.filter.as_ref().is_some_and(|filter| !filter.wants(&Sample::of_connection(worker, record))) {
        return;
    }
    let view = ConnectionView { record, telemetry: &worker.shared.telemetry };
    append(worker, log, |out| log.format.write(&view, out));
}

fn append(worker: &Worker, log: &AccessLogger, write: impl FnOnce(&mut Vec<u8>)) {
    match worker.logs.0.append(&worker.shared.telemetry.access_log, &log.sink, write) {
        Appended::Taken => {}
        Appended::Dropped => worker.shared.server.at(worker.id).access_log_dropped.inc(),
        Appended::NeedsFlush => schedule_flush(worker),
    }
}

fn schedule_flush(worker: &Worker) {
    let logs = worker.logs.clone();
    worker.jobs.spawn(async move {
        loop {
            tokio::time::sleep(FLUSH_AFTER).await;
            if logs.0.flush() {
                break;
            }
        }
    });
}

#[cfg(test)]
mod tests;
