//! PINGs that find out whether the other end is alive.

use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_traffic::config::Http2Options;

use super::link::Link;
use crate::io::Deadline;
use crate::worker::Worker;

/// The PINGs of one connection. Does nothing where no interval is configured.
pub(crate) struct KeepAlive {
    deadline: Deadline,
    interval: Option<Duration>,
    timeout: Duration,
    asked: bool,
}

impl KeepAlive {
    /// The first PING comes an interval from now.
    pub(crate) fn new(worker: &Worker, options: &Http2Options) -> Self {
        let deadline = worker.wheel.deadline();
        deadline.set_opt(options.keepalive_interval);
        Self {
            deadline,
            interval: options.keepalive_interval,
            timeout: options.keepalive_timeout,
            asked: false,
        }
    }

    /// Ready when a PING was not answered in time. To be polled by the task that drives `link`.
    pub(crate) fn poll_dead(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<()> {
        let Some(interval) = self.interval else { return Poll::Pending };
        if self.asked && link.take_pong() {
            self.asked = false;
            self.deadline.set(interval);
        }
        while self.deadline.poll_expired(cx).is_ready() {
            if self.asked {
                return Poll::Ready(());
            }
            self.asked = true;
            link.ping();
            self.deadline.set(self.timeout);
        }
        Poll::Pending
    }
}
