//! The TLS state of a connection, driven by us: big reads, whole batches of records per write.
//!
//! rustls is given ciphertext from a pooled buffer (it reads 4 KiB at a time by itself) and hands back plaintext; what it
//! wants to send leaves in one vectored write.

use super::{BIG_BUFFER_BYTES, Buf, BufferPool};
use rustls::Connection;
use std::io::{self, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Encrypted bytes that may wait for the socket; beyond, writes wait.
const SEND_LIMIT: usize = 128 << 10;
/// Plaintext after which no further record is opened before the application has read.
const PLAINTEXT_LIMIT: usize = 16 << 10;

/// Largest TLS record with its overhead; a smaller limit would hold up every record.
const RECORD_MAX: usize = (16 << 10) + 512;

/// A rustls connection and what we know of its state.
pub(super) struct Tls {
    connection: Connection,
    /// Decrypted bytes not yet read.
    plaintext: usize,
    /// The peer said close_notify.
    closed: bool,
    /// The last read filled its buffer: the next one is worth a big one.
    eager: bool,
    close_sent: bool,
    big: bool,
    /// Why sending failed when bytes had been accepted: told by the next write.
    failed: Option<io::Error>,
}

impl Tls {
    pub(super) fn new(mut connection: Connection) -> Self {
        connection.set_buffer_limit(Some(SEND_LIMIT));
        Self {
            connection,
            plaintext: 0,
            closed: false,
            eager: false,
            close_sent: false,
            big: true,
            failed: None,
        }
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    pub(super) fn has_plaintext(&self) -> bool {
        self.plaintext > 0
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.closed
    }

    /// Bounds what waits for the socket, and what is read at a time.
    pub(super) fn limit_buffers(&mut self, bytes: usize) {
        self.connection.set_buffer_limit(Some(bytes.clamp(RECORD_MAX, SEND_LIMIT)));
        self.big = bytes >= BIG_BUFFER_BYTES;
    }

    /// Says close_notify, once.
    pub(super) fn close(&mut self) {
        if !self.close_sent {
            self.close_sent = true;
            self.connection.send_close_notify();
        }
    }

    /// Opens the records in `buf`, as far as there is room for plaintext.
    pub(super) fn open(&mut self, buf: &mut Buf) -> io::Result<()> {
        while !buf.is_empty() && self.plaintext < PLAINTEXT_LIMIT {
            let mut bytes = buf.data();
            let n = self.connection.read_tls(&mut bytes)?;
            if n == 0 {
                // After close_notify nothing counts any more (RFC 8446 section 6.1).
                buf.clear();
                return Ok(());
            }
            buf.consume(n);
            match self.connection.process_new_packets() {
                Ok(state) => {
                    self.plaintext = state.plaintext_bytes_to_read();
                    self.closed |= state.peer_has_closed();
                }
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
        Ok(())
    }

    /// Takes bytes from the socket (or those held back before) and opens them. 0 is the end of the stream.
    pub(super) fn poll_receive(
        &mut self,
        tcp: &mut TcpStream,
        pending: &mut Option<Buf>,
        buffers: &BufferPool,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buf = match pending.take() {
            Some(buf) => buf,
            None => {
                let mut buf = if self.eager && self.big { buffers.take_big() } else { buffers.take() };
                let mut space = ReadBuf::new(buf.space());
                ready!(Pin::new(&mut *tcp).poll_read(cx, &mut space))?;
                let n = space.filled().len();
                buf.filled(n);
                self.eager = buf.is_full();
                if n == 0 {
                    // Tells rustls, which then answers reads with `UnexpectedEof` unless close_notify came before.
                    self.connection.read_tls(&mut io::empty())?;
                    return Poll::Ready(Ok(0));
                }
                buf
            }
        };
        let before = buf.len();
        let opened = self.open(&mut buf);
        let taken = before - buf.len();
        if !buf.is_empty() {
            *pending = Some(buf);
        }
        // Answers to key updates and alerts go out at once where the socket takes them.
        self.send_now(tcp);
        opened?;
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_read(
        &mut self,
        tcp: &mut TcpStream,
        pending: &mut Option<Buf>,
        buffers: &BufferPool,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.connection.reader().read(buf) {
                Ok(n) => {
                    self.plaintext = self.plaintext.saturating_sub(n);
                    return Poll::Ready(Ok(n));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
            self.plaintext = 0;
            ready!(self.poll_receive(tcp, pending, buffers, cx))?;
        }
    }

    /// Encrypts what there is room for and sends it. Ready as soon as anything was accepted: those bytes, or some of
    /// them, may have left even when sending fails then, so that the failure is told by the next call.
    pub(super) fn poll_write(
        &mut self,
        tcp: &mut TcpStream,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            if let Some(error) = self.failed.take() {
                return Poll::Ready(Err(error));
            }
            let n = self.connection.writer().write_vectored(bufs)?;
            let sent = self.poll_send(tcp, cx);
            if n > 0 || bufs.iter().all(|buf| buf.is_empty()) {
                if let Poll::Ready(Err(error)) = sent {
                    if n == 0 {
                        return Poll::Ready(Err(error));
                    }
                    self.failed = Some(error);
                }
                return Poll::Ready(Ok(n));
            }
            ready!(sent)?;
        }
    }

    /// Gives everything encrypted to the socket.
    pub(super) fn poll_send(&mut self, tcp: &mut TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(error));
        }
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Waiting { tcp, cx }) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Gives to the socket what it takes at once, without touching the waker of a waiting writer. What is left goes with
    /// the next write; errors show there too.
    pub(super) fn send_now(&mut self, tcp: &TcpStream) {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut Trying(tcp)) {
                Ok(n) if n > 0 => {}
                _ => return,
            }
        }
    }
}

/// A socket as `io::Write`, that registers the task when it would block.
struct Waiting<'a, 'b, 'c> {
    tcp: &'a mut TcpStream,
    cx: &'b mut Context<'c>,
}

impl Write for Waiting<'_, '_, '_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        now(Pin::new(&mut *self.tcp).poll_write(self.cx, buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        now(Pin::new(&mut *self.tcp).poll_write_vectored(self.cx, bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A socket as `io::Write`, that registers nobody.
struct Trying<'a>(&'a TcpStream);

impl Write for Trying<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
