//! Compression and decompression of bodies (`envoy.extensions.filters.http.{compressor,decompressor}.v3`).

use serde::{Deserialize, Serialize};

/// Compresses responses that the client accepts in that coding, and requests where it is told to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressor {
    /// How.
    pub coding: Coding,
    /// Which responses; `None`: none.
    pub response: Option<Compressible>,
    /// Which requests; `None`: none. Default none, as in Envoy.
    pub request: Option<Compressible>,
    /// Leave responses alone that have an `etag`. Default false: strong ones lose it.
    pub disable_on_etag: bool,
    /// The upstream is not told what the client accepts. Default false.
    pub remove_accept_encoding: bool,
    /// Responses of these statuses are left alone.
    pub uncompressible_statuses: Vec<u16>,
    /// Among codings that the client likes equally well, the first compressor whose `choose_first` is set. Default false.
    pub choose_first: bool,
}

/// Which messages are compressed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compressible {
    /// Those with at least so many bytes, where that is known. Default 30.
    pub min_content_length: u32,
    /// Those of these media types; empty: Envoy's list of text formats.
    pub content_types: Vec<String>,
}

impl Default for Compressible {
    fn default() -> Self {
        Self { min_content_length: 30, content_types: Vec::new() }
    }
}

/// A coding, and how much work is put into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Coding {
    /// `gzip` (RFC 1952).
    Gzip {
        /// 1..=9. Default 6.
        level: u32,
        /// Logarithm of the window, 9..=15. Default 12.
        window_bits: u8,
    },
    /// `br` (RFC 7932).
    Brotli {
        /// 0..=11. Default 3.
        quality: u32,
        /// Logarithm of the window, 10..=24. Default 18.
        window_bits: u8,
    },
}

impl Coding {
    /// The token of `content-encoding`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli { .. } => "br",
        }
    }
}

/// What a route says of a compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CompressorRoute {
    /// Nothing is compressed.
    Off,
    /// It is.
    On {
        /// In place of [`Compressor::remove_accept_encoding`].
        remove_accept_encoding: Option<bool>,
    },
}

/// Decompresses bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decompressor {
    /// Of which coding.
    pub coding: Decoding,
    /// Requests; `None`: not. Default all of that coding.
    pub request: Option<Decompressible>,
    /// Responses; `None`: not. Default all of that coding.
    pub response: Option<Decompressible>,
    /// The upstream is told that the coding is accepted, where responses are decompressed. Default true.
    pub advertise: bool,
}

/// Which messages are decompressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decompressible {
    /// Also those that say `cache-control: no-transform`. Default false.
    pub ignore_no_transform: bool,
}

/// A coding to be undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decoding {
    /// `gzip`.
    Gzip {
        /// Logarithm of the largest window, 9..=15. Default 15.
        window_bits: u8,
        /// Most bytes that a byte may become. Default 100.
        max_inflate_ratio: u32,
    },
    /// `br`.
    Brotli,
}

impl Decoding {
    /// The token of `content-encoding`.
    pub const fn token(self) -> &'static str {
        match self {
            Self::Gzip { .. } => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// Holds requests until they are here as a whole (`envoy.extensions.filters.http.buffer.v3`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferLimit {
    /// Larger ones are answered with 413.
    pub max_request_bytes: u32,
}
