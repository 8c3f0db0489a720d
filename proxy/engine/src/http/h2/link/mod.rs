//! One HTTP/2 connection on a socket, shared by the task that drives it and the tasks of its streams.
//!
//! Nothing is borrowed across an await, and no borrow is held while foreign code runs. A stream that appended frames
//! wakes the driver; the driver's turn comes after those of all tasks that were ready before it, so that one write takes
//! what all of them appended.
//!
//! What is sent waits in one buffer of bounded size. Streams that found it full, or the connection's window shut, stand in
//! a queue and take turns, each with a share of the next buffer.

mod drive;
mod share;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::Waker;
use std::time::Duration;

use outrigger_wire::RequestHead;
use outrigger_wire::h1::BodyLength;
use outrigger_wire::h2::connection::SendError;
use outrigger_wire::h2::{Connection, H2Error, HeadRefusal, Options, Role, StreamKey};
use tokio::time::Instant;

use super::mailbox::Mailbox;
use super::memory::Memory;
use crate::exchange::Exchange;
use crate::exchange::express::{Lane, Ticket};
use crate::io::{Buf, BufferPool, Io};
use crate::worker::Worker;

/// Memory of one kind, and mailboxes, that an idle connection keeps.
const REST_BYTES: usize = 2048;
const REST_MAILBOXES: usize = 8;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The peer or the network closed it.
    Closed,
    /// The peer broke HTTP/2, or used up a limit.
    Failed(H2Error),
    /// An orderly end is complete.
    Done,
}

/// A request that began.
pub(crate) struct Arrived {
    /// Its stream.
    pub(crate) stream: StreamKey,
    /// Its head.
    pub(crate) head: RequestHead,
    /// How the body is delimited, or why it is to be refused.
    pub(crate) read: Result<BodyLength, HeadRefusal>,
    /// When its head was read.
    pub(crate) at: Instant,
}

/// Makes an exchange of a request; `None` when there is nothing to wait for.
pub(crate) type Accept<'a> = dyn FnMut(Arrived) -> Option<Box<Exchange>> + 'a;

/// A request that is not handed on yet.
struct Waiting {
    stream: StreamKey,
    x: Box<Exchange>,
    /// Everything of it has arrived, and no trailers.
    whole: bool,
}

/// One connection.
pub(crate) struct Link {
    io: Rc<Io>,
    buffers: BufferPool,
    role: Role,
    codec: RefCell<Connection>,
    mailboxes: RefCell<Vec<Mailbox>>,
    /// Streams that wait for room on the connection.
    blocked: RefCell<VecDeque<StreamKey>>,
    /// Several streams waited in the last turn.
    contended: Cell<bool>,
    /// Streams that got a share of this turn.
    served: Cell<usize>,
    turn: Cell<u32>,
    driver: RefCell<Option<Waker>>,
    nudged: Cell<bool>,
    writing: RefCell<Vec<u8>>,
    written: Cell<usize>,
    /// Requests that were read and not handed on: together with others, or when their end has been read too.
    arrived: RefCell<Vec<Waiting>>,
    /// Exchanges in the express lane whose response is here.
    answered: RefCell<Vec<Ticket>>,
    /// Exchanges in the express lane whose response began and did not end yet.
    begun: RefCell<Vec<Ticket>>,
    lane: Rc<Lane>,
    memory: Rc<Memory>,
    /// Octets that were read and not taken: part of a frame, or, when `paused`, anything.
    held: RefCell<Vec<u8>>,
    paused: Cell<bool>,
    began: Instant,
    over: Cell<Option<Over>>,
    ponged: Cell<bool>,
    told_away: Cell<bool>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("role", &self.role)
            .field("over", &self.over.get())
            .finish_non_exhaustive()
    }
}

impl Link {
    /// A connection that begins. `first` are octets that were read to find the protocol.
    pub(crate) fn new(
        worker: &Worker,
        io: Rc<Io>,
        role: Role,
        options: Options,
        first: Option<&Buf>,
    ) -> Rc<Self> {
        Rc::new(Self {
            io,
            buffers: worker.buffers.clone(),
            role,
            codec: RefCell::new(Connection::new(role, options, Duration::ZERO)),
            mailboxes: RefCell::default(),
            blocked: RefCell::default(),
            contended: Cell::new(false),
            served: Cell::new(0),
            turn: Cell::new(0),
            driver: RefCell::new(None),
            nudged: Cell::new(false),
            writing: RefCell::default(),
            written: Cell::new(0),
            arrived: RefCell::default(),
            answered: RefCell::default(),
            begun: RefCell::default(),
            lane: worker.lane.clone(),
            memory: worker.memory.clone(),
            held: RefCell::new(first.map(|first| first.data().to_vec()).unwrap_or_default()),
            paused: Cell::new(first.is_some()),
            began: Instant::now(),
            over: Cell::new(None),
            ponged: Cell::new(false),
            told_away: Cell::new(false),
        })
    }

    /// How the connection ended.
    pub(crate) const fn over(&self) -> Option<Over> {
        self.over.get()
    }

