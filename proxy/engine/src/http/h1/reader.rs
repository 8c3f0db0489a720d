//! The receiving half of an HTTP/1.1 connection, downstream or upstream.
//!
//! One buffer holds what was read and not consumed: the rest of a head, body bytes, the next pipelined request. Between
//! messages, and while nothing has arrived, there is no buffer at all: an idle connection costs none.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use outrigger_wire::h1::{
    BodyDecoder, BodyLength, BodyStep, H1Error, Limits, Parsed, RequestFraming, ResponseFraming, ends_head,
    parse_request, parse_response,
};
use outrigger_wire::{Method, RequestHead, ResponseHead, Trailers};

use super::super::body::{BodyError, Fill};
use crate::io::{BIG_BUFFER_BYTES, BUFFER_BYTES, Buf, Io};
use crate::worker::Worker;

/// The receiving half of an HTTP/1.1 connection.
pub struct H1Reader {
    worker: Rc<Worker>,
    io: Rc<Io>,
    /// What was read and not consumed; `None` while there is nothing.
    buf: Option<Buf>,
    limits: Limits,
    decoder: BodyDecoder,
    /// Body bytes at the front of the buffer.
    data: usize,
    /// Bytes of an incomplete head that were looked at already.
    seen: usize,
    /// The body is over.
    over: bool,
    received: u64,
    /// Bytes read from the socket for the current message, head included.
    wire_bytes: u64,
    eof: bool,
}

impl H1Reader {
    /// A reader at the start of a message.
    pub fn new(worker: Rc<Worker>, io: Rc<Io>, limits: Limits) -> Self {
        Self {
            worker,
            io,
            buf: None,
            limits,
            decoder: BodyDecoder::None,
            data: 0,
            seen: 0,
            over: true,
            received: 0,
            wire_bytes: 0,
            eof: false,
        }
    }

    /// Puts bytes in front that were read from the socket before (protocol detection).
    pub fn prepend(&mut self, buf: Buf) {
        self.buf = Some(buf);
    }

    /// Replaces the limits, when the configuration of the connection changed.
    pub const fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Bytes that were read and not consumed.
    pub fn buffered(&self) -> &[u8] {
        self.buf.as_ref().map_or(&[], Buf::data)
    }

    /// Whether the other side has closed its half.
    pub const fn is_eof(&self) -> bool {
        self.eof
    }

