//! As much WebSocket (RFC 6455) as an echo and its test need: unfragmented frames up to 64 KiB.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::message::Reader;

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The key our client sends; the RFC's example.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// The answer to a key (RFC 6455 §4.2.2).
#[must_use]
pub fn accept_value(key: &str) -> String {
    base64(&sha1(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11").as_bytes()))
}

pub(crate) fn accept_head(key: &str, origin: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nx-origin: {origin}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-accept: {}\r\n\r\n",
        accept_value(key)
    )
}

/// Echoes frames until the peer closes; answers pings and the close.
pub(crate) async fn echo<S: AsyncRead + AsyncWrite + Unpin>(reader: &mut Reader<S>) -> io::Result<()> {
    loop {
        let (opcode, payload) = match read_frame(reader).await {
            Ok(frame) => frame,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let reply = match opcode {
            TEXT | BINARY | CLOSE => opcode,
            PING => PONG,
            _ => continue,
        };
        reader.stream.write_all(&frame(reply, &payload, None)).await?;
        reader.stream.flush().await?;
        if opcode == CLOSE {
            return reader.stream.shutdown().await;
        }
    }
}

/// The client's side of an upgraded connection.
#[derive(Debug)]
pub struct WebSocket<S> {
    reader: Reader<S>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Upgrades `stream` at `path`.
    ///
    /// # Errors
    /// The answer was not a proper 101.
    pub async fn open(mut stream: S, host: &str, path: &str) -> io::Result<Self> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
             sec-websocket-version: 13\r\nsec-websocket-key: {KEY}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut reader = Reader::new(stream);
        let head = reader.head().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        if !head.start.starts_with("HTTP/1.1 101")
            || head.field("sec-websocket-accept") != Some(&accept_value(KEY))
        {
            return Err(io::Error::other(format!("no upgrade: {}", head.start)));
        }
        Ok(Self { reader })
    }

    /// On a stream that is a socket already (RFC 8441).
    pub fn opened(stream: S) -> Self {
        Self { reader: Reader::new(stream) }
    }

    /// Sends a text and waits for one.
    ///
    /// # Errors
    /// The connection ended, or something other than a text came.
    pub async fn round_trip(&mut self, text: &str) -> io::Result<String> {
        self.reader.stream.write_all(&frame(TEXT, text.as_bytes(), Some([1, 2, 3, 4]))).await?;
        self.reader.stream.flush().await?;
        match read_frame(&mut self.reader).await? {
            (TEXT, payload) => Ok(String::from_utf8_lossy(&payload).into_owned()),
            (opcode, _) => Err(io::Error::other(format!("opcode {opcode}"))),
        }
    }

    /// Sends a close and waits for the answer and the end of the connection.
    ///
    /// # Errors
    /// The peer did not close as it should.
    pub async fn close(mut self) -> io::Result<()> {
        self.reader.stream.write_all(&frame(CLOSE, &[0x03, 0xe8], Some([9, 8, 7, 6]))).await?;
        self.reader.stream.flush().await?;
        let (CLOSE, _) = read_frame(&mut self.reader).await? else {
            return Err(io::Error::other("no close frame"));
        };
        match self.reader.exactly(1).await {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            other => Err(io::Error::other(format!("bytes after the close: {other:?}"))),
        }
    }
}

fn frame(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let masked = if mask.is_some() { 0x80 } else { 0 };
    let mut out = vec![0x80 | opcode];
    match u16::try_from(payload.len()).expect("a frame within 64 KiB") {
        len @ 0..126 => out.push(masked | len as u8),
        len => {
            out.push(masked | 126);
            out.extend(len.to_be_bytes());
        }
    }
    match mask {
        Some(mask) => {
            out.extend(mask);
            out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        }
        None => out.extend(payload),
    }
    out
}

async fn read_frame<S: AsyncRead + Unpin>(reader: &mut Reader<S>) -> io::Result<(u8, Vec<u8>)> {
    let head = reader.exactly(2).await?;
    let len = match head[1] & 0x7f {
        126 => {
            let extended = reader.exactly(2).await?;
            usize::from(u16::from_be_bytes([extended[0], extended[1]]))
        }
        127 => return Err(io::Error::other("frame over 64 KiB")),
        len => usize::from(len),
    };
    let mask = if head[1] & 0x80 == 0 { vec![0; 4] } else { reader.exactly(4).await? };
    let payload = reader.exactly(len).await?;
    Ok((head[0] & 0x0f, payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()))
}

/// SHA-1 (FIPS 180-4), which the handshake demands and nothing here relies on for security.
fn sha1(data: &[u8]) -> [u8; 20] {
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let mut padded = data.to_vec();
    padded.push(0x80);
    while padded.len() % 64 != 56 {
        padded.push(0);
    }
    padded.extend((data.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks(64) {
        let mut words = [0u32; 80];
        for (word, bytes) in words.iter_mut().zip(block.chunks(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for at in 16..80 {
            words[at] = (words[at - 3] ^ words[at - 8] ^ words[at - 14] ^ words[at - 16]).rotate_left(1);
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (at, word) in words.iter().enumerate() {
            let (mix, constant) = match at {
                0..20 => (b & c | !b & d, 0x5a82_7999),
                20..40 => (b ^ c ^ d, 0x6ed9_eba1),
                40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6_u32),
            };
            let next =
                a.rotate_left(5).wrapping_add(mix).wrapping_add(e).wrapping_add(constant).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (word, value) in state.iter_mut().zip([a, b, c, d, e]) {
            *word = word.wrapping_add(value);
        }
    }
    let mut digest = [0; 20];
    for (bytes, word) in digest.chunks_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    digest
}

fn base64(data: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in data.chunks(3) {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 63) as usize];
            out.push(if at <= group.len() { char::from(digit) } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_value_of_the_example_key_is_the_rfcs() {
        assert_eq!(accept_value(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
