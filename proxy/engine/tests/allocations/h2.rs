//! HTTP/2 client and origin made of a few fixed frames.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const SETTINGS_ACK: &[u8] = &[0, 0, 0, 4, 1, 0, 0, 0, 0];
/// `:status: 200`, then `server: app`.
const RESPONSE: &[u8] = b"\x88\x0f\x27\x03app";
/// POST http / with an authority and a field.
const REQUEST: &[u8] = b"\x83\x86\x84\x01\x08app.mesh\x0f\x2b\x06test/1";

/// The head of a frame.
fn head(length: usize, kind: u8, flags: u8, stream: u32) -> [u8; 9] {
    let mut head = [0, 0, u8::try_from(length).unwrap(), kind, flags, 0, 0, 0, 0];
    head[5..].copy_from_slice(&stream.to_be_bytes());
    head
}

/// HEADERS and DATA with END_STREAM.
fn message(out: &mut Vec<u8>, stream: u32, block: &[u8], body: &[u8]) {
    out.extend_from_slice(&head(block.len(), 1, 4, stream));
    out.extend_from_slice(block);
    out.extend_from_slice(&head(body.len(), 0, 1, stream));
    out.extend_from_slice(body);
}

/// Reads frames until one that ends a stream; tells which. Answers SETTINGS.
fn read_end(stream: &mut TcpStream, room: &mut Vec<u8>) -> Option<u32> {
    loop {
        let mut at = 0;
        let mut ended = None;
        while let Some(frame) = room.get(at..).filter(|rest| rest.len() >= 9) {
            let length = usize::from(frame[0]) << 16 | usize::from(frame[1]) << 8 | usize::from(frame[2]);
            if frame.len() < 9 + length {
                break;
            }
            let (kind, flags) = (frame[3], frame[4]);
            if kind == 4 && flags & 1 == 0 {
                stream.write_all(SETTINGS_ACK).ok()?;
            }
            at += 9 + length;
            if kind <= 1 && flags & 1 == 1 {
                ended = Some(u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]));
                break;
            }
        }
        room.drain(..at);
        if ended.is_some() {
            return ended;
        }
        let have = room.len();
        room.resize(have + 4096, 0);
        let n = stream.read(&mut room[have..]).ok().filter(|n| *n > 0)?;
        room.truncate(have + n);
    }
}

/// Answers every stream of every connection.
pub(crate) fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            std::thread::spawn(move || {
                let (mut room, mut out) = (Vec::with_capacity(1 << 16), Vec::with_capacity(256));
                let mut preface = [0; PREFACE.len()];
                stream.read_exact(&mut preface).unwrap();
                stream.write_all(SETTINGS).unwrap();
                while let Some(id) = read_end(&mut stream, &mut room) {
                    out.clear();
                    message(&mut out, id, RESPONSE, b"hello");
                    if stream.write_all(&out).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// A connection to the proxy.
pub(crate) struct Client {
    stream: TcpStream,
    room: Vec<u8>,
    out: Vec<u8>,
    next: u32,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(PREFACE).unwrap();
        stream.write_all(SETTINGS).unwrap();
        Self { stream, room: Vec::with_capacity(1 << 16), out: Vec::with_capacity(256), next: 1 }
    }

    /// One request with a body, and its response.
    pub(crate) fn request(&mut self) {
        self.out.clear();
        message(&mut self.out, self.next, REQUEST, b"question");
        self.stream.write_all(&self.out).unwrap();
        assert_eq!(read_end(&mut self.stream, &mut self.room), Some(self.next));
        self.next += 2;
    }
}