    /// Waits, without holding a buffer, until there is something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.buffered().is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.release();
        self.io.poll_readable(cx)
    }

    /// Gives the buffer back when it is empty.
    pub fn release(&mut self) {
        if self.buf.as_ref().is_some_and(|buf| buf.data().is_empty()) {
            self.buf = None;
        }
    }

    /// Reads more bytes behind those in the buffer; 0 at the end of the stream.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let buf = match &mut self.buf {
            Some(buf) => buf,
            None => {
                // A stream that is known to have nothing must not cost a buffer while it waits.
                ready!(self.io.poll_readable(cx))?;
                let large = matches!(&self.decoder, BodyDecoder::Length(body) if body.remaining() > BUFFER_BYTES as u64);
                let pool = &self.worker.buffers;
                self.buf.insert(if large { pool.take_big() } else { pool.take() })
            }
        };
        if buf.is_full() {
            // Only an incomplete head fills a buffer, because body bytes are consumed before more is read.
            let wanted = self.limits.max_head_bytes.saturating_add(1).max(BIG_BUFFER_BYTES);
            let mut larger = if wanted == BIG_BUFFER_BYTES {
                self.worker.buffers.take_big()
            } else {
                self.worker.buffers.take_sized(wanted)
            };
            larger.append(buf.data());
            *buf = larger;
        }
        let n = match self.io.poll_read(cx, buf.space()) {
            Poll::Ready(Ok(n)) => n,
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => {
                self.release();
                return Poll::Pending;
            }
        };
        buf.filled(n);
        self.wire_bytes += n as u64;
        self.eof |= n == 0;
        Poll::Ready(Ok(n))
    }

    /// Reads a request head; `None` when the connection ended before its first byte.
    ///
    /// *Errors*: framing, or the connection ended inside the head.
    pub fn poll_request(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut RequestHead,
    ) -> Poll<Result<Option<RequestFraming>, BodyError>> {
        loop {
            if self.worth_parsing() {
                let parsed = parse_request(self.buffered(), &self.limits, head)?;
                if let Parsed::Complete { consumed, framing } = parsed {
                    self.start(consumed, framing.body);
                    return Poll::Ready(Ok(Some(framing)));
                }
            }
            let empty = self.buffered().is_empty();
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(if empty { Ok(None) } else { Err(BodyError::Closed) });
            }
        }
    }

    /// Reads a response head.
    ///
    /// *Errors*: framing, or the connection ended.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        method: Method,
        head: &mut ResponseHead,
    ) -> Poll<Result<ResponseFraming, BodyError>> {
        loop {
            if self.worth_parsing() {
                let parsed = parse_response(self.buffered(), method, &self.limits, head)?;
                if let Parsed::Complete { consumed, framing } = parsed {
                    self.start(consumed, framing.body);
                    return Poll::Ready(Ok(framing));
                }
            }
            if ready!(self.poll_read(cx))? == 0 {
                return Poll::Ready(Err(BodyError::Closed));
            }
        }
    }

    /// Whether the head may be complete; remembers what was looked at, so that a head that comes byte by byte is not
    /// parsed for each of them.
    fn worth_parsing(&mut self) -> bool {
        let data = self.buf.as_ref().map_or(&[][..], Buf::data);
        let worth = !data.is_empty()
            && (self.seen == 0 || data.len() >= self.limits.max_head_bytes || ends_head(data, self.seen));
        self.seen = data.len();
        worth
    }

    fn start(&mut self, consumed: usize, body: BodyLength) {
        if let Some(buf) = &mut self.buf {
            buf.consume(consumed);
        }
        self.seen = 0;
        self.decoder = BodyDecoder::new(body);
        self.data = 0;
        self.received = 0;
        self.over = body.is_empty();
    }

    /// See [`super::super::body::BodyReader::poll_fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        loop {
            if self.data > 0 {
                return Poll::Ready(Ok(Fill::Data));
            }
            if self.over {
                return Poll::Ready(Ok(Fill::End));
            }
            let input = self.buf.as_ref().map_or(&[][..], Buf::data);
            match self.decoder.step(input, &self.limits)? {
                BodyStep::Data { skip, len } => {
                    self.drop_front(skip);
                    self.data = len;
                    self.received += len as u64;
                    continue;
                }
                BodyStep::End { consumed } => {
                    self.drop_front(consumed);
                    self.over = true;
                    continue;
                }
                BodyStep::NeedMore { consumed } => self.drop_front(consumed),
            }
            if ready!(self.poll_read(cx))? == 0 {
                self.decoder.end_of_input()?;
                self.over = true;
            }
        }
    }

    fn drop_front(&mut self, n: usize) {
        if let Some(buf) = &mut self.buf {
            buf.consume(n);
        }
    }

    /// See [`super::super::body::BodyReader::data`].
    pub fn data(&self) -> &[u8] {
        self.buffered().get(..self.data).unwrap_or_default()
    }

    /// See [`super::super::body::BodyReader::consume`].
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.data);
        self.data -= n;
        self.drop_front(n);
    }

    /// See [`super::super::body::BodyReader::ends_after_data`].
    pub const fn ends_after_data(&self) -> bool {
        self.over || matches!(self.decoder, BodyDecoder::Length(_)) && self.decoder.is_complete()
    }

    /// See [`super::super::body::BodyReader::trailers`].
    pub fn trailers(&self) -> Option<&Trailers> {
        self.decoder.trailers()
    }

    /// Body bytes received of the current message.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether the current message was read to its end and everything of it was consumed.
    pub const fn is_over(&self) -> bool {
        self.data == 0 && (self.over || self.decoder.is_complete())
    }

    /// Bytes read from the socket since this was last asked.
    pub const fn take_wire_bytes(&mut self) -> u64 {
        std::mem::replace(&mut self.wire_bytes, 0)
    }

    /// Whether the connection can carry another message: this one is over and, for an upstream, nothing unasked for
    /// has arrived.
    pub fn is_clean(&self) -> bool {
        self.is_over() && self.buffered().is_empty() && !self.eof
    }

    /// The stream, for a tunnel after an upgrade; what was read beyond the head comes along.
    pub fn take_buffered(&mut self) -> Option<Buf> {
        self.buf.take().filter(|buf| !buf.data().is_empty())
    }

    /// The connection.
    pub const fn io(&self) -> &Rc<Io> {
        &self.io
    }
}

impl fmt::Debug for H1Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H1Reader")
            .field("buffered", &self.buffered().len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// Whether an error of a downstream's message deserves an answer: everything but a connection that is gone.
pub(super) const fn answerable(error: BodyError) -> Option<H1Error> {
    match error {
        BodyError::Framing(error) => Some(error),
        BodyError::Closed | BodyError::Reset | BodyError::Refused | BodyError::Protocol => None,
    }
}
