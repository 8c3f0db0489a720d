//! A tunnel of which one side is a message's body, as a stream of HTTP/2 is (RFC 8441): DATA frames (chunks, over HTTP/1.1)
//! on the one side, bytes on the other.
//!
//! Flow control carries the back-pressure: the client may send as much more as the host has taken, and the host is read
//! only when the client has room. The end of a direction is END_STREAM here and FIN there, a failure is a reset on both
//! sides.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::http::body::{BodyError, BodyReader, BodyWriter, Fill, poll_now};
use crate::io::{Buf, Io};
use crate::tcp::{CopyEnd, Progress, Side};
use crate::worker::Worker;

type Failure = (Side, io::Error);

/// The stream.
pub(crate) struct Stream<'s> {
    /// Receives from its peer.
    pub(crate) reader: &'s mut BodyReader,
    /// Sends to its peer.
    pub(crate) writer: &'s mut BodyWriter,
}

/// Bytes passed on so far.
#[derive(Clone, Copy)]
pub(crate) struct Counts<'p> {
    /// From the stream.
    pub(crate) from_stream: &'p Cell<u64>,
    /// To the stream.
    pub(crate) to_stream: &'p Cell<u64>,
}

/// As [`copy_counted`], for a stream on side A of `progress`.
pub(super) async fn copy(
    worker: &Worker,
    stream: Stream<'_>,
    up: &Io,
    early: Option<Buf>,
    idle: Option<Duration>,
    progress: &Progress,
) -> CopyEnd {
    let counts = Counts { from_stream: &progress.a_to_b, to_stream: &progress.b_to_a };
    copy_counted(worker, stream, up, early, idle, counts).await
}

/// Copies between the stream (A) and the host (B) until both directions have ended, one fails, or nothing moves for
/// `idle`. `early` are bytes of the host that were read with its answer.
pub(crate) async fn copy_counted(
    worker: &Worker,
    stream: Stream<'_>,
    up: &Io,
    early: Option<Buf>,
    idle: Option<Duration>,
    counts: Counts<'_>,
) -> CopyEnd {
    let moved = Cell::new(false);
    let deadline = worker.wheel.deadline();
    deadline.set_opt(idle);
    let end = {
        let mut forth = pin!(forth(stream.reader, up, counts.from_stream, &moved));
        let mut back = pin!(back(worker, up, stream.writer, early, counts.to_stream, &moved));
        let (mut forth_ended, mut back_ended) = (false, false);
        poll_fn(|cx| {
            if !forth_ended && let Poll::Ready(done) = forth.as_mut().poll(cx) {
                match done {
                    Ok(()) => forth_ended = true,
                    Err((side, error)) => return Poll::Ready(CopyEnd::Failed(side, error)),
                }
            }
            if !back_ended && let Poll::Ready(done) = back.as_mut().poll(cx) {
                match done {
                    Ok(()) => back_ended = true,
                    Err((side, error)) => return Poll::Ready(CopyEnd::Failed(side, error)),
                }
            }
            if forth_ended && back_ended {
                return Poll::Ready(CopyEnd::Finished);
            }
            if moved.take() {
                deadline.set_opt(idle);
            }
            deadline.poll_expired(cx).map(|()| CopyEnd::Idle)
        })
        .await
    };
    if let CopyEnd::Failed(..) = end {
        up.reset_on_drop();
    }
    end
}

/// From the client to the host.
async fn forth(
    reader: &mut BodyReader,
    up: &Io,
    count: &Cell<u64>,
    moved: &Cell<bool>,
) -> Result<(), Failure> {
    loop {
        let fill = match poll_now(|cx| reader.poll_fill(cx)).await {
            Some(fill) => fill,
            None => {
                // What TLS holds back leaves before we wait.
                up.flush().await.map_err(|error| (Side::B, error))?;
                poll_fn(|cx| reader.poll_fill(cx)).await
            }
        };
        match fill.map_err(gone)? {
            Fill::End => return up.shutdown().await.map_err(|error| (Side::B, error)),
            Fill::Data => {
                let n = poll_fn(|cx| up.poll_write(cx, reader.data()))
                    .await
                    .and_then(|n| if n == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(n) })
                    .map_err(|error| (Side::B, error))?;
                reader.consume(n);
                count.set(count.get() + n as u64);
                moved.set(true);
            }
        }
    }
}

/// From the host to the client.
async fn back(
    worker: &Worker,
    up: &Io,
    writer: &mut BodyWriter,
    early: Option<Buf>,
    count: &Cell<u64>,
    moved: &Cell<bool>,
) -> Result<(), Failure> {
    if let Some(early) = early {
        send(writer, early.data(), count, moved).await?;
    }
    loop {
        poll_fn(|cx| {
            if let Poll::Ready(ready) = up.poll_readable(cx) {
                return Poll::Ready(ready.map_err(|error| (Side::B, error)));
            }
            // A client that reset the stream after it had ended its own half tells it here only.
            writer.poll_gone(cx).map(|error| Err(gone(error)))
        })
        .await?;
        // No buffer is held while there is nothing to read.
        let mut buf = worker.buffers.take();
        match poll_now(|cx| up.poll_read(cx, buf.space())).await {
            None => {}
            Some(Err(error)) => return Err((Side::B, error)),
            Some(Ok(0)) => {
                writer.finish(None).map_err(gone)?;
                return writer.flush().await.map_err(gone);
            }
            Some(Ok(n)) => {
                buf.filled(n);
                send(writer, buf.data(), count, moved).await?;
            }
        }
    }
}

async fn send(
    writer: &mut BodyWriter,
    mut data: &[u8],
    count: &Cell<u64>,
    moved: &Cell<bool>,
) -> Result<(), Failure> {
    while !data.is_empty() {
        let n = writer.send(data, false).await.map_err(gone)?;
        data = data.get(n..).unwrap_or_default();
        count.set(count.get() + n as u64);
        moved.set(true);
    }
    // Over HTTP/1.1 pieces are gathered; nothing may be held back here.
    writer.flush().await.map_err(gone)
}

fn gone(error: BodyError) -> Failure {
    let kind = match error {
        BodyError::Closed => io::ErrorKind::ConnectionAborted,
        BodyError::Reset | BodyError::Refused => io::ErrorKind::ConnectionReset,
        BodyError::Framing(_) | BodyError::Protocol => io::ErrorKind::InvalidData,
    };
    (Side::A, kind.into())
}
