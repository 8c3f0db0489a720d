//! Streams of one connection (RFC 9113 §5.1).
//!
//! A stream is in the table from its first frame until it is over on the wire **and** its owner has let go of it. Ids are
//! never used twice on a connection, so that a [`StreamKey`] of a stream that is gone finds nothing.
//!
//! ```text
//!            receive                        send
//!   client:  Head ─ Body ─ Ended            Body ─ Ended
//!   server:         Body ─ Ended     Head ─ Body ─ Ended
//! ```
//!
//! RST_STREAM of either side, or GOAWAY below its id, ends both at once and leaves a [`StreamEnd`].

use std::collections::{HashMap, VecDeque};

use super::error::{Code, H2Error};
use super::flow::{ReceiveWindow, SendWindow};

/// Streams of ours that were reset lately and whose frames may still be on their way.
const RESETS_REMEMBERED: usize = 256;

/// Places an idle connection keeps.
const SLOTS_KEPT: usize = 8;

/// Names a stream of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamKey {
    index: u32,
    id: u32,
}

impl StreamKey {
    /// A small number that no two streams of the connection have at one time.
    #[must_use]
    pub const fn index(self) -> usize {
        self.index as usize
    }

    /// The stream's id on the wire.
    #[must_use]
    pub const fn id(self) -> u32 {
        self.id
    }
}

/// How a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The peer reset it.
    Peer(Code),
    /// The peer said that it did not and will not look at it (GOAWAY): it may safely be sent again.
    Unprocessed,
    /// We reset it because of what the peer did.
    Fault(H2Error),
    /// The owner reset it.
    Owner(Code),
}

/// What may still arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receive {
    /// A response head, or an interim one.
    Head,
    /// Data or trailers.
    Body,
    Ended,
}

/// What may still be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Send {
    /// A response head, or an interim one.
    Head,
    /// Data or trailers.
    Body,
    Ended,
}

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) receive: Receive,
    pub(super) send: Send,
    pub(super) end: Option<StreamEnd>,
    /// The owner has not let go of it.
    pub(super) held: bool,
    pub(super) window: SendWindow,
    pub(super) incoming: ReceiveWindow,
    /// Bytes that arrived, or are in a frame that arrives, and that the owner has not used.
    pub(super) unread: usize,
    /// Bytes still to come by `content-length`.
    pub(super) length_left: Option<u64>,
    /// Client: the request was HEAD.
    pub(super) head_only: bool,
    /// Client: interim responses so far.
    pub(super) interim: u32,
}

impl Stream {
    pub(super) const fn is_over(&self) -> bool {
        matches!((self.receive, self.send), (Receive::Ended, Send::Ended))
    }

    /// Whether the peer may still send on it in good faith: it had not heard that we ended the stream.
    pub(super) const fn is_cut_by_us(&self) -> bool {
        matches!(self.end, Some(StreamEnd::Fault(_) | StreamEnd::Owner(_)))
    }

    /// Ends both directions.
    pub(super) const fn cut(&mut self, end: StreamEnd) {
        self.receive = Receive::Ended;
        self.send = Send::Ended;
        self.end = Some(end);
    }
}

/// The streams of one connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    slots: Vec<Option<Stream>>,
    free: Vec<u32>,
    by_id: HashMap<u32, u32, foldhash::fast::RandomState>,
    /// Streams that are not over on the wire.
    open: u32,
    reset: VecDeque<u32>,
    /// A reset was forgotten: a frame on a closed stream may be one of its.
    forgotten: bool,
}

impl Streams {
    /// Streams that are not over on the wire.
    pub(super) const fn open(&self) -> u32 {
        self.open
    }

    /// Streams in the table.
    pub(super) fn occupied(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn slots(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn insert(&mut self, stream: Stream) -> StreamKey {
        let id = stream.id;
        if !stream.is_over() {
            self.open += 1;
        }
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(None);
                u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
            }
        };
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(stream);
        }
        self.by_id.insert(id, index);
        StreamKey { index, id }
    }

    pub(super) fn find(&self, id: u32) -> Option<StreamKey> {
        self.by_id.get(&id).map(|index| StreamKey { index: *index, id })
    }

    /// By place, for walks over all.
    pub(super) fn at(&self, index: usize) -> Option<StreamKey> {
        let stream = self.slots.get(index)?.as_ref()?;
        Some(StreamKey { index: u32::try_from(index).ok()?, id: stream.id })
    }

    pub(super) fn get(&self, key: StreamKey) -> Option<&Stream> {
        self.slots.get(key.index())?.as_ref().filter(|stream| stream.id == key.id)
    }

    pub(super) fn get_mut(&mut self, key: StreamKey) -> Option<&mut Stream> {
        self.slots.get_mut(key.index())?.as_mut().filter(|stream| stream.id == key.id)
    }

    /// Changes a stream, and counts it off when that ended it.
    pub(super) fn change<R>(&mut self, key: StreamKey, change: impl FnOnce(&mut Stream) -> R) -> Option<R> {
        let stream = self.get_mut(key)?;
        let before = stream.is_over();
        let result = change(stream);
        let (over, held) = (stream.is_over(), stream.held);
        if over && !before {
            self.open = self.open.saturating_sub(1);
        }
        if over && !held {
            self.remove(key);
        }
        Some(result)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.slots.iter_mut().flatten()
    }

    fn remove(&mut self, key: StreamKey) {
        if let Some(slot) = self.slots.get_mut(key.index()) {
            *slot = None;
            self.free.push(key.index);
            self.by_id.remove(&key.id);
        }
    }

    /// Frees what an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.by_id.is_empty() && self.slots.len() > SLOTS_KEPT {
            self.slots = Vec::new();
            self.free = Vec::new();
            self.by_id.shrink_to_fit();
        }
    }

    /// Remembers that frames of `id` are to be ignored: we reset it.
    pub(super) fn remember_reset(&mut self, id: u32) {
        if self.reset.len() >= RESETS_REMEMBERED {
            self.reset.pop_front();
            self.forgotten = true;
        }
        self.reset.push_back(id);
    }

    /// Whether we reset `id`; `None` when that is not known any more.
    pub(super) fn was_reset(&self, id: u32) -> Option<bool> {
        if self.reset.contains(&id) {
            Some(true)
        } else if self.forgotten {
            None
        } else {
            Some(false)
        }
    }
}
