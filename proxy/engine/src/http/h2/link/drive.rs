//! The turn of the task that owns the socket: write what waits, read, hand on.

use std::task::{Context, Poll};
use std::time::Duration;

use outrigger_wire::h1::BodyLength;
use outrigger_wire::h2::{Code, Event, HeadRefusal, Role, StreamKey, limit};
use tokio::time::Instant;

use super::super::mailbox::Mailbox;
use super::{Accept, Arrived, Link, Over, Waiting};
use crate::exchange::express::{self, Ticket};
use crate::exchange::serve_apart;
use crate::worker::Worker;

/// Octets waiting to be sent beyond which a server does not read on: the peer asks without reading the answers. Data stops
/// far below, so that this is heads and answers to control frames only.
const BACKLOG: usize = 256 << 10;
/// Streams that ended and whose tasks are to end before more is taken in; see [`limit::RESETS_PENDING`].
const LINGERING: usize = limit::RESETS_PENDING / 2;
/// Requests, or responses, of what was read that are worked on together: each step is taken with all of them before the
/// next one, so that its code comes into the first-level cache once for all. The code of all steps does not fit into it,
/// and the state of many more exchanges would not fit into that of data.
const BATCH: usize = 16;
/// Time for the last frames of a connection to leave.
const GOODBYE: Duration = Duration::from_secs(1);

