//! The thread that writes access logs.

use crate::telemetry::sets::ServerStats;
use crate::telemetry::stats::Sharded;
use outrigger_traffic::config::AccessLogSink;
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Buffers that may wait for the writer; with those of the workers this bounds what a blocked sink can hold.
const WAITING_MAX: usize = 64;

/// Buffers of lines that may wait for the services they go to. With at most 32 KiB each this bounds what services that
/// are away can hold.
pub const SERVICE_LINES_MAX: usize = 256;

/// Where lines go that are for a service: the program that embeds the engine takes them from the other end.
pub type LogOutlet = tokio::sync::mpsc::Sender<(Arc<AccessLogSink>, Vec<u8>)>;

/// Its other end.
pub type LogIntake = tokio::sync::mpsc::Receiver<(Arc<AccessLogSink>, Vec<u8>)>;

/// Both ends.
pub fn log_outlet() -> (LogOutlet, LogIntake) {
    tokio::sync::mpsc::channel(SERVICE_LINES_MAX)
}

#[derive(Debug)]
enum Message {
    Lines(Arc<AccessLogSink>, Vec<u8>),
    Reopen,
    Flushed(tokio::sync::oneshot::Sender<()>),
}

/// Where workers hand lines over.
#[derive(Clone, Debug)]
pub struct LogChannel(SyncSender<Message>);

impl LogChannel {
    /// Hands lines over, or gives them back where there is no room.
    pub(crate) fn write(&self, sink: &Arc<AccessLogSink>, lines: Vec<u8>) -> Result<(), Vec<u8>> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        match self.0.try_send(Message::Lines(sink.clone(), lines)) {
            Err(Full(Message::Lines(_, lines)) | Disconnected(Message::Lines(_, lines))) => Err(lines),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Closes all files, so that they are opened anew by name (log rotation). False: the writer is too busy or gone.
    pub fn reopen(&self) -> bool {
        self.0.try_send(Message::Reopen).is_ok()
    }

    /// Waits until everything handed over before is written; at once where the writer is too busy or gone.
    pub async fn flushed(&self) {
        let (done, wait) = tokio::sync::oneshot::channel();
        if self.0.try_send(Message::Flushed(done)).is_ok() {
            let _ = wait.await;
        }
    }
}

/// A channel and the loop that writes what comes through it; the loop belongs on a thread of its own (it blocks) and
/// ends when every channel is gone. Failed writes are counted in `stats` and the lines are lost.
pub fn log_writer(
    stats: Arc<Sharded<ServerStats>>,
    outlet: Option<LogOutlet>,
) -> (LogChannel, impl FnOnce() + Send + 'static) {
    let (sender, receiver) = sync_channel(WAITING_MAX);
    (LogChannel(sender), move || write_all(&receiver, &stats, outlet.as_ref()))
}

fn write_all(receiver: &Receiver<Message>, stats: &Sharded<ServerStats>, outlet: Option<&LogOutlet>) {
    let mut files = HashMap::new();
    while let Ok(message) = receiver.recv() {
        match message {
            Message::Lines(sink, lines) if matches!(*sink, AccessLogSink::Service(_)) => {
                let count = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
                if outlet.is_none_or(|outlet| outlet.try_send((sink, lines)).is_err()) {
                    stats.control().access_log_dropped.add(count);
                }
            }
            Message::Lines(sink, lines) => {
                if let Err(error) = write(&mut files, &sink, &lines) {
                    stats.control().access_log_write_errors.inc();
                    tracing::warn!(sink = ?*sink, error = %error, "access log cannot be written");
                }
            }
            Message::Reopen => files.clear(),
            Message::Flushed(done) => {
                let _ = done.send(());
            }
        }
    }
}

fn write(files: &mut HashMap<String, File>, sink: &AccessLogSink, lines: &[u8]) -> std::io::Result<()> {
    match sink {
        AccessLogSink::Stdout => {
            let mut out = std::io::stdout().lock();
            out.write_all(lines)?;
            out.flush()
        }
        AccessLogSink::Stderr => std::io::stderr().lock().write_all(lines),
        // Taken by the caller.
        AccessLogSink::Service(_) => Ok(()),
        AccessLogSink::File(path) => {
            if !files.contains_key(path) {
                files.insert(path.clone(), open(path)?);
            }
            match files.get_mut(path) {
                Some(file) => file.write_all(lines),
                None => Ok(()),
            }
        }
    }
}

/// Opens a log file for appending, making it where it is not there.
pub(in crate::telemetry) fn open(path: &str) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}
