//! As much of HTTP/2 (RFC 9113) and HPACK (RFC 7541) as both ends of the benchmark need: fixed messages, no Huffman, every
//! field indexed after its first use.

/// Frame types (RFC 9113 §6).
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
}

/// Flags: the end of a stream, of a head, and an acknowledgement.
pub(crate) const END_STREAM: u8 = 1;
/// See [`END_STREAM`].
pub(crate) const END_HEADERS: u8 = 4;
/// See [`END_STREAM`].
pub(crate) const ACK: u8 = 1;

/// What a client sends first.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Bytes of a frame's head.
const FRAME_HEAD: usize = 9;

/// A frame.
pub(crate) struct Frame<'a> {
    /// One of [`kind`].
    pub(crate) kind: u8,
    /// Its flags.
    pub(crate) flags: u8,
    /// 0: the connection.
    pub(crate) stream: u32,
    /// What it carries.
    pub(crate) payload: &'a [u8],
}

/// The first whole frame of `input`, and what follows it.
pub(crate) fn take(input: &[u8]) -> Option<(Frame<'_>, &[u8])> {
    let (head, rest) = input.split_at_checked(FRAME_HEAD)?;
    let &[a, b, c, kind, flags, s0, s1, s2, s3] = head else { return None };
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let (payload, rest) = rest.split_at_checked(length)?;
    let stream = u32::from_be_bytes([s0, s1, s2, s3]) & 0x7fff_ffff;
    Some((Frame { kind, flags, stream, payload }, rest))
}

/// Appends a frame.
pub(crate) fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = payload.len();
    out.extend_from_slice(&[(length >> 16) as u8, (length >> 8) as u8, length as u8, kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The settings of a `SETTINGS` frame.
pub(crate) fn settings(payload: &[u8]) -> impl Iterator<Item = (u16, u32)> {
    payload
        .as_chunks::<6>()
        .0
        .iter()
        .map(|&[i, j, a, b, c, d]| (u16::from_be_bytes([i, j]), u32::from_be_bytes([a, b, c, d])))
}

/// The number in a `WINDOW_UPDATE`; 0 where it has none.
pub(crate) fn increment(payload: &[u8]) -> i64 {
    payload.first_chunk().map_or(0, |bytes| i64::from(u32::from_be_bytes(*bytes)))
}

/// A header block in three forms.
pub(crate) struct Block {
    /// For the first use, which fills the dynamic table.
    pub(crate) first: Vec<u8>,
    /// For every later use: indexes alone.
    pub(crate) later: Vec<u8>,
    /// For a peer without a dynamic table.
    pub(crate) literal: Vec<u8>,
}

/// Encodes fields that are the same on every stream of a connection. Names and values are below 127 bytes.
pub(crate) fn block(fields: &[(&str, &str)]) -> Block {
    let (mut first, mut later, mut literal) = (Vec::new(), Vec::new(), Vec::new());
    let added = fields.iter().filter(|field| static_index(field).is_none()).count();
    let mut newest = added;
    for field in fields {
        if let Some(index) = static_index(field) {
            for form in [&mut first, &mut later, &mut literal] {
                form.push(0x80 | index);
            }
            continue;
        }
        first.push(0x40);
        texts(&mut first, field.0, field.1);
        self::literal(&mut literal, field.0, field.1);
        // The dynamic table begins at 62, the newest entry first.
        newest -= 1;
        later.push(0x80 | (62 + newest) as u8);
    }
    Block { first, later, literal }
}

/// Appends a field that goes into no table.
pub(crate) fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    texts(out, name, value);
}

fn texts(out: &mut Vec<u8>, name: &str, value: &str) {
    for text in [name, value] {
        assert!(text.len() < 127, "lengths are one byte here");
        out.push(text.len() as u8);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Where a field stands in the static table, of those used here.
fn static_index(field: &(&str, &str)) -> Option<u8> {
    Some(match *field {
        (":method", "GET") => 2,
        (":method", "POST") => 3,
        (":path", "/") => 4,
        (":scheme", "http") => 6,
        (":scheme", "https") => 7,
        (":status", "200") => 8,
        _ => return None,
    })
}

/// Whether a response's head says 200, whoever encoded it: `:status` is its first field, indexed or a literal.
pub(crate) fn is_ok(block: &[u8]) -> bool {
    let mut rest = block;
    // Changes of the table size (RFC 7541 §6.3) may come first.
    while let Some((first, more)) = rest.split_first().filter(|(first, _)| *first & 0xe0 == 0x20) {
        rest = more;
        if first & 0x1f == 0x1f {
            let end = rest.iter().position(|byte| byte & 0x80 == 0).map_or(rest.len(), |at| at + 1);
            rest = rest.get(end..).unwrap_or_default();
        }
    }
    rest.first() == Some(&0x88)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_written_reads_back_and_a_part_of_it_does_not() {
        let mut out = Vec::new();
        frame(&mut out, kind::DATA, END_STREAM, 5, b"abc");
        let (read, rest) = take(&out).unwrap();
        assert_eq!(
            (read.kind, read.flags, read.stream, read.payload),
            (kind::DATA, END_STREAM, 5, &b"abc"[..])
        );
        assert!(rest.is_empty());
        assert!(take(&out[..out.len() - 1]).is_none());
    }

    #[test]
    fn later_block_names_the_newest_entry_62() {
        let block = block(&[(":status", "200"), ("a", "1"), ("b", "2")]);
        assert_eq!(block.later, [0x88, 0x80 | 63, 0x80 | 62]);
        assert!(is_ok(&block.first));
        assert!(is_ok(&[0x3f, 0xe1, 0x1f, 0x88]), "after a change of the table size");
        assert!(!is_ok(&[0x8d]));
    }
}
