//! Frames as bytes (RFC 9113 §4 and §6): heads are read and written here, payloads where they are understood.

use super::error::{Code, H2Error};

/// Octets of a frame head.
pub const HEAD_BYTES: usize = 9;
/// Largest payload unless SETTINGS says otherwise (RFC 9113 §4.2).
pub const DEFAULT_FRAME_BYTES: u32 = 16_384;
/// Largest payload SETTINGS can allow.
pub const MAX_FRAME_BYTES: u32 = (1 << 24) - 1;

/// Flag of DATA and HEADERS.
pub const END_STREAM: u8 = 0x1;
/// Flag of SETTINGS and PING.
pub const ACK: u8 = 0x1;
/// Flag of HEADERS, PUSH_PROMISE and CONTINUATION.
pub const END_HEADERS: u8 = 0x4;
/// Flag of DATA and HEADERS.
pub const PADDED: u8 = 0x8;
/// Flag of HEADERS.
pub const PRIORITY: u8 = 0x20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are those of RFC 9113 §6
pub enum Kind {
    Data,
    Headers,
    Priority,
    ResetStream,
    Settings,
    PushPromise,
    Ping,
    GoAway,
    WindowUpdate,
    Continuation,
    /// A type that is to be ignored (RFC 9113 §4.1).
    Unknown,
}

impl Kind {
    /// By the type octet.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        match byte {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x2 => Self::Priority,
            0x3 => Self::ResetStream,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x6 => Self::Ping,
            0x7 => Self::GoAway,
            0x8 => Self::WindowUpdate,
            0x9 => Self::Continuation,
            _ => Self::Unknown,
        }
    }

    const fn byte(self) -> u8 {
        match self {
            Self::Data => 0x0,
            Self::Headers => 0x1,
            Self::Priority => 0x2,
            Self::ResetStream => 0x3,
            Self::Settings => 0x4,
            Self::PushPromise => 0x5,
            Self::Ping => 0x6,
            Self::GoAway => 0x7,
            Self::WindowUpdate => 0x8,
            Self::Continuation => 0x9,
            Self::Unknown => 0xff,
        }
    }
}

/// A frame head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Octets of payload.
    pub length: usize,
    /// The type.
    pub kind: Kind,
    /// The flags; unknown ones are ignored.
    pub flags: u8,
    /// The stream, without the reserved bit.
    pub stream: u32,
}

impl FrameHead {
    /// Reads a head.
    #[must_use]
    pub const fn parse(octets: &[u8; HEAD_BYTES]) -> Self {
        let [a, b, c, kind, flags, d, e, f, g] = *octets;
        Self {
            length: (a as usize) << 16 | (b as usize) << 8 | c as usize,
            kind: Kind::from_byte(kind),
            flags,
            stream: u32::from_be_bytes([d, e, f, g]) & 0x7fff_ffff,
        }
    }

    /// Whether a flag is set.
    #[must_use]
    pub const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Checks what can be judged by the head alone: on which stream a frame may stand and how long it may be.
    ///
    /// *Errors*: connection errors. Lengths that are errors of the stream only are judged with the payload.
    pub const fn check(&self, max_frame: usize) -> Result<(), H2Error> {
        if self.length > max_frame {
            return Err(H2Error::FrameTooLarge);
        }
        let on_stream = self.stream != 0;
        let (stream_good, length_good) = match self.kind {
            Kind::Data => (on_stream, !self.has(PADDED) || self.length >= 1),
            Kind::Headers => {
                let least = (self.has(PADDED) as usize) + if self.has(PRIORITY) { 5 } else { 0 };
                (on_stream, self.length >= least)
            }
            Kind::Priority | Kind::Continuation | Kind::PushPromise => (on_stream, true),
            Kind::ResetStream => (on_stream, self.length == 4),
            Kind::Settings => {
                (!on_stream, if self.has(ACK) { self.length == 0 } else { self.length.is_multiple_of(6) })
            }
            Kind::Ping => (!on_stream, self.length == 8),
            Kind::GoAway => (!on_stream, self.length >= 8),
            Kind::WindowUpdate => (true, self.length == 4),
            Kind::Unknown => (true, true),
        };
        if !stream_good {
            Err(H2Error::BadStreamId)
        } else if !length_good {
            Err(H2Error::BadFrameLength)
        } else {
            Ok(())
        }
    }
}

/// A big-endian number at the front of a payload; `None` when it is shorter.
#[must_use]
pub fn number(payload: &[u8]) -> Option<u32> {
    payload.first_chunk::<4>().map(|octets| u32::from_be_bytes(*octets))
}

