//! The two halves of an HTTP/2 stream, downstream or upstream.
//!
//! Flow control is released only for bytes that were consumed, so a slow receiver on the one side slows the sender on
//! the other. A stream whose two halves are dropped before it is over is reset.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use outrigger_wire::h1::ResponseFraming;
use outrigger_wire::h2::connection::SendError;
use outrigger_wire::h2::{Code, StreamEnd, StreamKey};
use outrigger_wire::{FieldBlock, RequestHead, ResponseHead, Trailers};

use super::super::body::{BodyError, Fill};
use super::link::Link;
use super::mailbox::Mailbox;
use crate::exchange::express::Ticket;

/// What the end of a stream means for those who use it.
const fn body_error(end: StreamEnd) -> BodyError {
    match end {
        // Above the GOAWAY's last id, or refused: not processed (RFC 9113 §6.8, §8.7).
        StreamEnd::Unprocessed | StreamEnd::Peer(Code::REFUSED_STREAM) => BodyError::Refused,
        StreamEnd::Peer(_) => BodyError::Reset,
        StreamEnd::Fault(_) => BodyError::Protocol,
        StreamEnd::Owner(_) => BodyError::Closed,
    }
}

/// What a refusal of the codec means where no stream was begun.
const fn send_error(error: SendError) -> BodyError {
    match error {
        SendError::TooLarge | SendError::OutOfOrder => BodyError::Protocol,
        SendError::NoRoom | SendError::Over => BodyError::Refused,
    }
}

/// One half's share in a stream.
struct Half {
    link: Rc<Link>,
    key: StreamKey,
}

impl Half {
    fn with<R>(&self, work: impl FnOnce(&mut Mailbox) -> R) -> Option<R> {
        self.link.with_mailbox(self.key, work)
    }

    /// How the stream ended before its time, or that its connection did.
    fn end(&self) -> Option<BodyError> {
        match self.with(|mailbox| mailbox.end) {
            Some(Some(end)) => Some(body_error(end)),
            Some(None) if self.link.over().is_none() => None,
            _ => Some(BodyError::Closed),
        }
    }

    fn failed(&self, error: SendError) -> BodyError {
        match error {
            SendError::Over => self.end().unwrap_or(BodyError::Closed),
            other => send_error(other),
        }
    }
}

impl Drop for Half {
    fn drop(&mut self) {
        self.link.leave(self.key);
    }
}

/// The receiving half of an HTTP/2 stream.
pub struct H2Reader {
    half: Half,
    /// Data that arrived, taken from the mailbox as a whole; `at` of it is consumed.
    chunk: Vec<u8>,
    at: usize,
    over: bool,
    trailers: Option<Trailers>,
    received: u64,
}

/// Both halves of a stream of `link` that just began.
pub(crate) fn halves(link: &Rc<Link>, key: StreamKey, sent: bool) -> (H2Reader, H2Writer) {
    let half = || Half { link: link.clone(), key };
    let reader =
        H2Reader { half: half(), chunk: Vec::new(), at: 0, over: false, trailers: None, received: 0 };
    (reader, H2Writer { half: half(), sent: 0, finished: sent })
}

/// Opens a stream with a request; with `ended`, no body follows.
///
/// *Errors*: nothing was sent; [`BodyError::Refused`] when the connection takes no more streams.
pub(crate) fn open(
    link: &Rc<Link>,
    head: &RequestHead,
    ended: bool,
) -> Result<(H2Reader, H2Writer), BodyError> {
    let key = link.open(head, ended).map_err(send_error)?;
    Ok(halves(link, key, ended))
}

