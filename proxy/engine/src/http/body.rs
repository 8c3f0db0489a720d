//! Message bodies as they stream through, the same for HTTP/1.1 and HTTP/2 and for both directions.
//!
//! A [`BodyReader`] shows the bytes that have arrived where they lie; the receiver takes as many as it could pass on.
//! HTTP/2 flow control and HTTP/1.1 back-pressure follow from that: what is not consumed is not read. A [`BodyWriter`]
//! gathers small pieces (head, first bytes, end) and sends them in one write.

use std::io;
use std::task::{Context, Poll, ready};

use outrigger_wire::h1::H1Error;
use outrigger_wire::{FieldBlock, Trailers};

use super::h1::{H1Reader, H1Writer};
use super::h2::{H2Reader, H2Writer};
use super::staged::{StagedReader, Stages};

/// What [`BodyReader::poll_fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// [`BodyReader::data`] is not empty.
    Data,
    /// The body is over, and [`BodyReader::trailers`] has its trailers, if there were any.
    End,
}

/// Why a body (or head) could not be read to its end or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// The connection ended before the message did.
    Closed,
    /// The peer reset the stream.
    Reset,
    /// The peer refused the stream before it looked at it: it may safely be sent again.
    Refused,
    /// The peer broke HTTP/1.1 framing.
    Framing(H1Error),
    /// The peer broke HTTP/2.
    Protocol,
}

impl From<io::Error> for BodyError {
    fn from(_: io::Error) -> Self {
        Self::Closed
    }
}

impl From<H1Error> for BodyError {
    fn from(error: H1Error) -> Self {
        match error {
            H1Error::UnexpectedEof => Self::Closed,
            other => Self::Framing(other),
        }
    }
}

/// The receiving half of a stream.
#[derive(Debug)]
pub enum BodyReader {
    /// HTTP/1.1.
    H1(H1Reader),
    /// HTTP/2.
    H2(H2Reader),
    /// Either, through filters that change it.
    Staged(Box<StagedReader>),
}

impl BodyReader {
    /// Puts the body through stages, behind those it goes through already.
    pub(crate) fn stage(self, stages: Stages) -> Self {
        Self::Staged(Box::new(StagedReader::new(self, stages)))
    }

    /// Back to the message itself, without its stages.
    pub(crate) fn unstage(&mut self) {
        while let Self::Staged(staged) = self {
            match std::mem::take(staged).into_inner() {
                Some(inner) => *self = inner,
                None => return,
            }
        }
    }

    /// Waits until there is data or the body is over.
    ///
    /// *Cancel safety*: nothing is lost when the caller stops polling.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<Fill, BodyError>> {
        match self {
            Self::H1(reader) => reader.poll_fill(cx),
            Self::H2(reader) => reader.poll_fill(cx),
            Self::Staged(reader) => reader.poll_fill(cx),
        }
    }

    /// Body bytes that have arrived and were not consumed.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        match self {
            Self::H1(reader) => reader.data(),
            Self::H2(reader) => reader.data(),
            Self::Staged(reader) => reader.data(),
        }
    }

    /// Takes `n` bytes of [`data`](Self::data) off.
    pub fn consume(&mut self, n: usize) {
        match self {
            Self::H1(reader) => reader.consume(n),
            Self::H2(reader) => reader.consume(n),
            Self::Staged(reader) => reader.consume(n),
        }
    }

    /// Whether nothing follows the bytes in [`data`](Self::data), as far as is known yet. Lets the end travel with the
    /// last bytes; `false` only means that the end comes by itself.
    #[must_use]
    pub fn ends_after_data(&self) -> bool {
        match self {
            Self::H1(reader) => reader.ends_after_data(),
            Self::H2(reader) => reader.ends_after_data(),
            Self::Staged(reader) => reader.ends_after_data(),
        }
    }

    /// Trailers, once [`Fill::End`] was seen.
    #[must_use]
    pub fn trailers(&self) -> Option<&Trailers> {
        match self {
            Self::H1(reader) => reader.trailers(),
            Self::H2(reader) => reader.trailers(),
            Self::Staged(reader) => reader.trailers(),
        }
    }

    /// What [`trailers`](Self::trailers) gives, for good.
    pub fn take_trailers(&mut self) -> Option<Trailers> {
        match self {
            Self::H1(reader) => reader.trailers().cloned(),
            Self::H2(reader) => reader.take_trailers(),
            Self::Staged(reader) => reader.take_trailers(),
        }
    }

    /// Body bytes received so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        match self {
            Self::H1(reader) => reader.received(),
            Self::H2(reader) => reader.received(),
            Self::Staged(reader) => reader.inner().map_or(0, Self::received),
        }
    }

    /// Whether the body has been read to its end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            Self::H1(reader) => reader.is_over(),
            Self::H2(reader) => reader.is_over(),
            Self::Staged(reader) => reader.is_over(),
        }
    }
}

/// The sending half of a stream, after its head.
#[derive(Debug)]
pub enum BodyWriter {
    /// HTTP/1.1.
    H1(H1Writer),
    /// HTTP/2.
    H2(H2Writer),
}

impl BodyWriter {
    /// Sends what `reader` has in hand (at least one byte) and consumes it.
    ///
    /// *Errors*: the receiving peer is gone or reset the stream.
    ///
    /// *Cancel safety*: not to be used again after it was dropped unfinished.
    pub async fn send_from(&mut self, reader: &mut BodyReader) -> Result<usize, BodyError> {
        let last = reader.ends_after_data();
        let n = self.send(reader.data(), last).await?;
        reader.consume(n);
        Ok(n)
    }

