//! The codings: gzip (RFC 1952) and Brotli (RFC 7932).

use std::io::Write;

use brotli::{CompressorWriter, DecompressorWriter};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use outrigger_traffic::config::Decoding;
use outrigger_wire::Trailers;

use crate::http::body::BodyError;
use crate::http::staged::BodyStage;

/// Room for output that is made at a time.
const ROOM: usize = 8 * 1024;
/// Most bytes that a decoder takes at a time, so that what it makes of them stays small.
const DECODER_PIECE: usize = 4 * 1024;
/// Most that Brotli may make of a byte. Its format has no limit that could be told from real data, as gzip's has; this is
/// what an honest encoder reaches with megabytes of one letter, in pieces.
const BROTLI_RATIO_MAX: u64 = 1000;
/// Output that is never taken for a bomb, whatever the ratio.
const HARMLESS: u64 = 1 << 20;

/// Compresses with gzip.
#[derive(Debug)]
pub(super) struct GzipEncoder(Compress);

impl GzipEncoder {
    pub(super) fn new(level: u32, window_bits: u8) -> Self {
        Self(Compress::new_gzip(Compression::new(level.clamp(1, 9)), window_bits.clamp(9, 15)))
    }

    fn run(&mut self, mut input: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> Result<(), BodyError> {
        loop {
            out.reserve(ROOM);
            let before = (self.0.total_in(), out.len());
            let status = self.0.compress_vec(input, out, flush).map_err(|_| BodyError::Protocol)?;
            let taken = usize::try_from(self.0.total_in() - before.0).unwrap_or(usize::MAX);
            input = input.get(taken..).unwrap_or_default();
            let is_done = match flush {
                FlushCompress::Finish => status == Status::StreamEnd,
                // Room was left over: nothing is held back.
                _ => input.is_empty() && out.len() < out.capacity(),
            };
            if is_done {
                return Ok(());
            }
            if taken == 0 && out.len() == before.1 && status != Status::Ok {
                // Nothing to flush.
                return Ok(());
            }
        }
    }
}

impl BodyStage for GzipEncoder {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.run(piece, FlushCompress::None, out)
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.run(&[], FlushCompress::Sync, out)
    }

    fn end(&mut self, out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        self.run(&[], FlushCompress::Finish, out)
    }
}

/// Compresses with Brotli.
pub(super) struct BrotliEncoder(Option<CompressorWriter<Vec<u8>>>);

impl std::fmt::Debug for BrotliEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrotliEncoder")
    }
}

impl BrotliEncoder {
    pub(super) fn new(quality: u32, window_bits: u8) -> Self {
        let window = u32::from(window_bits.clamp(10, 24));
        Self(Some(CompressorWriter::new(Vec::new(), ROOM, quality.min(11), window)))
    }

    fn with(
        &mut self,
        out: &mut Vec<u8>,
        run: impl FnOnce(&mut CompressorWriter<Vec<u8>>) -> std::io::Result<()>,
    ) -> Result<(), BodyError> {
        let writer = self.0.as_mut().ok_or(BodyError::Protocol)?;
        run(writer).map_err(|_| BodyError::Protocol)?;
        out.append(writer.get_mut());
        Ok(())
    }
}

impl BodyStage for BrotliEncoder {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.with(out, |writer| writer.write_all(piece))
    }

    fn flush(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.with(out, Write::flush)
    }

    fn end(&mut self, out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        let writer = self.0.take().ok_or(BodyError::Protocol)?;
        out.append(&mut writer.into_inner());
        Ok(())
    }
}

/// What undoes a coding.
pub(super) fn decoder(coding: Decoding) -> Box<dyn BodyStage> {
    match coding {
        Decoding::Gzip { window_bits, max_inflate_ratio } => Box::new(GzipDecoder {
            decoder: Decompress::new_gzip(window_bits.clamp(9, 15)),
            ratio_max: u64::from(max_inflate_ratio),
            ended: false,
        }),
        Decoding::Brotli => {
            Box::new(BrotliDecoder { decoder: DecompressorWriter::new(Vec::new(), ROOM), taken: 0, made: 0 })
        }
    }
}

/// Undoes gzip.
#[derive(Debug)]
struct GzipDecoder {
    decoder: Decompress,
    ratio_max: u64,
    ended: bool,
}

