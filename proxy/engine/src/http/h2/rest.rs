//! When a connection gives back the memory it does not need while nothing is under way on it.

use std::task::Context;
use std::time::Duration;

use super::link::Link;
use crate::io::Deadline;
use crate::worker::Worker;

/// Idle time after which memory is given back. A busy connection has moments without a stream, many in a second: what it
/// gave back in each of them it would have to take again, cold, at once.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks after one connection.
pub(crate) struct Rest {
    deadline: Deadline,
    /// There were streams since it was armed.
    busy: bool,
}

impl Rest {
    /// Of a connection that begins.
    pub(crate) fn new(worker: &Worker) -> Self {
        Self { deadline: worker.wheel.deadline(), busy: true }
    }

    /// To be polled by the task that drives `link`.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, link: &Link) {
        if link.active() > 0 {
            self.busy = true;
            return;
        }
        if std::mem::take(&mut self.busy) {
            self.deadline.set(PATIENCE);
        }
        if self.deadline.poll_expired(cx).is_ready() {
            self.deadline.clear();
            link.rest();
        }
    }
}
