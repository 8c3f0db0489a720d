//! The HTTP/1.1 side of an origin.

use std::fmt::Write as _;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::script::{Body, Ending, Reply};
use super::{Seen, Shared};
use crate::message::{Message, Reader};
use crate::websocket;

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Shared, number: usize) {
    let mut reader = Reader::new(stream);
    loop {
        match serve_one(&mut reader, shared, number).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                shared.refuse(error.to_string());
                let _ = reader
                    .stream
                    .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                    .await;
                return;
            }
        }
    }
}

/// Serves one request; whether the connection goes on.
async fn serve_one<S: AsyncRead + AsyncWrite + Unpin>(
    reader: &mut Reader<S>,
    shared: &Shared,
    number: usize,
) -> io::Result<bool> {
    let Some(mut message) = reader.head().await? else { return Ok(false) };
    if message.field("expect").is_some_and(|value| value.eq_ignore_ascii_case("100-continue")) {
        reader.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    reader.body(&mut message, false).await?;
    let seen = describe(&message, number)?;
    let close = seen.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    if let Some(key) = seen.field("sec-websocket-key").filter(|_| seen.field("upgrade").is_some()) {
        let head = websocket::accept_head(key, &shared.name);
        shared.record(seen);
        reader.stream.write_all(head.as_bytes()).await?;
        websocket::echo(reader).await?;
        return Ok(false);
    }
    let reply = shared.script.reply(&seen);
    let is_head = seen.method == "HEAD";
    shared.record(seen);
    Ok(write(&mut reader.stream, &reply, is_head, close, &shared.name).await? && !close)
}

fn describe(message: &Message, connection: usize) -> io::Result<Seen> {
    let parts: Vec<&str> = message.start.split(' ').collect();
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = parts[..] else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("request line {:?}", message.start)));
    };
    let lower = |(name, value): &(String, String)| (name.to_ascii_lowercase(), value.clone());
    Ok(Seen {
        method: method.to_owned(),
        target: target.to_owned(),
        version: "HTTP/1.1",
        fields: message.fields.iter().map(lower).collect(),
        body: message.body.clone(),
        trailers: message.trailers.iter().map(lower).collect(),
        connection,
    })
}

async fn write<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &Reply,
    is_head: bool,
    close: bool,
    name: &str,
) -> io::Result<bool> {
    tokio::time::sleep(reply.delay).await;
    match reply.ending {
        Ending::Hang => std::future::pending().await,
        Ending::AbortBefore | Ending::Refuse => return Ok(false),
        Ending::AbortInBody => {
            let head = format!("HTTP/1.1 200 OK\r\nx-origin: {name}\r\ncontent-length: 1000\r\n\r\nhalf");
            stream.write_all(head.as_bytes()).await?;
            stream.flush().await?;
            return Ok(false);
        }
        Ending::Keep | Ending::AnnouncedClose | Ending::SilentClose => {}
    }
    let mut head = format!("HTTP/1.1 {} Scripted\r\nx-origin: {name}\r\n", reply.status);
    for (name, value) in &reply.fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let chunked = matches!(reply.body, Body::Chunks { .. }) || !reply.trailers.is_empty();
    match &reply.body {
        _ if chunked => head.push_str("transfer-encoding: chunked\r\n"),
        Body::Full(body) => {
            let _ = write!(head, "content-length: {}\r\n", body.len());
        }
        Body::None if reply.status >= 200 && !matches!(reply.status, 204 | 304) => {
            head.push_str("content-length: 0\r\n")
        }
        Body::None | Body::Chunks { .. } => {}
    }
    if close || reply.ending == Ending::AnnouncedClose {
        head.push_str("connection: close\r\n");
    }
    head.push_str("\r\n");
    let mut out = head.into_bytes();
    if !is_head {
        write_body(stream, reply, chunked, &mut out).await?;
    }
    stream.write_all(&out).await?;
    stream.flush().await?;
    Ok(reply.ending == Ending::Keep)
}

/// Adds the body to `out`, writing what is there before each pause.
async fn write_body<S: AsyncWrite + Unpin>(
    stream: &mut S,
    reply: &Reply,
    chunked: bool,
    out: &mut Vec<u8>,
) -> io::Result<()> {
    match &reply.body {
        Body::None => {}
        Body::Full(body) if !chunked => out.extend_from_slice(body),
        Body::Full(body) => put_chunk(out, body),
        Body::Chunks { chunk, count, gap } => {
            for _ in 0..*count {
                if !gap.is_zero() {
                    stream.write_all(out).await?;
                    stream.flush().await?;
                    out.clear();
                    tokio::time::sleep(*gap).await;
                }
                put_chunk(out, chunk);
            }
        }
    }
    if chunked {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in &reply.trailers {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn put_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        out.extend_from_slice(format!("{:x}\r\n", data.len()).as_bytes());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}
