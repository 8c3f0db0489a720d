//! One connection, plain or TLS.
//!
//! Every method takes `&self`, so that a task that reads and one that writes (or one that does both) share an `Rc<Io>`.
//! Cells are borrowed only inside a poll, never across an await. At most one task may wait to read and one to write.
//!
//! A read is tried first and waited for only when the socket has nothing: on a plain connection a request costs one
//! read and a response one write.

use super::tls::Tls;
use super::{BIG_BUFFER_BYTES, Buf, BufferPool, TlsFacts};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// A connection.
pub struct Io {
    tcp: RefCell<TcpStream>,
    tls: Option<RefCell<Box<Tls>>>,
    facts: RefCell<Option<Arc<TlsFacts>>>,
    /// Bytes taken from the socket and not yet handed on: looked at before a chain was chosen, or TLS records that
    /// could not be opened yet. Also the last writer of `eof`.
    pending: RefCell<Option<Buf>>,
    buffers: BufferPool,
    peer: SocketAddr,
    local: SocketAddr,
    bytes_read: Cell<u64>,
    bytes_written: Cell<u64>,
    /// Whether big buffers are within the connection's limit.
    big: Cell<bool>,
    /// Whether this side has given it up.
    aborted: Cell<bool>,
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io")
            .field("peer", &self.peer)
            .field("local", &self.local)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Io {
    /// A plain connection. `prefix` holds bytes that were already taken from the socket.
    ///
    /// *Errors*: the socket is not connected any more.
    pub fn plain(tcp: TcpStream, prefix: Option<Buf>, buffers: BufferPool) -> io::Result<Self> {
        Self::new(tcp, prefix, buffers, None)
    }

    /// A TLS connection, ready for [`Io::handshake`].
    ///
    /// *Errors*: the socket is not connected any more.
    pub fn tls(
        tcp: TcpStream,
        prefix: Option<Buf>,
        buffers: BufferPool,
        connection: rustls::Connection,
    ) -> io::Result<Self> {
        Self::new(tcp, prefix, buffers, Some(RefCell::new(Box::new(Tls::new(connection)))))
    }

    fn new(
        tcp: TcpStream,
        prefix: Option<Buf>,
        buffers: BufferPool,
        tls: Option<RefCell<Box<Tls>>>,
    ) -> io::Result<Self> {
        Ok(Self {
            peer: tcp.peer_addr()?,
            local: tcp.local_addr()?,
            tcp: RefCell::new(tcp),
            tls,
            facts: RefCell::new(None),
            pending: RefCell::new(prefix.filter(|buf| !buf.is_empty())),
            buffers,
            bytes_read: Cell::new(0),
            bytes_written: Cell::new(0),
            big: Cell::new(true),
            aborted: Cell::new(false),
        })
    }

    /// Address of the other end.
    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Address of this end.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// What the handshake said; `None` on a plain connection and before the end of the handshake.
    pub fn tls_facts(&self) -> Option<Arc<TlsFacts>> {
        self.facts.borrow().clone()
    }

    pub(crate) fn set_tls_facts(&self, facts: Arc<TlsFacts>) {
        *self.facts.borrow_mut() = Some(facts);
    }

    /// Whether this connection is TLS.
    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Application bytes received so far.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// Application bytes accepted for sending so far.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.get()
    }

    /// Keeps buffers of this connection within `per_connection_buffer_limit_bytes`, as far as it is above a TLS record.
    pub(crate) fn limit_buffers(&self, bytes: u32) {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        self.big.set(bytes >= BIG_BUFFER_BYTES);
        if let Some(tls) = &self.tls {
            tls.borrow_mut().limit_buffers(bytes);
        }
    }

    /// Whether buffers of [`BIG_BUFFER_BYTES`] are within the connection's limit.
    pub fn allows_big_buffers(&self) -> bool {
        self.big.get()
    }

    /// Reads the TLS connection, where there is one.
    pub(crate) fn with_tls<R>(&self, look: impl FnOnce(&rustls::Connection) -> R) -> Option<R> {
        self.tls.as_ref().map(|tls| look(tls.borrow().connection()))
    }

