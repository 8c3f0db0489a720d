//! Connections, frame by frame.

mod flood;
mod flow;
mod order;
mod shutdown;

use std::time::Duration;

use super::*;
use crate::h1::BodyLength;
use crate::h2::frame::{FrameHead, HEAD_BYTES, Kind, put_head};
use crate::h2::head::HeadRefusal;
use crate::h2::stream::{StreamEnd, StreamKey};

const NOW: Duration = Duration::from_secs(1);

fn options() -> Options {
    Options {
        settings: Settings {
            max_header_list_bytes: 60 << 10,
            max_concurrent_streams: 1024,
            ..Settings::default()
        },
        connection_window: 65_535,
        max_fields: 100,
        secure: false,
    }
}

/// A frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_head(&mut out, payload.len(), Kind::from_byte(kind), flags, stream);
    out[3] = kind;
    out.extend_from_slice(payload);
    out
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH: u8 = 5;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const WINDOW: u8 = 8;
const CONTINUATION: u8 = 9;

/// An event, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    Request(u32, BodyLength, bool),
    Refused(u32, HeadRefusal),
    Response(u32, u16, BodyLength, bool),
    Data(u32, Vec<u8>, bool),
    Trailers(u32),
    Reset(u32, StreamEnd, bool),
    Window(u32),
    Room,
    GoAway(Code),
    Pong,
}

/// A connection and what the other end would see.
struct Bench {
    conn: Connection,
    /// Octets handed in and not taken yet.
    held: Vec<u8>,
}

impl Bench {
    fn server() -> Self {
        Self::of(Role::Server, options())
    }

    fn client() -> Self {
        Self::of(Role::Client, options())
    }

    /// A connection after both prefaces.
    fn of(role: Role, options: Options) -> Self {
        let conn = Connection::new(role, options, NOW);
        let mut bench = Self { conn, held: Vec::new() };
        if role == Role::Server {
            assert_eq!(bench.feed(PREFACE), Ok(vec![]));
        }
        assert_eq!(bench.feed(&frame(SETTINGS, 0, 0, &[])), Ok(vec![Seen::Room]));
        assert_eq!(bench.feed(&frame(SETTINGS, 1, 0, &[])), Ok(vec![]));
        bench.output();
        bench
    }

    fn feed(&mut self, octets: &[u8]) -> Result<Vec<Seen>, H2Error> {
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(octets);
        let mut input = &held[..];
        let mut seen = Vec::new();
        while let Some(event) = self.conn.receive(&mut input, NOW)? {
            seen.push(match event {
                Event::Request { stream, body, ended } => Seen::Request(stream.id(), body, ended),
                Event::Refused { stream, refusal, .. } => Seen::Refused(stream.id(), refusal),
                Event::Response { stream, framing, ended } => {
                    Seen::Response(stream.id(), self.conn.response.status, framing.body, ended)
                }
                Event::Data { stream, octets, ended } => Seen::Data(stream.id(), octets.to_vec(), ended),
                Event::Trailers { stream } => Seen::Trailers(stream.id()),
                Event::Reset { stream, end, complete } => Seen::Reset(stream.id(), end, complete),
                Event::Window { stream } => Seen::Window(stream.id()),
                Event::Room | Event::Settings => Seen::Room,
                Event::GoAway { code } => Seen::GoAway(code),
                Event::Pong => Seen::Pong,
            });
        }
        self.held = input.to_vec();
        Ok(seen)
    }

    /// The frames that wait to be sent: type, flags, stream, payload.
    fn output(&mut self) -> Vec<(Kind, u8, u32, Vec<u8>)> {
        let mut out = Vec::new();
        self.conn.take_output(&mut out);
        let mut rest = out.strip_prefix(&PREFACE[..]).unwrap_or(&out);
        let mut frames = Vec::new();
        while let Some(head) = rest.first_chunk::<HEAD_BYTES>() {
            let head = FrameHead::parse(head);
            let (payload, tail) = rest[HEAD_BYTES..].split_at(head.length);
            frames.push((head.kind, head.flags, head.stream, payload.to_vec()));
            rest = tail;
        }
        assert!(rest.is_empty());
        frames
    }

    /// Streams that were reset, with the code, and the code of GOAWAY.
    fn told(&mut self) -> Vec<(u32, Code)> {
        self.output()
            .into_iter()
            .filter_map(|(kind, _, stream, payload)| match kind {
                Kind::ResetStream => Some((stream, Code(frame::number(&payload)?))),
                Kind::GoAway => Some((0, Code(frame::number(&payload[4..])?))),
                _ => None,
            })
            .collect()
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in fields {
            out.push(0);
            for text in [name, value] {
                // A string of any length: 127 and continuation octets.
                if text.len() < 127 {
                    out.push(text.len() as u8);
                } else {
                    out.push(127);
                    let mut rest = text.len() - 127;
                    while rest >= 128 {
                        out.push((rest % 128) as u8 | 128);
                        rest /= 128;
                    }
                    out.push(rest as u8);
                }
                out.extend_from_slice(text.as_bytes());
            }
        }
        out
    }

    fn get(&self, stream: u32, flags: u8) -> Vec<u8> {
        self.request(stream, flags, &[])
    }

    fn request(&self, stream: u32, flags: u8, more: &[(&str, &str)]) -> Vec<u8> {
        let get = [(":method", "GET"), (":scheme", "http"), (":authority", "h"), (":path", "/")];
        let block = Self::block(&[&get[..], more].concat());
        frame(HEADERS, flags, stream, &block)
    }

    fn response(&self, stream: u32, flags: u8, status: &str, more: &[(&str, &str)]) -> Vec<u8> {
        let block = Self::block(&[&[(":status", status)][..], more].concat());
        frame(HEADERS, flags, stream, &block)
    }

    fn key(&self, stream: u32) -> StreamKey {
        self.conn.streams.find(stream).unwrap()
    }

    fn open(&mut self, method: &[u8], ended: bool) -> u32 {
        let mut head = RequestHead::default();
        assert!(head.set_method(method) && head.set_authority(b"h") && head.set_path(b"/"));
        self.conn.open(&head, ended).unwrap().id()
    }

    fn respond(&mut self, stream: u32, ended: bool) -> Result<(), SendError> {
        let head = ResponseHead { status: 200, ..ResponseHead::default() };
        self.conn.send_response(self.key(stream), &head, ended)
    }
}
