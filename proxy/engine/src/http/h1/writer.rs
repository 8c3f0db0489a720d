//! The sending half of an HTTP/1.1 connection, downstream or upstream.
//!
//! Head, chunk framing and small pieces of the body gather in `out` and leave in one write; a large piece leaves
//! together with what was gathered, from where it lies, by a vectored write.

use std::fmt;
use std::io::{self, IoSlice};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use outrigger_wire::h1::{
    BodyLength, CHUNK_END, ConnectionHeader, encode_chunk_head, encode_last_chunk, encode_request,
    encode_response,
};
use outrigger_wire::{FieldBlock, RequestHead, ResponseHead};

use super::super::body::BodyError;
use crate::io::{Io, turn};

/// Up to this much is copied behind the head, so that a small response is one plain write.
const GATHER: usize = 16 * 1024;
/// Capacity kept between messages.
const KEEP: usize = 32 * 1024;

/// The sending half of an HTTP/1.1 connection.
pub struct H1Writer {
    io: Rc<Io>,
    out: Vec<u8>,
    /// Bytes of `out` that were written already.
    written: usize,
    framing: BodyLength,
    /// Bytes still allowed by a `content-length`.
    left: u64,
    sent: u64,
    finished: bool,
    wire_bytes: u64,
    /// Whether a peer that closed its half has lost interest.
    watched: bool,
}

impl H1Writer {
    /// A writer at the start of a message.
    pub const fn new(io: Rc<Io>) -> Self {
        Self {
            io,
            out: Vec::new(),
            written: 0,
            framing: BodyLength::None,
            left: 0,
            sent: 0,
            finished: true,
            wire_bytes: 0,
            watched: false,
        }
    }

    /// As [`new`](Self::new), towards a client. One that closes its half while it waits is taken to be gone, as Envoy
    /// takes it: it cannot be told from one that closed altogether, and whose request is work for nobody.
    pub const fn to_client(io: Rc<Io>) -> Self {
        let mut writer = Self::new(io);
        writer.watched = true;
        writer
    }

    /// Ready when the client is gone; never for a writer towards a host.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if self.watched { self.io.poll_peer_closed(cx).map(|()| BodyError::Closed) } else { Poll::Pending }
    }

    /// Gathers a request head.
    pub fn request_head(&mut self, head: &RequestHead, body: BodyLength, connection: ConnectionHeader) {
        encode_request(head, body, connection, &mut self.out);
        self.start(body);
    }

    /// Gathers a response head.
    pub fn response_head(&mut self, head: &ResponseHead, body: BodyLength, connection: ConnectionHeader) {
        encode_response(head, body, connection, &mut self.out);
        self.start(body);
    }

    /// Gathers an interim (1xx) response head; the final one is still to come.
    pub fn interim_head(&mut self, head: &ResponseHead) {
        encode_response(head, BodyLength::None, ConnectionHeader::None, &mut self.out);
    }

    fn start(&mut self, body: BodyLength) {
        self.framing = body;
        self.left = if let BodyLength::Length(length) = body { length } else { 0 };
        self.sent = 0;
        self.finished = body.is_empty();
    }

    /// Gathers or sends all of `data`.
    ///
    /// *Errors*: the peer is gone, or `data` is more than the head announced.
    pub async fn send(&mut self, data: &[u8]) -> Result<usize, BodyError> {
        if data.is_empty() {
            return Ok(0);
        }
        match self.framing {
            BodyLength::Chunked => encode_chunk_head(data.len(), &mut self.out),
            BodyLength::Length(_) => {
                let Some(left) = self.left.checked_sub(data.len() as u64) else {
                    return Err(BodyError::Protocol);
                };
                self.left = left;
            }
            BodyLength::None => return Err(BodyError::Protocol),
            BodyLength::UntilClose => {}
        }
        self.sent += data.len() as u64;
        if self.gathers(data.len()) {
            self.out.extend_from_slice(data);
        } else {
            let mut done = 0;
            std::future::poll_fn(|cx| self.poll_send(cx, data, &mut done)).await?;
        }
        if self.framing == BodyLength::Chunked {
            self.out.extend_from_slice(CHUNK_END);
        }
        Ok(data.len())
    }

    /// Whether `n` bytes more are gathered rather than sent.
    pub fn gathers(&self, n: usize) -> bool {
        self.out.len() - self.written + n <= GATHER
    }

    /// Writes what was gathered and then `data`, of which `done` bytes are written already.
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8], done: &mut usize) -> Poll<io::Result<()>> {
        loop {
            let head = self.out.get(self.written..).unwrap_or_default();
            let rest = data.get(*done..).unwrap_or_default();
            let n = match (head.is_empty(), rest.is_empty()) {
                (true, true) => {
                    self.reset_out();
                    return Poll::Ready(Ok(()));
                }
                (true, false) => ready!(self.io.poll_write(cx, rest))?,
                (false, true) => ready!(self.io.poll_write(cx, head))?,
                (false, false) => {
                    ready!(self.io.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(rest)]))?
                }
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wire_bytes += n as u64;
            let from_head = n.min(head.len());
            self.written += from_head;
            *done += n - from_head;
        }
    }

    fn reset_out(&mut self) {
        self.out.clear();
        self.written = 0;
        if self.out.capacity() > KEEP {
            self.out.shrink_to(KEEP);
        }
    }

    /// Gathers the end of the body.
    ///
    /// *Errors*: fewer bytes were sent than announced; the connection must be closed.
    pub fn finish(&mut self, trailers: Option<&FieldBlock>) -> Result<(), BodyError> {
        if self.finished {
            return Ok(());
        }
        match self.framing {
            BodyLength::Chunked => encode_last_chunk(trailers, &mut self.out),
            BodyLength::Length(_) if self.left > 0 => return Err(BodyError::Protocol),
            BodyLength::Length(_) | BodyLength::None | BodyLength::UntilClose => {}
        }
        self.finished = true;
        Ok(())
    }

    /// Writes what was gathered, after the other tasks of this turn.
    pub async fn flush(&mut self) -> Result<(), BodyError> {
        if !self.out.is_empty() {
            turn().await;
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await.map_err(BodyError::from)
    }

    /// Writes what was gathered.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.out.is_empty() {
            let mut done = 0;
            ready!(self.poll_send(cx, &[], &mut done))?;
        }
        self.io.poll_flush(cx)
    }

    /// Gathers bytes as they are (a tunnel after an upgrade).
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Body bytes sent or gathered of the current message.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the current message was ended.
    pub const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether nothing is waiting to be written.
    pub fn is_flushed(&self) -> bool {
        self.out.is_empty()
    }

    /// Bytes written to the socket since this was last asked.
    pub const fn take_wire_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.wire_bytes, 0)
    }

    /// The connection.
    pub const fn io(&self) -> &Rc<Io> {
        &self.io
    }
}

impl fmt::Debug for H1Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1Writer")
            .field("gathered", &self.out.len())
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