impl BodyStage for GzipDecoder {
    fn push(&mut self, mut piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        while !piece.is_empty() && !self.ended {
            out.reserve(ROOM);
            let before = (self.decoder.total_in(), out.len());
            let done = self.decoder.decompress_vec(piece, out, FlushDecompress::None);
            let status = done.map_err(|_| BodyError::Protocol)?;
            let taken = usize::try_from(self.decoder.total_in() - before.0).unwrap_or(usize::MAX);
            piece = piece.get(taken..).unwrap_or_default();
            let most = self.decoder.total_in().saturating_mul(self.ratio_max);
            if self.decoder.total_out() > most.max(HARMLESS) {
                return Err(BodyError::Protocol);
            }
            self.ended = status == Status::StreamEnd;
            if taken == 0 && out.len() == before.1 && !self.ended {
                return Err(BodyError::Protocol);
            }
            // What the room did not suffice for comes with more of it, before more input is read.
            while !self.ended && out.len() == out.capacity() {
                out.reserve(ROOM);
                let before = out.len();
                let done = self.decoder.decompress_vec(&[], out, FlushDecompress::None);
                match done.map_err(|_| BodyError::Protocol)? {
                    Status::StreamEnd => self.ended = true,
                    _ if out.len() == before => break,
                    _ => {}
                }
                if self.decoder.total_out() > most.max(HARMLESS) {
                    return Err(BodyError::Protocol);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        // A stream that broke off must not look like one that is over.
        if self.ended || self.decoder.total_in() == 0 { Ok(()) } else { Err(BodyError::Closed) }
    }

    fn piece_max(&self) -> usize {
        DECODER_PIECE
    }
}

/// Undoes Brotli.
struct BrotliDecoder {
    decoder: DecompressorWriter<Vec<u8>>,
    taken: u64,
    made: u64,
}

impl std::fmt::Debug for BrotliDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BrotliDecoder")
    }
}

impl BrotliDecoder {
    fn take(&mut self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let made = self.decoder.get_mut();
        self.made = self.made.saturating_add(made.len() as u64);
        out.append(made);
        if self.made > self.taken.saturating_mul(BROTLI_RATIO_MAX).max(HARMLESS) {
            return Err(BodyError::Protocol);
        }
        Ok(())
    }
}

impl BodyStage for BrotliDecoder {
    fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), BodyError> {
        self.taken = self.taken.saturating_add(piece.len() as u64);
        self.decoder.write_all(piece).map_err(|_| BodyError::Protocol)?;
        self.take(out)
    }

    fn end(&mut self, out: &mut Vec<u8>, _trailers: &mut Option<Trailers>) -> Result<(), BodyError> {
        self.decoder.close().map_err(|_| BodyError::Closed)?;
        self.take(out)
    }

    fn piece_max(&self) -> usize {
        // The ratio is looked at after each piece.
        256
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::staged::{Stages, whole};

    const GZIP: Decoding = Decoding::Gzip { window_bits: 15, max_inflate_ratio: 100 };

    fn text(bytes: usize) -> Vec<u8> {
        (0..bytes).map(|i| b"abcdefg hijk"[(i * i / 7 + i) % 12]).collect()
    }

    fn through(stage: Box<dyn BodyStage>, body: &[u8]) -> Result<Vec<u8>, BodyError> {
        whole(vec![stage] as Stages, body).map(|(body, _)| body)
    }

    #[test]
    fn what_is_coded_is_decoded_again() {
        for length in [0, 1, 10, 5_000, 300_000] {
            let body = text(length);
            for window in [9, 12, 15] {
                let coded = through(Box::new(GzipEncoder::new(6, window)), &body).unwrap();
                assert!(length < 100 || coded.len() < length);
                assert_eq!(through(decoder(GZIP), &coded).unwrap(), body);
            }
            for quality in [0, 3, 11] {
                let coded = through(Box::new(BrotliEncoder::new(quality, 18)), &body).unwrap();
                assert_eq!(through(decoder(Decoding::Brotli), &coded).unwrap(), body);
            }
        }
    }

    #[test]
    fn flushed_piece_can_be_decoded_before_the_end() {
        let mut encoders: [Box<dyn BodyStage>; 2] =
            [Box::new(GzipEncoder::new(6, 12)), Box::new(BrotliEncoder::new(3, 18))];
        for (encoder, coding) in encoders.iter_mut().zip([GZIP, Decoding::Brotli]) {
            let (mut coded, mut plain) = (Vec::new(), Vec::new());
            encoder.push(b"event one", &mut coded).unwrap();
            encoder.flush(&mut coded).unwrap();
            let mut decoder = decoder(coding);
            for piece in coded.chunks(100) {
                decoder.push(piece, &mut plain).unwrap();
            }
            assert_eq!(plain, b"event one", "{coding:?}");
            let before = coded.len();
            encoder.flush(&mut coded).unwrap();
            encoder.end(&mut coded, &mut None).unwrap();
            assert!(coded.len() > before);
        }
    }

    #[test]
    fn bombs_and_broken_streams_are_refused() {
        let zeros = vec![0u8; 64 << 20];
        let bomb = through(Box::new(GzipEncoder::new(9, 15)), &zeros).unwrap();
        assert_eq!(through(decoder(GZIP), &bomb), Err(BodyError::Protocol));
        assert_eq!(through(decoder(GZIP), b"no gzip at all"), Err(BodyError::Protocol));
        assert!(through(decoder(Decoding::Brotli), b"\xff\xff\xff\xff no brotli").is_err());
        let coded = through(Box::new(GzipEncoder::new(6, 15)), &text(1000)).unwrap();
        assert_eq!(through(decoder(GZIP), &coded[..coded.len() - 1]), Err(BodyError::Closed));
        let coded = through(Box::new(BrotliEncoder::new(6, 18)), &text(1000)).unwrap();
        assert!(through(decoder(Decoding::Brotli), &coded[..coded.len() - 1]).is_err());
    }

    #[test]
    fn ratio_at_the_limit_passes_and_one_past_is_refused() {
        let body = vec![b'a'; 2 << 20];
        let coded = through(Box::new(GzipEncoder::new(9, 15)), &body).unwrap();
        let ratio = u32::try_from(body.len().div_ceil(coded.len())).unwrap();
        let with = |max_inflate_ratio| decoder(Decoding::Gzip { window_bits: 15, max_inflate_ratio });
        // Pieces in the middle of a stream may be ahead of its end by a little.
        assert!(through(with(ratio * 2), &coded).is_ok());
        assert!(through(with(ratio / 2), &coded).is_err());
    }
}
