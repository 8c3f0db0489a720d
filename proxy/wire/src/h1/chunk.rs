//! Reading the chunked transfer coding (RFC 9112 §7.1).
//!
//! ```text
//! Size ──';'──▶ Extension ──CR──▶ SizeLf ──LF──▶ Data ──len──▶ DataCr ─▶ DataLf ─▶ Size
//!   └─────────────CR────────────────▲ └─size 0──▶ TrailerStart ⇄ Trailer ─▶ EndLf ─▶ Complete
//! ```
//! Every byte of framing is consumed as it comes, so a body needs no buffer beyond the socket's; only
//! trailers are collected, up to their limit. Extensions are dropped: they concern one connection
//! (RFC 9112 §7.1.1).

use super::body::BodyStep;
use super::{H1Error, Limits, token};
use crate::field::{FieldBlock, Known};
use crate::syntax;

/// What the next bytes of a chunked body are.
pub type ChunkStep = BodyStep;

/// Digits of a chunk size: as many as 64 bits hold, so that leading zeros cannot go on for ever.
const SIZE_DIGITS_MAX: u8 = 16;
/// Extension bytes every chunk may carry without drawing on the body's allowance.
const EXTENSION_BYTES_FREE: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: u8 },
    Extension { size: u64, len: usize },
    SizeLf { size: u64 },
    Data { remaining: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Complete,
    Failed(H1Error),
}

/// Reads a chunked body; see the module documentation.
#[derive(Debug)]
pub struct ChunkDecoder {
    state: State,
    /// Extension bytes beyond what the data so far has earned.
    extension_excess: usize,
    /// Absent until a trailer line begins: most bodies have none.
    trailers: Option<Box<TrailerSection>>,
}

/// Lines as they came, and the fields read from them at the end.
#[derive(Debug, Default)]
struct TrailerSection {
    lines: Vec<u8>,
    fields: FieldBlock,
}

impl Default for ChunkDecoder {
    fn default() -> Self {
        Self { state: State::Size { size: 0, digits: 0 }, extension_excess: 0, trailers: None }
    }
}

impl ChunkDecoder {
    /// Whether the last chunk and the trailer section were read.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// The trailer fields, once complete; `None` when there were none.
    #[must_use]
    pub fn trailers(&self) -> Option<&FieldBlock> {
        self.trailers.as_ref().filter(|_| self.is_complete()).map(|section| &section.fields)
    }

    /// Tells what the front of `input` is; see [`BodyStep`].
    ///
    /// # Errors
    /// Framing that is not exactly the grammar's, a field that may not be a trailer, or a limit passed.
    /// Once failed, every later call gives the same error.
    pub fn step(&mut self, input: &[u8], limits: &Limits) -> Result<ChunkStep, H1Error> {
        let result = self.advance(input, limits);
        if let Err(error) = result {
            self.state = State::Failed(error);
        }
        result
    }

    fn advance(&mut self, input: &[u8], limits: &Limits) -> Result<ChunkStep, H1Error> {
        let mut at = 0;
        loop {
            match self.state {
                State::Complete => return Ok(BodyStep::End { consumed: at }),
                State::Failed(error) => return Err(error),
                State::Data { remaining } => {
                    let available = input.len() - at;
                    if available == 0 {
                        return Ok(BodyStep::NeedMore { consumed: at });
                    }
                    let len =
                        usize::try_from(remaining).map_or(available, |remaining| remaining.min(available));
                    let remaining = remaining - len as u64;
                    self.state = if remaining == 0 { State::DataCr } else { State::Data { remaining } };
                    return Ok(BodyStep::Data { skip: at, len });
                }
                _ => {}
            }
            let Some(byte) = input.get(at) else { return Ok(BodyStep::NeedMore { consumed: at }) };
            self.framing_byte(*byte, limits)?;
            at += 1;
        }
    }

