//! One HTTP/2 connection on a socket, shared by the task that drives it and the tasks of its streams.
//!
//! Nothing is borrowed across an await, and no borrow is held while foreign code runs. A stream that appended frames
//! wakes the driver; the driver's turn comes after those of all tasks that were ready before it, so that one write takes
//! what all of them appended.
//!
//! What is sent waits in one buffer of bounded size. Streams that found it full, or the connection's window shut, stand in
//! a queue and take turns, each with a share of the next buffer.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use outrigger_wire::h1::BodyLength;
use outrigger_wire::h2::connection::SendError;
use outrigger_wire::h2::{Code, Connection, Event, H2Error, HeadRefusal, Options, Role, StreamKey, limit};
use outrigger_wire::{RequestHead, ResponseHead, Trailers};
use tokio::time::Instant;

use super::mailbox::Mailbox;
use crate::io::{Buf, BufferPool, Io};
use crate::worker::Worker;

/// Octets waiting to be sent beyond which a server does not read on: the peer asks without reading the answers. Data stops
/// far below, so that this is heads and answers to control frames only.
const BACKLOG: usize = 256 << 10;
/// What one stream may append per turn while others wait, octets.
const SHARE: usize = 16 << 10;
/// Streams that ended and whose tasks are to end before more is taken in; see [`limit::RESETS_PENDING`].
const LINGERING: usize = limit::RESETS_PENDING / 2;
/// Time for the last frames of a connection to leave.
const GOODBYE: Duration = Duration::from_secs(1);

/// Heads kept for the next exchanges of a busy connection, and the memory of each, bytes.
const SPARE_HEADS: usize = 64;
const SPARE_BYTES: usize = 4096;
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

/// The heads of one exchange. Their memory is used by one after the other.
pub(crate) struct Heads {
    /// What was asked.
    pub(crate) request: RequestHead,
    /// What is answered.
    pub(crate) response: ResponseHead,
}

/// A request that began.
pub(crate) struct Arrived {
    /// Its stream.
    pub(crate) stream: StreamKey,
    /// Its head, and room for the one of the response.
    pub(crate) heads: Heads,
    /// How the body is delimited, or why it is to be refused.
    pub(crate) read: Result<BodyLength, HeadRefusal>,
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
    spare: RefCell<Vec<Heads>>,
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
            spare: RefCell::default(),
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
        let mut spare = self.spare.borrow_mut();
        spare.truncate(1);
        spare.shrink_to(1);
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

    /// Appends what fits of `data`; waits when nothing does.
    pub(super) fn poll_send(
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

    /// Reads and writes until neither goes on; ready when the connection is over. Requests go to `accept`.
    pub(crate) fn poll_drive(&self, cx: &mut Context<'_>, accept: &mut dyn FnMut(Arrived)) -> Poll<Over> {
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

    fn turn(&self, cx: &mut Context<'_>, accept: &mut dyn FnMut(Arrived)) -> Option<Over> {
        if self.write(cx).is_err() {
            return Some(Over::Closed);
        }
        if self.role == Role::Server && self.backlog() > BACKLOG {
            // The write that waits wakes us.
            return None;
        }
        if let Some(over) = self.read(cx, accept) {
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

    /// There is room on the connection: those who wait take turns.
    fn make_room(&self) {
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

    fn read(&self, cx: &mut Context<'_>, accept: &mut dyn FnMut(Arrived)) -> Option<Over> {
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
                Poll::Pending => return None,
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
    fn take(&self, octets: &[u8], accept: &mut dyn FnMut(Arrived)) -> Option<Over> {
        let now = self.began.elapsed();
        let mut input = octets;
        loop {
            let event = self.codec.borrow_mut().receive(&mut input, now);
            match event {
                Ok(Some(event)) => self.deliver(event, accept),
                Ok(None) => break,
                Err(error) => return Some(Over::Failed(error)),
            }
            if self.paused.get() {
                break;
            }
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

    fn deliver(&self, event: Event<'_>, accept: &mut dyn FnMut(Arrived)) {
        match event {
            Event::Request { stream, body, ended } => self.arrive(stream, Ok(body), ended, accept),
            Event::Refused { stream, refusal, ended } => self.arrive(stream, Err(refusal), ended, accept),
            Event::Response { stream, framing, ended } => {
                self.with_mailbox(stream, |mailbox| {
                    let mut head = mailbox.spare_head();
                    self.codec.borrow_mut().swap_response(&mut head);
                    mailbox.put_head(framing, head);
                    mailbox.ended |= ended;
                    mailbox.wake_reader();
                });
            }
            Event::Data { stream, octets, ended } => {
                self.with_mailbox(stream, |mailbox| {
                    mailbox.data.extend_from_slice(octets);
                    mailbox.ended |= ended;
                    mailbox.wake_reader();
                });
            }
            Event::Trailers { stream } => {
                self.with_mailbox(stream, |mailbox| {
                    let mut trailers = Trailers::default();
                    self.codec.borrow_mut().swap_trailers(&mut trailers);
                    mailbox.trailers = Some(trailers);
                    mailbox.ended = true;
                    mailbox.wake_reader();
                });
            }
            Event::Reset { stream, end, .. } => {
                self.with_mailbox(stream, |mailbox| {
                    mailbox.end = Some(end);
                    mailbox.wake();
                });
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
        accept: &mut dyn FnMut(Arrived),
    ) {
        self.begin(stream);
        self.with_mailbox(stream, |mailbox| mailbox.ended = ended);
        let spare = self.spare.borrow_mut().pop();
        let mut heads = spare.unwrap_or_else(|| Heads {
            request: RequestHead::with_capacity(),
            response: ResponseHead::default(),
        });
        self.codec.borrow_mut().swap_request(&mut heads.request);
        accept(Arrived { stream, heads, read });
    }

    /// Takes the memory of an exchange that is over back.
    pub(crate) fn give_back(&self, mut heads: Heads) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_HEADS {
            heads.request.clear();
            heads.request.fields.shrink_above(SPARE_BYTES);
            heads.response.fields.shrink_above(SPARE_BYTES);
            heads.response.clear();
            spare.push(heads);
        }
    }

    /// The connection is over: everybody who waits hears of it.
    pub(crate) fn end(&self, over: Over) {
        if self.over.get().is_none() {
            self.over.set(Some(over));
        }
        for mailbox in self.mailboxes.borrow().iter() {
            mailbox.wake();
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