impl Link {
    /// Reads and writes until neither goes on; ready when the connection is over. Requests go to `accept`.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>, accept: &mut Accept<'_>) -> Poll<Over> {
        self.nudged.set(false);
        match &mut *self.driver.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        if let Some(over) = self.over.get() {
            return Poll::Ready(over);
        }
        let over = self.turn(cx, accept);
        if let Some(over) = over {
            self.end(over);
            return Poll::Ready(over);
        }
        Poll::Pending
    }

    fn turn(&self, cx: &mut Context<'_>, accept: &mut Accept<'_>) -> Option<Over> {
        if self.write(cx).is_err() {
            return Some(Over::Closed);
        }
        if self.role == Role::Server && self.backlog() > BACKLOG {
            // The write that waits wakes us.
            self.hand_on_arrived(true);
            return None;
        }
        if let Some(over) = self.read(cx, accept) {
            self.hand_on_arrived(true);
            return Some(over);
        }
        let waiting = {
            let codec = self.codec.borrow();
            if codec.is_done() && codec.output_len() == 0 && self.written.get() == self.writing.borrow().len()
            {
                return Some(Over::Done);
            }
            codec.output_len() > 0
        };
        if waiting {
            // Answers of ours leave together with what the streams do about what was read.
            self.nudge();
        }
        None
    }

    fn backlog(&self) -> usize {
        self.writing.borrow().len() - self.written.get() + self.codec.borrow().output_len()
    }

    /// Writes what waits, in one call where the socket takes it.
    fn write(&self, cx: &mut Context<'_>) -> std::io::Result<()> {
        loop {
            let mut writing = self.writing.borrow_mut();
            if self.written.get() == writing.len() {
                writing.clear();
                self.written.set(0);
                let mut codec = self.codec.borrow_mut();
                if codec.output_len() == 0 {
                    break;
                }
                codec.take_output(&mut writing);
                drop(codec);
                self.make_room();
            }
            let rest = writing.get(self.written.get()..).unwrap_or_default();
            match self.io.poll_write(cx, rest)? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(n) => self.written.set(self.written.get() + n),
                Poll::Pending => return Ok(()),
            }
        }
        match self.io.poll_flush(cx) {
            Poll::Ready(Err(error)) => Err(error),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn read(&self, cx: &mut Context<'_>, accept: &mut Accept<'_>) -> Option<Over> {
        if self.paused.replace(false) {
            let held = std::mem::take(&mut *self.held.borrow_mut());
            if let Some(over) = self.take(&held, accept) {
                return Some(over);
            }
            if self.paused.get() {
                self.nudge();
                return None;
            }
        }
        loop {
            let mut buf = self.buffers.take_big();
            buf.append(&self.held.borrow());
            let space = buf.space();
            let most = space.len();
            let n = match self.io.poll_read(cx, space) {
                Poll::Pending => {
                    self.hand_on_arrived(true);
                    self.leave_begun();
                    return None;
                }
                Poll::Ready(Ok(0) | Err(_)) => return Some(Over::Closed),
                Poll::Ready(Ok(n)) => n,
            };
            buf.filled(n);
            self.held.borrow_mut().clear();
            if let Some(over) = self.take(buf.data(), accept) {
                return Some(over);
            }
            if n == most || self.paused.get() {
                // The streams come first.
                self.nudge();
                return None;
            }
        }
    }

    /// Takes octets in; what is not used is held.
    fn take(&self, octets: &[u8], accept: &mut Accept<'_>) -> Option<Over> {
        let at = Instant::now();
        let now = at.saturating_duration_since(self.began);
        let mut input = octets;
        let failed = loop {
            let event = self.codec.borrow_mut().receive(&mut input, now);
            match event {
                Ok(Some(event)) => self.deliver(event, at, accept),
                Ok(None) => break None,
                Err(error) => break Some(Over::Failed(error)),
            }
            if self.paused.get() {
                break None;
            }
        };
        self.hand_on_arrived(false);
        self.hand_on_answered();
        if failed.is_some() {
            return failed;
        }
        let mut held = self.held.borrow_mut();
        held.clear();
        if input.is_empty() {
            held.shrink_to(0);
        } else {
            held.extend_from_slice(input);
        }
        None
    }

    fn deliver(&self, event: Event<'_>, at: Instant, accept: &mut Accept<'_>) {
        match event {
            Event::Request { stream, body, ended } => self.arrive(stream, Ok(body), ended, at, accept),
            Event::Refused { stream, refusal, ended } => {
                self.arrive(stream, Err(refusal), ended, at, accept);
            }
            Event::Response { stream, framing, ended } => {
                let mut head = self.memory.response();
                self.codec.borrow_mut().swap_response(&mut head);
                let ticket = self.with_mailbox(stream, |mailbox| {
                    if let Some(head) = mailbox.put_head(framing, head) {
                        self.memory.keep_response(head);
                    }
                    mailbox.ended |= ended;
                    mailbox.wake_reader();
                    mailbox.ticket
                });
                if let Some(ticket) = ticket.flatten() {
                    if ended {
                        self.answer(ticket);
                    } else {
                        self.begun.borrow_mut().push(ticket);
                    }
                }
            }
            Event::Data { stream, octets, ended } => {
                let ticket = self.with_mailbox(stream, |mailbox| {
                    mailbox.data.extend_from_slice(octets);
                    mailbox.ended |= ended;
                    mailbox.wake_reader();
                    mailbox.ticket
                });
                if ended {
                    self.whole(stream, ticket.flatten());
                }
            }
            Event::Trailers { stream } => {
                let ticket = self.with_mailbox(stream, |mailbox| {
                    let mut trailers = self.memory.trailers();
                    self.codec.borrow_mut().swap_trailers(&mut trailers);
                    mailbox.trailers = Some(trailers);
                    mailbox.ended = true;
                    mailbox.wake_reader();
                    mailbox.ticket
                });
                if let Some(ticket) = ticket.flatten() {
                    self.answer(ticket);
                }
            }
            Event::Reset { stream, end, .. } => {
                let ticket = self.with_mailbox(stream, |mailbox| {
                    mailbox.end = Some(end);
                    mailbox.wake();
                    mailbox.ticket
                });
                if let Some(ticket) = ticket.flatten() {
                    self.lane.leave(ticket);
                }
                if self.codec.borrow().lingering_streams() >= LINGERING {
                    self.paused.set(true);
                }
            }
            Event::Window { stream } => {
                self.with_mailbox(stream, Mailbox::wake_writer);
            }
            Event::Room => self.make_room(),
            Event::Settings => {
                for mailbox in self.mailboxes.borrow_mut().iter_mut() {
                    mailbox.wake_writer();
                }
            }
            Event::Pong => self.ponged.set(true),
            Event::GoAway { .. } => self.told_away.set(true),
        }
    }

    fn arrive(
        &self,
        stream: StreamKey,
        read: Result<BodyLength, HeadRefusal>,
        ended: bool,
        at: Instant,
        accept: &mut Accept<'_>,
    ) {
        self.begin(stream);
        self.with_mailbox(stream, |mailbox| mailbox.ended = ended);
        let mut head = self.memory.request();
        self.codec.borrow_mut().swap_request(&mut head);
        let Some(x) = accept(Arrived { stream, head, read, at }) else { return };
        let mut arrived = self.arrived.borrow_mut();
        arrived.push(Waiting { stream, x, whole: ended });
        if arrived.len() >= BATCH {
            drop(arrived);
            self.hand_on_arrived(false);
            if self.arrived.borrow().len() >= BATCH {
                self.hand_on_arrived(true);
            }
        }
    }

    /// All of a stream's data is here.
    fn whole(&self, stream: StreamKey, ticket: Option<Ticket>) {
        if let Some(ticket) = ticket {
            return self.answer(ticket);
        }
        // Nearly always, a small body comes with its head: it is the last.
        if let Some(arrived) =
            self.arrived.borrow_mut().iter_mut().rev().find(|arrived| arrived.stream == stream)
        {
            arrived.whole = true;
        }
    }

    /// A response is here as a whole.
    fn answer(&self, ticket: Ticket) {
        let mut answered = self.answered.borrow_mut();
        answered.push(ticket);
        if answered.len() >= BATCH {
            drop(answered);
            self.hand_on_answered();
        }
    }

    fn hand_on_answered(&self) {
        if self.answered.borrow().is_empty() {
            return;
        }
        let mut answered = std::mem::take(&mut *self.answered.borrow_mut());
        self.lane.complete(answered.drain(..));
        *self.answered.borrow_mut() = answered;
    }

    /// Hands on the requests that are here as a whole, or all: those whose end is not here when nothing more is are
    /// served as it comes.
    fn hand_on_arrived(&self, all: bool) {
        if self.arrived.borrow().is_empty() {
            return;
        }
        let mut arrived = std::mem::take(&mut *self.arrived.borrow_mut());
        for one in arrived.extract_if(.., |one| all || one.whole) {
            // One that was given up already is none for the express lane.
            if one.whole && self.with_mailbox(one.stream, |mailbox| mailbox.end.is_none()) == Some(true) {
                express::begin(one.x);
            } else {
                serve_apart(one.x);
            }
        }
        *self.arrived.borrow_mut() = arrived;
        self.lane.depart();
    }

    /// Exchanges whose response has begun and did not end with what is here need a task to wait for the rest.
    fn leave_begun(&self) {
        loop {
            let Some(ticket) = self.begun.borrow_mut().pop() else { return };
            self.lane.leave(ticket);
        }
    }

    /// Sends what is left, tells the peer `code` where it was told nothing, and closes our half; waits a second at most.
    pub(crate) async fn close(&self, worker: &Worker, code: Code) {
        let over = self.over.get();
        self.end(Over::Done);
        if over == Some(Over::Closed) {
            return;
        }
        self.codec.borrow_mut().abort(code);
        let last = async {
            std::future::poll_fn(|cx| {
                if self.write(cx).is_err() {
                    return Poll::Ready(());
                }
                if self.backlog() > 0 {
                    return Poll::Pending;
                }
                self.io.poll_flush(cx).map(|_| ())
            })
            .await;
            let _ = self.io.shutdown().await;
        };
        worker.wheel.timeout(Some(GOODBYE), last).await;
    }
}
