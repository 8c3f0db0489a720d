//! HTTP/1.1 or HTTP/2 by prior knowledge: told by the first bytes (RFC 9113 §3.4).

use super::Connection;
use crate::io::Buf;

/// What an HTTP/2 client sends first.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The protocol found, and the bytes read on the way.
pub(super) enum Found {
    H1(Buf),
    H2(Buf),
}

/// Reads until the protocol is certain; `None` when the connection ended or was idle for too long.
pub(super) async fn preface(connection: &Connection) -> Option<Found> {
    let worker = &connection.worker;
    let limit = connection.serving().config().idle_timeout;
    worker.wheel.timeout(limit, connection.io.readable()).await?.ok()?;
    let mut buf = worker.buffers.take();
    loop {
        let n = worker.wheel.timeout(limit, connection.io.read(buf.space())).await?.ok()?;
        if n == 0 {
            return None;
        }
        buf.filled(n);
        let data = buf.data();
        if data.starts_with(PREFACE) {
            return Some(Found::H2(buf));
        }
        if !PREFACE.starts_with(data) {
            return Some(Found::H1(buf));
        }
    }
}