    /// Takes one byte that is not data.
    fn framing_byte(&mut self, byte: u8, limits: &Limits) -> Result<(), H1Error> {
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, b'\r') if digits > 0 => State::SizeLf { size },
            (State::Size { size, digits }, b';') if digits > 0 => State::Extension { size, len: 1 },
            (State::Size { size, digits }, _) => {
                let digit = syntax::hex(byte).ok_or(H1Error::BadChunkSize)?;
                if digits == SIZE_DIGITS_MAX || size >> 59 != 0 {
                    return Err(H1Error::BadChunkSize);
                }
                State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Extension { size, len }, b'\r') => {
                self.charge_extension(size, len, limits)?;
                State::SizeLf { size }
            }
            (State::Extension { size, len }, b'\t' | 0x20..=0x7e) => {
                if len >= limits.max_chunk_extension_bytes {
                    return Err(H1Error::ChunkExtensionTooLarge);
                }
                State::Extension { size, len: len + 1 }
            }
            (State::Extension { .. }, _) => return Err(H1Error::BadChunkExtension),
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => State::Data { remaining: size },
            (State::SizeLf { .. }, _) => return Err(H1Error::BadLineEnd),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::DataCr | State::DataLf, _) => return Err(H1Error::BadChunkEnd),
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => {
                self.keep_trailer_byte(byte, limits)?;
                State::TrailerLf
            }
            (State::TrailerStart | State::Trailer, b'\n') => return Err(H1Error::BadLineEnd),
            (State::TrailerStart | State::Trailer, _) => {
                self.keep_trailer_byte(byte, limits)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => {
                self.keep_trailer_byte(byte, limits)?;
                State::TrailerStart
            }
            (State::EndLf, b'\n') => {
                if let Some(section) = &mut self.trailers {
                    section.read(limits)?;
                }
                State::Complete
            }
            (State::TrailerLf | State::EndLf, _) => return Err(H1Error::BadLineEnd),
            // `advance` returns before it gets here with these.
            (State::Data { .. } | State::Complete | State::Failed(_), _) => return Err(H1Error::BadChunkEnd),
        };
        Ok(())
    }

    /// Counts an extension of `len` bytes on a chunk of `size`, so that a sender cannot make us read
    /// megabytes of extensions for a body of bytes, while signatures on ordinary chunks stay free.
    fn charge_extension(&mut self, size: u64, len: usize, limits: &Limits) -> Result<(), H1Error> {
        let earned = usize::try_from(size)
            .unwrap_or(usize::MAX)
            .saturating_mul(2)
            .saturating_add(EXTENSION_BYTES_FREE);
        self.extension_excess = self.extension_excess.saturating_add(len).saturating_sub(earned);
        if self.extension_excess > limits.max_chunk_extension_bytes {
            return Err(H1Error::ChunkExtensionTooLarge);
        }
        Ok(())
    }

    fn keep_trailer_byte(&mut self, byte: u8, limits: &Limits) -> Result<(), H1Error> {
        let section = self.trailers.get_or_insert_default();
        if section.lines.len() >= limits.max_trailer_bytes {
            return Err(H1Error::TrailersTooLarge);
        }
        section.lines.push(byte);
        Ok(())
    }
}

impl TrailerSection {
    /// Reads the collected lines into fields.
    fn read(&mut self, limits: &Limits) -> Result<(), H1Error> {
        self.lines.extend_from_slice(b"\r\n");
        // Bounded by the limit on bytes: a field takes at least four.
        let mut room = vec![httparse::EMPTY_HEADER; limits.max_trailer_fields.min(self.lines.len() / 4 + 1)];
        let tokens = match httparse::parse_headers(&self.lines, &mut room) {
            Ok(httparse::Status::Complete((consumed, tokens))) if consumed == self.lines.len() => tokens,
            Ok(_) => return Err(H1Error::BadLineEnd),
            Err(httparse::Error::TooManyHeaders) => return Err(H1Error::TrailersTooLarge),
            Err(error) => return Err(H1Error::from_tokeniser(error)),
        };
        for token in tokens {
            let name = token.name.as_bytes();
            match self.fields.push_checked(name, token.value) {
                Some(known) if is_forbidden(known) => return Err(H1Error::ForbiddenTrailer),
                Some(Known::Other) if token::is_framing_look_alike(name) => {
                    return Err(H1Error::FramingLookAlike);
                }
                Some(_) => {}
                None => return Err(H1Error::BadFieldName),
            }
        }
        Ok(())
    }
}

/// Fields that say how to read or route the message and therefore come too late in a trailer
/// (RFC 9110 §6.5.1): a reader that merges trailers into the head would change its mind about it.
pub(super) const fn is_forbidden(known: Known) -> bool {
    known.is_hop_by_hop() || matches!(known, Known::ContentLength | Known::Host | Known::Trailer)
}
