//! What has arrived for one stream and was not taken by its task yet.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use outrigger_wire::h1::ResponseFraming;
use outrigger_wire::h2::StreamEnd;
use outrigger_wire::{ResponseHead, Trailers};

use crate::exchange::express::Ticket;

/// Interim responses that wait; more are dropped, because nothing depends on them (RFC 9110 §15.2).
const HEADS: usize = 8;
/// Memory for data that a mailbox keeps for the next stream, bytes.
const KEEP: usize = 16 << 10;

/// One stream's mailbox.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    /// The stream it belongs to; 0: none.
    pub(super) id: u32,
    /// Data, bounded by the stream's window.
    pub(super) data: Vec<u8>,
    /// Response heads, the last of which may be final.
    heads: VecDeque<(ResponseFraming, ResponseHead)>,
    /// Trailers; they come with the end.
    pub(super) trailers: Option<Trailers>,
    /// Everything has arrived.
    pub(super) ended: bool,
    /// The stream ended before its time.
    pub(super) end: Option<StreamEnd>,
    /// Halves of the stream that are in use.
    pub(super) holders: u8,
    /// The task of the stream: both halves are polled by one.
    waker: Option<Waker>,
    /// The stream has no task: its exchange is in the express lane.
    pub(super) ticket: Option<Ticket>,
    reading: bool,
    writing: bool,
    /// It stands in the queue of those that wait for room on the connection.
    pub(super) queued: bool,
    /// Turn in which it sent last, and how much.
    pub(super) turn: u32,
    pub(super) sent: usize,
}

impl Mailbox {
    /// Begins with another stream.
    pub(super) fn begin(&mut self, id: u32) {
        self.id = id;
        self.holders = 2;
        self.data.clear();
        self.heads.clear();
        self.trailers = None;
        self.ended = false;
        self.end = None;
        self.ticket = None;
        self.reading = false;
        self.writing = false;
        self.queued = false;
        self.sent = 0;
    }

    /// The stream is gone.
    pub(super) fn clear(&mut self) {
        self.begin(0);
        self.waker = None;
        if self.data.capacity() > KEEP {
            self.data = Vec::new();
        }
    }

    /// Takes memory back.
    pub(super) fn recycle(&mut self, mut data: Vec<u8>) {
        if data.capacity() <= KEEP && data.capacity() > self.data.capacity() && self.data.is_empty() {
            data.clear();
            self.data = data;
        }
    }

    /// A response head arrived. Gives back one that there is no room for.
    pub(super) fn put_head(&mut self, framing: ResponseFraming, head: ResponseHead) -> Option<ResponseHead> {
        if framing.informational && self.heads.len() >= HEADS {
            return Some(head);
        }
        self.heads.push_back((framing, head));
        None
    }

    /// The next head that arrived.
    pub(super) fn take_head(&mut self) -> Option<(ResponseFraming, ResponseHead)> {
        self.heads.pop_front()
    }

    /// Whether all of a response is here, and nothing but it: how many octets of data it has.
    pub(super) fn whole_response(&self) -> Option<usize> {
        let (framing, _) = self.heads.front()?;
        (self.ended && self.end.is_none() && !framing.informational && !framing.switching)
            .then_some(self.data.len())
    }

    /// The task waits for something to read.
    pub(super) fn wait_read(&mut self, cx: &Context<'_>) {
        self.reading = true;
        self.register(cx);
    }

    /// The task waits for room to write.
    pub(super) fn wait_write(&mut self, cx: &Context<'_>) {
        self.writing = true;
        self.register(cx);
    }

    /// The task waits for an end before its time.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
    }

    /// There is something to read.
    pub(super) fn wake_reader(&mut self) {
        if std::mem::take(&mut self.reading) {
            self.wake();
        }
    }

    /// There is room to write.
    pub(super) fn wake_writer(&mut self) {
        if std::mem::take(&mut self.writing) {
            self.wake();
        }
    }

    /// Something happened that concerns both halves.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}
