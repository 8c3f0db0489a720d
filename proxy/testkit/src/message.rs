//! A strict, slow HTTP/1.1 message reader, written independently of the proxy's.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

/// One message: start line, fields, body, trailers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The start line without CR LF.
    pub start: String,
    /// Fields in order, names as received.
    pub fields: Vec<(String, String)>,
    /// The decoded body.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(String, String)>,
}

impl Message {
    /// First field of this name, whatever the case.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        find(&self.fields, name)
    }
}

pub(crate) fn find<'a>(fields: &'a [(String, String)], name: &str) -> Option<&'a str> {
    fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

fn bad(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads messages from a stream and keeps what it read beyond them.
#[derive(Debug)]
pub struct Reader<S> {
    /// The stream.
    pub stream: S,
    /// Bytes read and not used yet.
    pub ahead: Vec<u8>,
}

impl<S: AsyncRead + Unpin> Reader<S> {
    /// A reader with nothing read yet.
    pub const fn new(stream: S) -> Self {
        Self { stream, ahead: Vec::new() }
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = [0u8; 16 * 1024];
        let n = self.stream.read(&mut buffer).await?;
        self.ahead.extend_from_slice(&buffer[..n]);
        Ok(n > 0)
    }

    /// A line without its CR LF; `None` at the end of the stream.
    async fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(at) = self.ahead.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=at).collect();
                let Some(text) = line.strip_suffix(b"\r\n") else { return Err(bad("bare LF")) };
                if text.iter().any(|byte| matches!(byte, b'\r' | b'\0')) {
                    return Err(bad("CR or NUL inside a line"));
                }
                return Ok(Some(text.iter().map(|byte| char::from(*byte)).collect()));
            }
            if !self.fill().await? {
                return if self.ahead.is_empty() { Ok(None) } else { Err(bad("end inside a line")) };
            }
        }
    }

    async fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?.ok_or_else(|| bad("end inside the fields"))?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or_else(|| bad(format!("field line {line:?}")))?;
            if name.is_empty() || name.contains([' ', '\t']) {
                return Err(bad(format!("field name {name:?}")));
            }
            fields.push((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }

    /// Start line and fields; `None` when the stream ended between messages.
    ///
    /// # Errors
    /// Input that RFC 9112 does not allow, or an I/O error.
    pub async fn head(&mut self) -> io::Result<Option<Message>> {
        let Some(start) = self.line().await? else { return Ok(None) };
        let fields = self.fields().await?;
        let count = |name: &str| fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count();
        if count("content-length") + count("transfer-encoding") > 1 {
            return Err(bad("more than one framing field"));
        }
        Ok(Some(Message { start, fields, ..Message::default() }))
    }

    /// Reads the body a head announces; `until_close` says what no framing field means.
    ///
    /// # Errors
    /// Bad framing, or an end inside the body.
    pub async fn body(&mut self, message: &mut Message, until_close: bool) -> io::Result<()> {
        if let Some(coding) = message.field("transfer-encoding") {
            if coding != "chunked" {
                return Err(bad(format!("transfer coding {coding:?}")));
            }
            return self.chunks(message).await;
        }
        if let Some(length) = message.field("content-length") {
            let length: usize = length.parse().map_err(|_| bad(format!("content-length {length:?}")))?;
            message.body = self.exactly(length).await?;
        } else if until_close {
            while self.fill().await? {}
            message.body = std::mem::take(&mut self.ahead);
        }
        Ok(())
    }

    async fn chunks(&mut self, message: &mut Message) -> io::Result<()> {
        loop {
            let line = self.line().await?.ok_or_else(|| bad("end inside chunks"))?;
            let size = usize::from_str_radix(&line, 16).map_err(|_| bad(format!("chunk size {line:?}")))?;
            if size == 0 {
                message.trailers = self.fields().await?;
                return Ok(());
            }
            message.body.extend(self.exactly(size).await?);
            if self.exactly(2).await? != b"\r\n" {
                return Err(bad("chunk without CR LF"));
            }
        }
    }

    /// Exactly `n` bytes.
    ///
    /// # Errors
    /// The stream ended before.
    pub async fn exactly(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < n {
            if !self.fill().await? {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "end inside a body"));
            }
        }
        Ok(self.ahead.drain(..n).collect())
    }
}