    /// Runs the TLS handshake to its end. On failure the alert has been sent where the socket took it at once.
    ///
    /// *Errors*: those of the socket; `UnexpectedEof` when the peer went away; `InvalidData` around a
    /// [`rustls::Error`] otherwise. Cancel safe; has no limit of its own.
    pub async fn handshake(&self) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        poll_fn(|cx| {
            let mut tls = tls.borrow_mut();
            let mut tcp = self.tcp.borrow_mut();
            loop {
                ready!(tls.poll_send(&mut tcp, cx))?;
                if !tls.is_handshaking() {
                    return Poll::Ready(Ok(()));
                }
                let mut pending = self.pending.borrow_mut();
                if ready!(tls.poll_receive(&mut tcp, &mut pending, &self.buffers, cx))? == 0
                    && tls.is_handshaking()
                {
                    return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                }
            }
        })
        .await
    }

    /// Reads into `buf`; 0 is the end of the stream (or an empty `buf`).
    ///
    /// *Errors*: those of the socket; on TLS also `UnexpectedEof` when the peer closed without saying so (the data may
    /// be cut) and `InvalidData` for a broken record.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        let read = match &self.tls {
            None => self.poll_read_plain(cx, buf),
            Some(tls) => {
                let mut tls = tls.borrow_mut();
                let mut tcp = self.tcp.borrow_mut();
                let mut pending = self.pending.borrow_mut();
                tls.poll_read(&mut tcp, &mut pending, &self.buffers, cx, buf)
            }
        };
        if let Poll::Ready(Ok(n)) = &read {
            self.bytes_read.set(self.bytes_read.get() + *n as u64);
        }
        read
    }

    fn poll_read_plain(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pending = self.pending.borrow_mut();
        if let Some(held) = pending.as_mut() {
            let n = held.len().min(buf.len());
            if let (Some(to), Some(from)) = (buf.get_mut(..n), held.data().get(..n)) {
                to.copy_from_slice(from);
            }
            held.consume(n);
            if held.is_empty() {
                *pending = None;
            }
            return Poll::Ready(Ok(n));
        }
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut *self.tcp.borrow_mut()).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Waits until a read is worth trying, holding no buffer meanwhile. May be ready when there is nothing for the
    /// application yet (a TLS control message).
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end that TLS announced may come without one of TCP: nothing more would arrive to wake us.
        if self.aborted.get() || self.pending.borrow().is_some() || self.has_tls_news() {
            return Poll::Ready(Ok(()));
        }
        self.tcp.borrow().poll_read_ready(cx)
    }

    /// Ready when the peer has closed its half, as far as the reactor has heard; takes no bytes and costs no system
    /// call. To be polled by the task that reads. Bytes that arrived and were not read hide an end that comes later.
    pub fn poll_peer_closed(&self, cx: &mut Context<'_>) -> Poll<()> {
        let tcp = self.tcp.borrow();
        if self.aborted.get() || ready!(tcp.poll_read_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        let known = std::pin::pin!(tcp.ready(Interest::READABLE));
        match known.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(known)) if !known.is_read_closed() => Poll::Pending,
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Whether TLS holds plaintext or the peer's end.
    fn has_tls_news(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            let tls = tls.borrow();
            tls.has_plaintext() || tls.peer_closed()
        })
    }

    /// Sends what the socket takes now. On TLS, bytes accepted may wait for [`Io::poll_flush`].
    ///
    /// *Errors*: those of the socket.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    /// As [`Io::poll_write`], from several places in one call.
    pub fn poll_write_vectored(&self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.check()?;
        let mut tcp = self.tcp.borrow_mut();
        let written = match (&self.tls, bufs) {
            (None, [one]) => Pin::new(&mut *tcp).poll_write(cx, one),
            (None, many) => Pin::new(&mut *tcp).poll_write_vectored(cx, many),
            (Some(tls), bufs) => tls.borrow_mut().poll_write(&mut tcp, cx, bufs),
        };
        if let Poll::Ready(Ok(n)) = &written {
            self.bytes_written.set(self.bytes_written.get() + *n as u64);
        }
        written
    }

    /// Waits until everything accepted has been given to the socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        match &self.tls {
            None => Poll::Ready(Ok(())),
            Some(tls) => tls.borrow_mut().poll_send(&mut self.tcp.borrow_mut(), cx),
        }
    }

    /// Ends the sending direction: close_notify on TLS, then FIN. Reading goes on.
    pub fn poll_shutdown(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        let mut tcp = self.tcp.borrow_mut();
        if let Some(tls) = &self.tls {
            let mut tls = tls.borrow_mut();
            tls.close();
            ready!(tls.poll_send(&mut tcp, cx))?;
        }
        Pin::new(&mut *tcp).poll_shutdown(cx)
    }

    /// Reads into `buf`; see [`Io::poll_read`]. Cancel safe.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Waits until a read is worth trying; see [`Io::poll_readable`]. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// Sends all of it and flushes. Not cancel safe: how much was sent is unknown then.
    pub async fn write_all(&self, buf: &[u8]) -> io::Result<()> {
        let mut rest = buf;
        while !rest.is_empty() {
            let n = poll_fn(|cx| self.poll_write(cx, rest)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = rest.get(n..).unwrap_or_default();
        }
        self.flush().await
    }

    /// Sends both, in as few calls as the socket allows, and flushes. Not cancel safe.
    pub async fn write_all_two(&self, first: &[u8], second: &[u8]) -> io::Result<()> {
        let (mut first, mut second) = (first, second);
        while !first.is_empty() {
            let bufs = [IoSlice::new(first), IoSlice::new(second)];
            let n = poll_fn(|cx| self.poll_write_vectored(cx, &bufs)).await?;
            if n == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            second = second.get(n.saturating_sub(first.len())..).unwrap_or_default();
            first = first.get(n..).unwrap_or_default();
        }
        self.write_all(second).await
    }

    /// Waits until everything accepted has been given to the socket. Cancel safe.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends the sending direction; see [`Io::poll_shutdown`]. Cancel safe.
    pub async fn shutdown(&self) -> io::Result<()> {
        poll_fn(|cx| self.poll_shutdown(cx)).await
    }

    /// Whether nothing has arrived and the peer has not closed: what a kept connection must be to be used again.
    /// TLS control messages (session tickets) are taken in on the way. Costs a system call only when bytes arrived.
    pub fn is_quiet(&self) -> bool {
        if self.pending.borrow().is_some() {
            return false;
        }
        let tcp = self.tcp.borrow();
        loop {
            // Not `poll_read_ready`: that would replace the waker of a task that waits for the end of the connection.
            if tcp.try_io(Interest::READABLE, || Ok(())).is_err() {
                return !self.has_tls_news();
            }
            let Some(tls) = &self.tls else {
                // The last read may have taken exactly what was there, so that only a look can tell.
                let look = || socket2::SockRef::from(&*tcp).peek(&mut [MaybeUninit::uninit()]);
                return tcp
                    .try_io(Interest::READABLE, look)
                    .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            };
            let mut buf = self.buffers.take();
            match tcp.try_read(buf.space()) {
                Ok(0) => return false,
                Ok(n) => buf.filled(n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(_) => return false,
            }
            let mut tls = tls.borrow_mut();
            let opened = tls.open(&mut buf);
            let quiet = opened.is_ok() && !tls.has_plaintext() && !tls.peer_closed() && buf.is_empty();
            if !buf.is_empty() {
                *self.pending.borrow_mut() = Some(buf);
            }
            tls.send_now(&tcp);
            if !quiet {
                return false;
            }
        }
    }

    /// Gives the connection up: whoever reads or writes gets `ConnectionAborted` from the next poll on, and when it is
    /// dropped the peer gets RST. Wakes nobody.
    pub fn abort(&self) {
        self.reset_on_drop();
        self.aborted.set(true);
    }

    fn check(&self) -> io::Result<()> {
        if self.aborted.get() { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }

    /// Makes the kernel send RST instead of FIN when the connection is dropped.
    pub fn reset_on_drop(&self) {
        let tcp = self.tcp.borrow();
        let _ = socket2::SockRef::from(&*tcp).set_linger(Some(std::time::Duration::ZERO));
    }
}

#[cfg(test)]
mod tests;