    /// Sends (or gathers) body bytes; returns how many were taken. With `last`, they are the end of the body when all
    /// were taken.
    pub async fn send(&mut self, data: &[u8], last: bool) -> Result<usize, BodyError> {
        match self {
            Self::H1(writer) => writer.send(data).await,
            Self::H2(writer) => writer.send(data, last).await,
        }
    }

    /// Ends the body. What was gathered leaves with [`flush`](Self::flush).
    pub fn finish(&mut self, trailers: Option<&FieldBlock>) -> Result<(), BodyError> {
        match self {
            Self::H1(writer) => writer.finish(trailers),
            Self::H2(writer) => writer.finish(trailers),
        }
    }

    /// Sends what was gathered.
    pub async fn flush(&mut self) -> Result<(), BodyError> {
        match self {
            Self::H1(writer) => writer.flush().await,
            Self::H2(_) => Ok(()),
        }
    }

    /// Sends what was gathered, without letting others go first.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BodyError>> {
        match self {
            Self::H1(writer) => writer.poll_flush(cx).map_err(BodyError::from),
            Self::H2(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether something was gathered that only [`flush`](Self::flush) sends.
    #[must_use]
    pub fn has_gathered(&self) -> bool {
        match self {
            Self::H1(writer) => !writer.is_flushed(),
            Self::H2(_) => false,
        }
    }

    /// Whether `n` bytes more would only be gathered: sending them cannot wait.
    fn gathers(&self, n: usize) -> bool {
        match self {
            Self::H1(writer) => writer.gathers(n),
            Self::H2(_) => false,
        }
    }

    /// Ready when the peer does not want the rest any more: it reset the stream (HTTP/2), or it is a client and closed
    /// its half (HTTP/1.1). Costs no system call.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<BodyError> {
        match self {
            Self::H1(writer) => writer.poll_gone(cx),
            Self::H2(writer) => writer.poll_gone(cx),
        }
    }

    /// Body bytes sent or gathered so far.
    #[must_use]
    pub const fn sent(&self) -> u64 {
        match self {
            Self::H1(writer) => writer.sent(),
            Self::H2(writer) => writer.sent(),
        }
    }

    /// Whether the body was sent to its end.
    #[must_use]
    pub const fn is_finished(&self) -> bool {
        match self {
            Self::H1(writer) => writer.is_finished(),
            Self::H2(writer) => writer.is_finished(),
        }
    }
}

/// Called whenever bytes moved, so that idle timers start again.
pub trait Progress {
    /// Bytes moved.
    fn moved(&self);
}

impl Progress for () {
    fn moved(&self) {}
}

/// Which side of a [`pump`] failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// Reading the source.
    Source(BodyError),
    /// Writing the sink.
    Sink(BodyError),
}

/// Passes a body on until its end. Whatever the writer has gathered before (a head) leaves with the first bytes, or at
/// once when there are none yet.
///
/// `trailers` tells whether trailers may travel on (HTTP/1.1 `enable_trailers`). `progress` is not told of bytes that
/// nothing was waited for: they moved when the caller saw the head, or when it was told last.
pub async fn pump(
    reader: &mut BodyReader,
    writer: &mut BodyWriter,
    trailers: bool,
    progress: &impl Progress,
) -> Result<(), Failed> {
    loop {
        let (fill, waited) = fill_or_flush(reader, writer).await?;
        match fill {
            Fill::Data => {
                let at_once = !waited && writer.gathers(reader.data().len());
                writer.send_from(reader).await.map_err(Failed::Sink)?;
                if !at_once {
                    progress.moved();
                }
                if writer.is_finished() {
                    // Learn the end from the reader as well, so that its connection can be used again.
                    return match poll_now(|cx| reader.poll_fill(cx)).await {
                        Some(Err(error)) => Err(Failed::Source(error)),
                        _ => Ok(()),
                    };
                }
            }
            Fill::End => {
                let section = reader.trailers().filter(|section| trailers && !section.is_empty());
                writer.finish(section).map_err(Failed::Sink)?;
                return writer.flush().await.map_err(Failed::Sink);
            }
        }
    }
}

/// Waits for more of the body; what the writer gathered is sent before waiting, not before. Tells whether it waited.
pub(crate) async fn fill_or_flush(
    reader: &mut BodyReader,
    writer: &mut BodyWriter,
) -> Result<(Fill, bool), Failed> {
    if let Some(fill) = poll_now(|cx| reader.poll_fill(cx)).await {
        return fill.map(|fill| (fill, false)).map_err(Failed::Source);
    }
    writer.flush().await.map_err(Failed::Sink)?;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(fill) = reader.poll_fill(cx) {
            return Poll::Ready(fill.map(|fill| (fill, true)).map_err(Failed::Source));
        }
        // A receiver that lost interest must not be found out only with the next byte.
        writer.poll_gone(cx).map(|error| Err(Failed::Sink(error)))
    })
    .await
}

/// Polls once: `None` when it was not ready. The task is woken when it becomes so.
pub(crate) async fn poll_now<T>(mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Option<T> {
    std::future::poll_fn(|cx| match poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Reads and drops the rest of a body, at most `limit` bytes; `true` when its end was reached.
///
/// For requests that were answered early: the connection can be used again only when the rest is known to be small.
pub async fn discard(reader: &mut BodyReader, limit: u64) -> bool {
    let before = reader.received();
    std::future::poll_fn(|cx| {
        loop {
            match ready!(reader.poll_fill(cx)) {
                Ok(Fill::Data) => {
                    let n = reader.data().len();
                    reader.consume(n);
                    if reader.received() - before > limit {
                        return Poll::Ready(false);
                    }
                }
                Ok(Fill::End) => return Poll::Ready(true),
                Err(_) => return Poll::Ready(false),
            }
        }
    })
    .await
}