    /// Whether the peer sent GOAWAY.
    pub(crate) const fn was_told_away(&self) -> bool {
        self.told_away.get()
    }

    /// Streams in use.
    pub(crate) fn active(&self) -> usize {
        self.codec.borrow().streams()
    }

    /// Whether the peer's SETTINGS have arrived.
    pub(crate) fn is_established(&self) -> bool {
        self.codec.borrow().is_established()
    }

    /// How many streams can be opened now.
    pub(crate) fn streams_left(&self) -> u32 {
        if self.over.get().is_some() { 0 } else { self.codec.borrow().streams_left() }
    }

    /// Whether no stream will ever be opened again.
    pub(crate) fn is_used_up(&self) -> bool {
        self.over.get().is_some() || self.codec.borrow().is_used_up()
    }

    /// Begins an orderly end.
    pub(crate) fn shut_down(&self) {
        self.codec.borrow_mut().shut_down();
        self.nudge();
    }

    /// Sends a PING.
    pub(crate) fn ping(&self) {
        self.ponged.set(false);
        self.codec.borrow_mut().ping();
        self.nudge();
    }

    /// Whether the last PING was answered since this was asked.
    pub(crate) const fn take_pong(&self) -> bool {
        self.ponged.replace(false)
    }

    /// Frees what an idle connection does not need.
    pub(crate) fn rest(&self) {
        let mut codec = self.codec.borrow_mut();
        codec.rest();
        let mut writing = self.writing.borrow_mut();
        if self.written.get() == writing.len() && writing.capacity() > REST_BYTES {
            *writing = Vec::new();
            self.written.set(0);
        }
        let mut mailboxes = self.mailboxes.borrow_mut();
        if mailboxes.len() > REST_MAILBOXES {
            *mailboxes = Vec::new();
        }
        for mailbox in mailboxes.iter_mut().filter(|mailbox| mailbox.data.capacity() > REST_BYTES) {
            mailbox.data = Vec::new();
        }
    }

    /// Opens a stream.
    pub(super) fn open(&self, head: &RequestHead, ended: bool) -> Result<StreamKey, SendError> {
        if self.over.get().is_some() {
            return Err(SendError::NoRoom);
        }
        let stream = self.codec.borrow_mut().open(head, ended)?;
        self.begin(stream);
        self.nudge();
        Ok(stream)
    }

    /// Memory for heads.
    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// How much data of a stream could be sent now; nothing while others wait for room.
    pub(super) fn room_for(&self, stream: StreamKey) -> usize {
        if self.over.get().is_some() || self.contended.get() || !self.blocked.borrow().is_empty() {
            return 0;
        }
        self.codec.borrow().room_for(stream)
    }

    /// Works on the codec; what it appended is sent.
    pub(super) fn with_codec<R>(&self, work: impl FnOnce(&mut Connection) -> R) -> R {
        let mut codec = self.codec.borrow_mut();
        let result = work(&mut codec);
        let appended = codec.output_len() > 0;
        drop(codec);
        if appended {
            self.nudge();
        }
        result
    }

    /// Works on a stream's mailbox; `None` when the stream is gone.
    pub(super) fn with_mailbox<R>(
        &self,
        stream: StreamKey,
        work: impl FnOnce(&mut Mailbox) -> R,
    ) -> Option<R> {
        let mut mailboxes = self.mailboxes.borrow_mut();
        let mailbox = mailboxes.get_mut(stream.index()).filter(|mailbox| mailbox.id == stream.id())?;
        Some(work(mailbox))
    }

    /// One half of a stream is not used any more.
    pub(super) fn leave(&self, stream: StreamKey) {
        let gone = self.with_mailbox(stream, |mailbox| {
            mailbox.holders = mailbox.holders.saturating_sub(1);
            let gone = mailbox.holders == 0;
            if gone {
                mailbox.clear();
            }
            gone
        });
        if gone == Some(true) {
            self.with_codec(|codec| codec.release(stream));
            if self.codec.borrow().is_done() {
                self.nudge();
            }
        }
    }

    /// Makes the driver run after the tasks that are ready now.
    fn nudge(&self) {
        if !self.nudged.replace(true)
            && let Some(driver) = &*self.driver.borrow()
        {
            driver.wake_by_ref();
        }
    }

    fn begin(&self, stream: StreamKey) {
        let mut mailboxes = self.mailboxes.borrow_mut();
        if mailboxes.len() <= stream.index() {
            mailboxes.resize_with(stream.index() + 1, Mailbox::default);
        }
        if let Some(mailbox) = mailboxes.get_mut(stream.index()) {
            mailbox.begin(stream.id());
        }
    }

    /// The connection is over: everybody who waits hears of it.
    pub(crate) fn end(&self, over: Over) {
        if self.over.get().is_none() {
            self.over.set(Some(over));
        }
        let mut express = Vec::new();
        for mailbox in self.mailboxes.borrow().iter() {
            mailbox.wake();
            express.extend(mailbox.ticket);
        }
        for ticket in express {
            self.lane.leave(ticket);
        }
    }
}