/// Writes a frame head.
#[inline]
pub fn put_head(out: &mut Vec<u8>, length: usize, kind: Kind, flags: u8, stream: u32) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind.byte(), flags, d, e, f, g]);
}

/// Writes the length of a frame whose head begins at `at` and that reaches to the end of `out`.
pub fn set_length(out: &mut [u8], at: usize, length: usize) {
    let [_, a, b, c] = u32::try_from(length).unwrap_or(0).to_be_bytes();
    if let Some(place) = out.get_mut(at..at + 3) {
        place.copy_from_slice(&[a, b, c]);
    }
}

/// Writes RST_STREAM.
pub fn put_reset(out: &mut Vec<u8>, stream: u32, code: Code) {
    put_head(out, 4, Kind::ResetStream, 0, stream);
    out.extend_from_slice(&code.0.to_be_bytes());
}

/// Writes WINDOW_UPDATE.
pub fn put_window_update(out: &mut Vec<u8>, stream: u32, increment: u32) {
    put_head(out, 4, Kind::WindowUpdate, 0, stream);
    out.extend_from_slice(&increment.to_be_bytes());
}

/// Writes PING.
pub fn put_ping(out: &mut Vec<u8>, ack: bool, payload: &[u8; 8]) {
    put_head(out, 8, Kind::Ping, if ack { ACK } else { 0 }, 0);
    out.extend_from_slice(payload);
}

/// Writes GOAWAY without debug data.
pub fn put_go_away(out: &mut Vec<u8>, last: u32, code: Code) {
    put_head(out, 8, Kind::GoAway, 0, 0);
    out.extend_from_slice(&last.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(kind: Kind, length: usize, flags: u8, stream: u32) -> FrameHead {
        let mut out = Vec::new();
        put_head(&mut out, length, kind, flags, stream);
        FrameHead::parse(out.first_chunk().unwrap())
    }

    #[test]
    fn head_survives_the_round_trip_and_drops_the_reserved_bit() {
        for kind in 0..=10u8 {
            let kind = Kind::from_byte(kind);
            let read = head(kind, 0x01_02_03, 0x25, 0x8000_0007);
            assert_eq!(read, FrameHead { length: 0x01_02_03, kind, flags: 0x25, stream: 7 });
        }
    }

    #[test]
    fn heads_are_judged_by_stream_and_length() {
        use Kind::{Continuation, Data, GoAway, Headers, Ping, Priority, PushPromise, ResetStream};
        use Kind::{Settings, Unknown, WindowUpdate};
        let max = DEFAULT_FRAME_BYTES as usize;
        for (kind, length, flags, stream, expected) in [
            (Data, max, 0, 1, Ok(())),
            (Data, max + 1, 0, 1, Err(H2Error::FrameTooLarge)),
            (Data, 0, PADDED, 1, Err(H2Error::BadFrameLength)),
            (Data, 1, 0, 0, Err(H2Error::BadStreamId)),
            (Headers, 5, PADDED | PRIORITY, 1, Err(H2Error::BadFrameLength)),
            (Headers, 6, PADDED | PRIORITY, 1, Ok(())),
            (Headers, 6, 0, 0, Err(H2Error::BadStreamId)),
            (Priority, 5, 0, 0, Err(H2Error::BadStreamId)),
            (ResetStream, 3, 0, 1, Err(H2Error::BadFrameLength)),
            (ResetStream, 4, 0, 0, Err(H2Error::BadStreamId)),
            (Settings, 6, ACK, 0, Err(H2Error::BadFrameLength)),
            (Settings, 0, ACK, 0, Ok(())),
            (Settings, 7, 0, 0, Err(H2Error::BadFrameLength)),
            (Settings, 6, 0, 1, Err(H2Error::BadStreamId)),
            (PushPromise, 4, 0, 0, Err(H2Error::BadStreamId)),
            (Ping, 7, 0, 0, Err(H2Error::BadFrameLength)),
            (Ping, 8, 0, 1, Err(H2Error::BadStreamId)),
            (GoAway, 7, 0, 0, Err(H2Error::BadFrameLength)),
            (GoAway, 8, 0, 1, Err(H2Error::BadStreamId)),
            (WindowUpdate, 5, 0, 0, Err(H2Error::BadFrameLength)),
            (WindowUpdate, 4, 0, 1, Ok(())),
            (Continuation, 4, 0, 0, Err(H2Error::BadStreamId)),
            (Unknown, max, 0xff, 5, Ok(())),
            (Unknown, max + 1, 0xff, 5, Err(H2Error::FrameTooLarge)),
        ] {
            assert_eq!(head(kind, length, flags, stream).check(max), expected, "{kind:?} {length} {stream}");
        }
    }
}