impl H2Reader {
    /// Reads a response head, interim ones too.
    pub fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        head: &mut ResponseHead,
    ) -> Poll<Result<ResponseFraming, BodyError>> {
        match self.response_now(head) {
            Some(framing) => Poll::Ready(Ok(framing)),
            None => match self.half.end() {
                Some(error) => Poll::Ready(Err(error)),
                None => {
                    self.half.with(|mailbox| mailbox.wait_read(cx));
                    Poll::Pending
                }
            },
        }
    }

    /// The response head that is here.
    pub fn response_now(&mut self, head: &mut ResponseHead) -> Option<ResponseFraming> {
        let (framing, mut arrived, over) = self
            .half
            .with(|mailbox| {
                let (framing, arrived) = mailbox.take_head()?;
                let over = mailbox.ended && mailbox.data.is_empty() && mailbox.trailers.is_none();
                Some((framing, arrived, over))
            })
            .flatten()?;
        std::mem::swap(head, &mut arrived);
        self.half.link.memory().keep_response(arrived);
        self.over |= over && !framing.informational;
        Some(framing)
    }

    /// Whether all of the response is here: how many octets of data it has.
    pub(crate) fn whole_response(&self) -> Option<usize> {
        self.half.with(|mailbox| mailbox.whole_response()).flatten()
    }

    /// Puts the stream into the express lane, or takes it out.
    pub(crate) fn set_ticket(&self, ticket: Option<Ticket>) {
        self.half.with(|mailbox| mailbox.ticket = ticket);
    }

    /// See [`super::super::body::BodyReader::poll_fill`].
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        match self.fill_now() {
            Some(fill) => Poll::Ready(Ok(fill)),
            None => match self.half.end() {
                Some(error) => Poll::Ready(Err(error)),
                None => {
                    self.half.with(|mailbox| mailbox.wait_read(cx));
                    Poll::Pending
                }
            },
        }
    }

    /// What is here.
    pub fn fill_now(&mut self) -> Option<Fill> {
        if self.at < self.chunk.len() {
            return Some(Fill::Data);
        }
        if self.over {
            return Some(Fill::End);
        }
        self.chunk.clear();
        self.at = 0;
        let (chunk, trailers) = (&mut self.chunk, &mut self.trailers);
        let fill = self
            .half
            .with(|mailbox| {
                if !mailbox.data.is_empty() {
                    std::mem::swap(chunk, &mut mailbox.data);
                    Some(Fill::Data)
                } else if mailbox.ended {
                    *trailers = mailbox.trailers.take();
                    Some(Fill::End)
                } else {
                    None
                }
            })
            .flatten()?;
        self.received += self.chunk.len() as u64;
        self.over = fill == Fill::End;
        Some(fill)
    }

    /// Bytes that arrived.
    pub fn data(&self) -> &[u8] {
        self.chunk.get(self.at..).unwrap_or_default()
    }

    /// Takes bytes off and lets the peer send as many more.
    pub fn consume(&mut self, n: usize) {
        let n = n.min(self.chunk.len() - self.at);
        self.at += n;
        self.half.link.with_codec(|codec| codec.consumed(self.half.key, n));
    }

    /// Whether nothing follows the bytes at hand.
    pub fn ends_after_data(&self) -> bool {
        self.over
            || self
                .half
                .with(|mailbox| mailbox.ended && mailbox.data.is_empty() && mailbox.trailers.is_none())
                .unwrap_or(false)
    }

    /// Trailers, once the end was seen.
    pub const fn trailers(&self) -> Option<&Trailers> {
        self.trailers.as_ref()
    }

    /// Trailers, once the end was seen, for good.
    pub const fn take_trailers(&mut self) -> Option<Trailers> {
        self.trailers.take()
    }

    /// Body bytes received.
    pub const fn received(&self) -> u64 {
        self.received
    }

    /// Whether everything was received and consumed.
    pub fn is_over(&self) -> bool {
        self.at == self.chunk.len() && self.ends_after_data()
    }
}

impl Drop for H2Reader {
    fn drop(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        if chunk.capacity() > 0 {
            self.half.with(|mailbox| mailbox.recycle(chunk));
        }
    }
}

