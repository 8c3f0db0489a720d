//! Running the tokeniser, and the checks it leaves to us that every head needs.

use std::mem::MaybeUninit;

use httparse::Header;

use super::{H1Error, Limits};
use crate::field::{FieldBlock, Known};

/// Fields tokenised without allocating; heads with more take the slow path.
pub(super) const FIELDS_INLINE: usize = 128;

/// Room for tokens on the stack. It is not initialised, so it costs nothing when unused.
pub(super) const fn inline_room<'a>() -> [MaybeUninit<Header<'a>>; FIELDS_INLINE] {
    [const { MaybeUninit::uninit() }; FIELDS_INLINE]
}

/// The part of the buffer a head may lie in, so that a large buffer costs no more than the limit.
pub(super) fn within_limit<'a>(input: &'a [u8], limits: &Limits) -> &'a [u8] {
    input.get(..limits.max_head_bytes).unwrap_or(input)
}

/// The error of an incomplete head that already fills the limit; `None` when it may still complete.
pub(super) fn over_limit(window: &[u8], limits: &Limits) -> Option<H1Error> {
    if window.len() < limits.max_head_bytes {
        None
    } else if memchr::memchr(b'\n', window).is_none() {
        Some(H1Error::UriTooLong)
    } else {
        Some(H1Error::HeadTooLarge)
    }
}

/// Refuses LF without CR before it: the tokeniser accepts it, other readers do not, and a difference
/// is all that smuggling needs (RFC 9112 §2.2 permits either).
fn check_line_ends(head: &[u8]) -> Result<(), H1Error> {
    let mut line = 0;
    for at in memchr::memchr_iter(b'\n', head) {
        match head.get(line..at) {
            Some([.., b'\r']) => line = at + 1,
            _ => return Err(H1Error::BadLineEnd),
        }
    }
    Ok(())
}

/// Framing facts gathered while the fields of a head are stored.
#[derive(Default)]
pub(super) struct FramingFields<'a> {
    pub(super) host: Option<&'a [u8]>,
    pub(super) content_length: Option<u64>,
    pub(super) is_chunked: bool,
}

impl<'a> FramingFields<'a> {
    /// Stores the tokens of `head` in `fields`, judges the framing fields among them and the line ends
    /// of the whole head. `host` is kept out of the block when `take_host` is set, and must then be
    /// there at most once.
    pub(super) fn collect(
        head: &'a [u8],
        tokens: &[Header<'a>],
        take_host: bool,
        fields: &mut FieldBlock,
    ) -> Result<Self, H1Error> {
        let mut framing = Self::default();
        let mut lines = Lines::begin(head, tokens, fields);
        for token in tokens {
            let name = token.name.as_bytes();
            if take_host && name.len() == 4 && name.eq_ignore_ascii_case(b"host") {
                lines.skip(token);
                if framing.host.replace(token.value).is_some() {
                    return Err(H1Error::MultipleHost);
                }
                continue;
            }
            match lines.store(token, fields) {
                Some(Known::ContentLength) => {
                    if framing.content_length.is_some() {
                        return Err(H1Error::MultipleContentLength);
                    }
                    let length = crate::syntax::decimal(token.value).ok_or(H1Error::BadContentLength)?;
                    framing.content_length = Some(length);
                }
                Some(Known::TransferEncoding) => {
                    if framing.is_chunked || !token.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(H1Error::UnsupportedTransferCoding);
                    }
                    framing.is_chunked = true;
                }
                Some(Known::Other) if is_framing_look_alike(name) => return Err(H1Error::FramingLookAlike),
                Some(_) => {}
                None => return Err(H1Error::BadFieldName),
            }
        }
        if !lines.are_all_plain() {
            check_line_ends(head)?;
        }
        if framing.is_chunked && framing.content_length.is_some() {
            return Err(H1Error::LengthAndTransferEncoding);
        }
        Ok(framing)
    }
}

/// Walks the field lines of a head. A line written as nearly all are (`name: value CR LF`) is what the
/// block stores, so the section is copied once and such lines are only pointed at.
struct Lines<'a> {
    head: &'a [u8],
    /// Where the field section begins in `head`, and where its copy begins in the block.
    section: usize,
    copy: usize,
    /// Where the next line begins; `None` once a line was not plain.
    next: Option<usize>,
}

impl<'a> Lines<'a> {
    fn begin(head: &'a [u8], tokens: &[Header<'a>], fields: &mut FieldBlock) -> Self {
        let start = tokens.first().and_then(|token| position(head, token.name.as_bytes()));
        let start_line = start.and_then(|start| head.get(..start));
        let next = start.filter(|_| start_line.is_some_and(|line| line.ends_with(b"\r\n")));
        let section = start.unwrap_or(head.len());
        Self { head, section, copy: fields.import(head.get(section..).unwrap_or_default()), next }
    }

    /// Whether the line of `token` is plain and comes right behind the one before.
    fn step(&mut self, token: &Header<'a>) -> Option<usize> {
        let start = self.next.take()?;
        let value = start + token.name.len() + 2;
        let end = value + token.value.len();
        let is_plain = position(self.head, token.name.as_bytes()) == Some(start)
            && position(self.head, token.value) == Some(value)
            && self.head.get(value - 2..value) == Some(b": ")
            && self.head.get(end..end + 2) == Some(b"\r\n");
        if is_plain {
            self.next = Some(end + 2);
        }
        is_plain.then_some(start)
    }

    fn skip(&mut self, token: &Header<'a>) {
        self.step(token);
    }

    fn store(&mut self, token: &Header<'a>, fields: &mut FieldBlock) -> Option<Known> {
        match self.step(token) {
            Some(start) => fields.record_imported(
                self.copy + (start - self.section),
                token.name.len(),
                token.value.len(),
            ),
            None => fields.push_checked(token.name.as_bytes(), token.value),
        }
    }

    /// Whether every line was plain up to the blank line: then every line end was seen to be CR LF.
    fn are_all_plain(&self) -> bool {
        self.next.is_some_and(|next| self.head.get(next..) == Some(b"\r\n"))
    }
}

/// Where `part`, which the tokeniser cut out of `whole`, begins in it.
fn position(whole: &[u8], part: &[u8]) -> Option<usize> {
    let offset = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (offset <= whole.len()).then_some(offset)
}

/// Whether a gateway that turns names into variables (`CONTENT_LENGTH`) would read `name` as a
/// framing field, though it is none: `Content_Length`, `transfer.encoding`.
pub(super) fn is_framing_look_alike(name: &[u8]) -> bool {
    let framing: &[u8] = match name.len() {
        14 => b"content-length",
        17 => b"transfer-encoding",
        _ => return false,
    };
    name.iter().zip(framing).all(|(byte, wanted)| {
        byte.eq_ignore_ascii_case(wanted) || (*wanted == b'-' && !byte.is_ascii_alphanumeric())
    })
}
