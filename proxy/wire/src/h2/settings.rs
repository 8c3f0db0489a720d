//! SETTINGS (RFC 9113 §6.5, RFC 8441 §3).

use super::error::H2Error;
use super::flow::WINDOW_MAX;
use super::frame::{DEFAULT_FRAME_BYTES, Kind, MAX_FRAME_BYTES, put_head};
use super::hpack::DEFAULT_TABLE_BYTES;

const HEADER_TABLE_SIZE: u16 = 0x1;
const ENABLE_PUSH: u16 = 0x2;
const MAX_CONCURRENT_STREAMS: u16 = 0x3;
const INITIAL_WINDOW_SIZE: u16 = 0x4;
const MAX_FRAME_SIZE: u16 = 0x5;
const MAX_HEADER_LIST_SIZE: u16 = 0x6;
const ENABLE_CONNECT_PROTOCOL: u16 = 0x8;

/// Window every stream begins with unless SETTINGS says otherwise (RFC 9113 §6.9.2).
pub const DEFAULT_WINDOW: u32 = 65_535;

/// The settings of one side. The default is what holds before any SETTINGS frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest table for blocks sent to that side, bytes. Default 4096.
    pub header_table_bytes: u32,
    /// Most streams the other side may have open. Default no limit.
    pub max_concurrent_streams: u32,
    /// Window of new streams towards that side, bytes. Default 65,535.
    pub initial_window: u32,
    /// Largest payload that side takes, bytes. Default 16,384.
    pub max_frame_bytes: u32,
    /// Largest header list that side takes. Default no limit.
    pub max_header_list_bytes: u32,
    /// Whether extended CONNECT may be used towards that side. Default false.
    pub connect_protocol: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            header_table_bytes: DEFAULT_TABLE_BYTES,
            max_concurrent_streams: u32::MAX,
            initial_window: DEFAULT_WINDOW,
            max_frame_bytes: DEFAULT_FRAME_BYTES,
            max_header_list_bytes: u32::MAX,
            connect_protocol: false,
        }
    }
}

impl Settings {
    /// Takes the payload of a SETTINGS frame in. `from_server` tells who sent it.
    ///
    /// *Errors*: connection errors; the settings are not to be used then. Unknown settings are ignored.
    pub fn apply(&mut self, payload: &[u8], from_server: bool) -> Result<(), H2Error> {
        let (entries, _) = payload.as_chunks::<6>();
        for [a, b, c, d, e, f] in entries {
            let value = u32::from_be_bytes([*c, *d, *e, *f]);
            match u16::from_be_bytes([*a, *b]) {
                HEADER_TABLE_SIZE => self.header_table_bytes = value,
                // A server that sends 1 breaks RFC 9113 §6.5.2; what a client says does not matter: nothing is pushed.
                ENABLE_PUSH if value > u32::from(!from_server) => return Err(H2Error::BadSetting),
                MAX_CONCURRENT_STREAMS => self.max_concurrent_streams = value,
                INITIAL_WINDOW_SIZE if value > WINDOW_MAX => return Err(H2Error::BadInitialWindow),
                INITIAL_WINDOW_SIZE => self.initial_window = value,
                MAX_FRAME_SIZE if !(DEFAULT_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&value) => {
                    return Err(H2Error::BadSetting);
                }
                MAX_FRAME_SIZE => self.max_frame_bytes = value,
                MAX_HEADER_LIST_SIZE => self.max_header_list_bytes = value,
                // RFC 8441 §3: 0 or 1, and never taken back.
                ENABLE_CONNECT_PROTOCOL if value > 1 || (value == 0 && self.connect_protocol) => {
                    return Err(H2Error::BadSetting);
                }
                ENABLE_CONNECT_PROTOCOL => self.connect_protocol = value == 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// Writes the frame that tells these settings; those that have their default are left out.
    pub fn put(&self, client: bool, out: &mut Vec<u8>) {
        let default = Self::default();
        let entries = [
            (HEADER_TABLE_SIZE, self.header_table_bytes, default.header_table_bytes),
            (ENABLE_PUSH, 0, u32::from(!client) ^ 1),
            (MAX_CONCURRENT_STREAMS, self.max_concurrent_streams, default.max_concurrent_streams),
            (INITIAL_WINDOW_SIZE, self.initial_window, default.initial_window),
            (MAX_FRAME_SIZE, self.max_frame_bytes, default.max_frame_bytes),
            (MAX_HEADER_LIST_SIZE, self.max_header_list_bytes, default.max_header_list_bytes),
            (ENABLE_CONNECT_PROTOCOL, u32::from(self.connect_protocol), 0),
        ];
        let told = || entries.iter().filter(|(_, value, default)| value != default);
        put_head(out, told().count() * 6, Kind::Settings, 0, 0);
        for (id, value, _) in told() {
            out.extend_from_slice(&id.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::h2::frame::HEAD_BYTES;

    fn entry(id: u16, value: u32) -> Vec<u8> {
        [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
    }

    #[test]
    fn settings_survive_the_round_trip() {
        let settings = Settings {
            header_table_bytes: 1,
            max_concurrent_streams: 2,
            initial_window: 3,
            max_frame_bytes: 20_000,
            max_header_list_bytes: 5,
            connect_protocol: true,
        };
        let mut out = Vec::new();
        settings.put(false, &mut out);
        let mut read = Settings::default();
        read.apply(&out[HEAD_BYTES..], true).unwrap();
        assert_eq!(read, settings);
    }

    #[test]
    fn client_tells_that_it_takes_no_pushes() {
        let mut out = Vec::new();
        Settings::default().put(true, &mut out);
        assert_eq!(&out[HEAD_BYTES..], entry(ENABLE_PUSH, 0));
        out.clear();
        Settings::default().put(false, &mut out);
        assert_eq!(out.len(), HEAD_BYTES);
    }

    #[test]
    fn values_at_their_bounds_pass_and_beyond_are_refused() {
        for (id, value, from_server, expected) in [
            (ENABLE_PUSH, 1, false, Ok(())),
            (ENABLE_PUSH, 2, false, Err(H2Error::BadSetting)),
            (ENABLE_PUSH, 0, true, Ok(())),
            (ENABLE_PUSH, 1, true, Err(H2Error::BadSetting)),
            (INITIAL_WINDOW_SIZE, 0x7fff_ffff, true, Ok(())),
            (INITIAL_WINDOW_SIZE, 0x8000_0000, true, Err(H2Error::BadInitialWindow)),
            (MAX_FRAME_SIZE, 16_383, true, Err(H2Error::BadSetting)),
            (MAX_FRAME_SIZE, 16_384, true, Ok(())),
            (MAX_FRAME_SIZE, 16_777_215, true, Ok(())),
            (MAX_FRAME_SIZE, 16_777_216, true, Err(H2Error::BadSetting)),
            (ENABLE_CONNECT_PROTOCOL, 2, true, Err(H2Error::BadSetting)),
            (0x99, u32::MAX, true, Ok(())),
        ] {
            let mut settings = Settings::default();
            assert_eq!(settings.apply(&entry(id, value), from_server), expected, "{id} {value}");
        }
        let mut settings = Settings::default();
        settings.apply(&entry(ENABLE_CONNECT_PROTOCOL, 1), true).unwrap();
        assert_eq!(settings.apply(&entry(ENABLE_CONNECT_PROTOCOL, 0), true), Err(H2Error::BadSetting));
    }
}
