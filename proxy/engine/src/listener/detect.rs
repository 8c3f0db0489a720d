//! Looking at the first bytes of a connection before a chain is chosen.

use super::hello::{FirstBytes, Hello, look};
use crate::io::Buf;
use crate::worker::Worker;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;

/// Reads more of a connection, into a buffer that is taken when there is something to read; 0 is its end.
///
/// *Errors*: those of the socket. *Cancel safety*: safe; what was read is in the buffer.
pub(super) async fn read_more(
    worker: &Worker,
    tcp: &mut TcpStream,
    buf: &mut Option<Buf>,
) -> io::Result<usize> {
    if buf.is_none() {
        tcp.readable().await?;
    }
    let buf = buf.get_or_insert_with(|| worker.buffers.take());
    poll_fn(|cx| {
        let mut space = ReadBuf::new(buf.space());
        ready!(Pin::new(&mut *tcp).poll_read(cx, &mut space))?;
        let n = space.filled().len();
        buf.filled(n);
        Poll::Ready(Ok(n))
    })
    .await
}

/// What was found. The bytes stay in the buffer.
#[derive(Debug)]
pub(super) enum Detected {
    /// TLS begins.
    Tls(Hello),
    /// Something else begins.
    Plain,
    /// It cannot be understood.
    Malformed,
    /// The peer went away.
    Closed,
}

/// Reads into `buf` until it is known what begins there. Has no limit in time; in size it is the buffer, as long as a
/// ClientHello may be. Cancel safe: what was read is in `buf`.
///
/// *Errors*: those of the socket.
pub(super) async fn detect(tcp: &mut TcpStream, buf: &mut Buf) -> io::Result<Detected> {
    poll_fn(|cx| {
        loop {
            if !buf.is_empty() {
                match look(buf.data()) {
                    FirstBytes::Hello(hello) => return Poll::Ready(Ok(Detected::Tls(hello))),
                    FirstBytes::Plain => return Poll::Ready(Ok(Detected::Plain)),
                    FirstBytes::Malformed => return Poll::Ready(Ok(Detected::Malformed)),
                    FirstBytes::Partial => {}
                }
            }
            let mut space = ReadBuf::new(buf.space());
            ready!(Pin::new(&mut *tcp).poll_read(cx, &mut space))?;
            match space.filled().len() {
                0 => return Poll::Ready(Ok(Detected::Closed)),
                n => buf.filled(n),
            }
        }
    })
    .await
}
