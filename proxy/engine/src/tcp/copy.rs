//! Bytes in both directions until both have ended.
//!
//! ```text
//!  each direction:  Copy ──end of stream──▶ Close ──FIN sent──▶ Done
//! ```
//!
//! The end of one direction is passed on as such (half-close) and does not end the other. A buffer is held only while
//! bytes are in it; it grows from 16 to 64 KiB while reads fill it.

use crate::io::{Buf, BufferPool, Deadline, Io, Wheel};
use crate::worker::Worker;
use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

/// One of the two connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The first one.
    A,
    /// The second one.
    B,
}

/// Why copying ended.
#[derive(Debug)]
pub enum CopyEnd {
    /// Both directions came to their end.
    Finished,
    /// Nothing moved for the idle timeout.
    Idle,
    /// A connection failed; the other one must not end as if all had been said.
    Failed(Side, io::Error),
}

/// Bytes passed on so far; readable while (and after) copying goes on, even when that is cancelled.
#[derive(Debug, Default)]
pub struct Progress {
    /// From A to B.
    pub a_to_b: Cell<u64>,
    /// From B to A.
    pub b_to_a: Cell<u64>,
    /// The side whose TLS ended without close_notify: what it said may have been cut off.
    pub cut: Cell<Option<Side>>,
}

/// Copies between two connections until both directions have ended, one fails, or nothing moves for `idle`. On failure
/// both sides are set to be reset when dropped, so that cut data is not taken for whole.
///
/// *Cancel safety*: safe; bytes under way are lost with the connections.
pub async fn copy_both(
    worker: &Worker,
    a: &Io,
    b: &Io,
    idle: Option<Duration>,
    progress: &Progress,
) -> CopyEnd {
    copy(&worker.wheel, &worker.buffers, a, b, idle, progress).await
}

async fn copy(
    wheel: &Wheel,
    buffers: &BufferPool,
    a: &Io,
    b: &Io,
    idle: Option<Duration>,
    progress: &Progress,
) -> CopyEnd {
    let mut forth = Direction::new(Side::A);
    let mut back = Direction::new(Side::B);
    let deadline = wheel.deadline();
    deadline.set_opt(idle);
    let end = poll_fn(|cx| {
        let mut moved = false;
        let first = forth.poll(buffers, a, b, cx, progress, &mut moved);
        let second = back.poll(buffers, b, a, cx, progress, &mut moved);
        match (first, second) {
            (Poll::Ready(Err((side, error))), _) | (_, Poll::Ready(Err((side, error)))) => {
                Poll::Ready(CopyEnd::Failed(side, error))
            }
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(CopyEnd::Finished),
            _ => poll_idle(&deadline, idle, moved, cx),
        }
    })
    .await;
    if let CopyEnd::Failed(..) = end {
        a.reset_on_drop();
        b.reset_on_drop();
    }
    end
}

fn poll_idle(
    deadline: &Deadline,
    idle: Option<Duration>,
    moved: bool,
    cx: &mut Context<'_>,
) -> Poll<CopyEnd> {
    if moved {
        deadline.set_opt(idle);
    }
    deadline.poll_expired(cx).map(|()| CopyEnd::Idle)
}

struct Direction {
    from: Side,
    state: State,
    buf: Option<Buf>,
    /// The last read filled its buffer.
    eager: bool,
}

enum State {
    Copy,
    Close,
    Done,
}

impl Direction {
    const fn new(from: Side) -> Self {
        Self { from, state: State::Copy, buf: None, eager: false }
    }

    fn failed(&self, reading: bool) -> impl Fn(io::Error) -> (Side, io::Error) + use<> {
        let side = match (self.from, reading) {
            (Side::A, true) | (Side::B, false) => Side::A,
            (Side::A, false) | (Side::B, true) => Side::B,
        };
        move |error| (side, error)
    }

    fn poll(
        &mut self,
        buffers: &BufferPool,
        from: &Io,
        to: &Io,
        cx: &mut Context<'_>,
        progress: &Progress,
        moved: &mut bool,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        let count = match self.from {
            Side::A => &progress.a_to_b,
            Side::B => &progress.b_to_a,
        };
        loop {
            match self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Close => {
                    ready!(to.poll_shutdown(cx)).map_err(self.failed(false))?;
                    self.state = State::Done;
                }
                State::Copy => {
                    if let Some(buf) = self.buf.as_mut().filter(|buf| !buf.is_empty()) {
                        let written = ready!(to.poll_write(cx, buf.data()));
                        let n = match written {
                            Ok(0) => Err(io::Error::from(io::ErrorKind::WriteZero)),
                            other => other,
                        };
                        let n = n.map_err(self.failed(false))?;
                        if let Some(buf) = &mut self.buf {
                            buf.consume(n);
                        }
                        count.set(count.get() + n as u64);
                        *moved = true;
                        continue;
                    }
                    ready!(self.poll_fill(buffers, from, to, cx, progress, moved))?;
                }
            }
        }
    }

    /// Reads into a buffer; when there is nothing to read, gives the buffer back and lets go what TLS holds back.
    fn poll_fill(
        &mut self,
        buffers: &BufferPool,
        from: &Io,
        to: &Io,
        cx: &mut Context<'_>,
        progress: &Progress,
        moved: &mut bool,
    ) -> Poll<Result<(), (Side, io::Error)>> {
        let mut buf = match self.buf.take() {
            Some(buf) if !self.eager || buf.capacity() > crate::io::BUFFER_BYTES => buf,
            _ if self.eager => buffers.take_big(),
            _ => buffers.take(),
        };
        match from.poll_read(cx, buf.space()) {
            Poll::Pending => {
                if let Poll::Ready(Err(error)) = to.poll_flush(cx) {
                    return Poll::Ready(Err(self.failed(false)(error)));
                }
                Poll::Pending
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                // Many peers just close, without close_notify. Protocols that care tell their own end; the others would
                // lose the answer that is still under way, were both connections reset.
                progress.cut.set(Some(self.from));
                self.state = State::Close;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failed(true)(error))),
            Poll::Ready(Ok(0)) => {
                self.state = State::Close;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Ok(n)) => {
                buf.filled(n);
                self.eager = buf.is_full() && from.allows_big_buffers() && to.allows_big_buffers();
                self.buf = Some(buf);
                *moved = true;
                Poll::Ready(Ok(()))
            }
        }
    }
}

#[cfg(test)]
mod tests;