impl fmt::Debug for H2Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Reader")
            .field("stream", &self.half.key.id())
            .field("data", &self.data().len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// The sending half of an HTTP/2 stream.
pub struct H2Writer {
    half: Half,
    sent: u64,
    finished: bool,
}

impl H2Writer {
    /// Sends an interim response.
    pub fn interim_head(&mut self, head: &ResponseHead) -> Result<(), BodyError> {
        let sent = self.half.link.with_codec(|codec| codec.send_interim(self.half.key, head));
        sent.map_err(|error| self.half.failed(error))
    }

    /// Sends the response head.
    pub fn response_head(&mut self, head: &ResponseHead, ended: bool) -> Result<(), BodyError> {
        let sent = self.half.link.with_codec(|codec| codec.send_response(self.half.key, head, ended));
        sent.map_err(|error| self.half.failed(error))?;
        self.finished = ended;
        Ok(())
    }

    /// Sends what fits into the windows of `data`; waits while nothing does.
    pub async fn send(&mut self, data: &[u8], last: bool) -> Result<usize, BodyError> {
        let sent = poll_fn(|cx| {
            let sent = self.half.link.poll_send(cx, self.half.key, data, last);
            sent.map_err(|error| self.half.failed(error))
        })
        .await?;
        self.sent += sent as u64;
        self.finished |= last && sent == data.len();
        Ok(sent)
    }

    /// How many octets could be sent now without waiting.
    pub(crate) fn room(&self) -> usize {
        self.half.link.room_for(self.half.key)
    }

    /// Sends data that there is [`room`](Self::room) for.
    pub(crate) fn send_now(&mut self, data: &[u8], last: bool) -> Result<(), BodyError> {
        let key = self.half.key;
        let sent = self.half.link.with_codec(|codec| codec.send_data(key, data, last));
        match sent {
            Ok(sent) if sent == data.len() => {
                self.sent += sent as u64;
                self.finished |= last;
                Ok(())
            }
            Ok(_) => Err(BodyError::Closed),
            Err(error) => Err(self.half.failed(error)),
        }
    }

    /// Ends the stream.
    pub fn finish(&mut self, trailers: Option<&FieldBlock>) -> Result<(), BodyError> {
        if self.finished {
            return Ok(());
        }
        let key = self.half.key;
        let sent = self.half.link.with_codec(|codec| match trailers {
            Some(trailers) => codec.send_trailers(key, trailers),
            None => codec.send_data(key, &[], true).map(|_| ()),
        });
        self.finished = true;
        sent.map_err(|error| self.half.failed(error))
    }

    /// Cuts the stream off.
    fn reset(&mut self, code: Code) {
        self.half.link.with_codec(|codec| codec.reset(self.half.key, code));
        self.finished = true;
    }

    /// Tells the peer that the rest is not wanted.
    pub fn cancel(&mut self) {
        self.reset(Code::CANCEL);
    }

    /// Tells the peer that nobody has looked at the request (RFC 9113 §8.7): it may be sent again, whatever it is.
    pub fn refuse(&mut self) {
        self.reset(Code::REFUSED_STREAM);
    }

    /// Tells the peer that the response cannot be finished.
    pub fn reset_internal(&mut self) {
        self.reset(Code::INTERNAL_ERROR);
    }

    /// Ready when the peer reset the stream or its connection ended.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        if self.finished {
            return Poll::Pending;
        }
        if let Some(error) = self.half.end() {
            return Poll::Ready(error);
        }
        self.half.with(|mailbox| mailbox.register(cx));
        Poll::Pending
    }

    /// Body bytes sent.
    pub const fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether the stream was ended.
    pub const fn is_finished(&self) -> bool {
        self.finished
    }
}

impl fmt::Debug for H2Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("H2Writer")
            .field("stream", &self.half.key.id())
            .field("sent", &self.sent)
            .field("finished", &self.finished)
            .finish_non_exhaustive()
    }
}
