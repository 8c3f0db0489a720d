//! Who may append how much to the output.

use std::task::{Context, Poll};

use outrigger_wire::h2::StreamKey;
use outrigger_wire::h2::connection::SendError;

use super::Link;

/// What one stream may append per turn while others wait, octets.
const SHARE: usize = 16 << 10;

impl Link {
    /// Appends what fits of `data`; waits when nothing does.
    pub(in super::super) fn poll_send(
        &self,
        cx: &Context<'_>,
        stream: StreamKey,
        data: &[u8],
        last: bool,
    ) -> Poll<Result<usize, SendError>> {
        if self.over.get().is_some() {
            return Poll::Ready(Err(SendError::Over));
        }
        let turn = self.turn.get();
        let contended = self.contended.get();
        let used = self.with_mailbox(stream, |mailbox| if mailbox.turn == turn { mailbox.sent } else { 0 });
        let share = if contended { SHARE.saturating_sub(used.unwrap_or(0)) } else { usize::MAX };
        let part = data.get(..share).unwrap_or(data);
        if !part.is_empty() || data.is_empty() {
            let last = last && part.len() == data.len();
            let sent = match self.codec.borrow_mut().send_data(stream, part, last) {
                Ok(sent) => sent,
                Err(error) => return Poll::Ready(Err(error)),
            };
            if sent > 0 || data.is_empty() {
                self.nudge();
                self.with_mailbox(stream, |mailbox| {
                    if contended && mailbox.turn != turn {
                        self.served.set(self.served.get() + 1);
                    }
                    mailbox.sent = if mailbox.turn == turn { mailbox.sent + sent } else { sent };
                    mailbox.turn = turn;
                });
                return Poll::Ready(Ok(sent));
            }
        }
        let shut = self.codec.borrow().is_window_shut(stream);
        self.with_mailbox(stream, |mailbox| {
            if !shut && !std::mem::replace(&mut mailbox.queued, true) {
                self.blocked.borrow_mut().push_back(stream);
            }
            mailbox.wait_write(cx);
        });
        Poll::Pending
    }

    /// There is room on the connection: those who wait take turns.
    pub(super) fn make_room(&self) {
        self.turn.set(self.turn.get().wrapping_add(1));
        let mut blocked = std::mem::take(&mut *self.blocked.borrow_mut());
        self.contended.set(blocked.len() > 1);
        let served = self.served.replace(0);
        if blocked.is_empty() {
            return;
        }
        // They stand in the order in which they ran; those that got something go to the end.
        let by = served % blocked.len();
        blocked.rotate_left(by);
        for stream in &blocked {
            self.with_mailbox(*stream, |mailbox| {
                mailbox.queued = false;
                mailbox.wake_writer();
            });
        }
        blocked.clear();
        let mut place = self.blocked.borrow_mut();
        if place.is_empty() {
            *place = blocked;
        }
    }
}
