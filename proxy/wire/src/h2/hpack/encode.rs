//! Writing header blocks.
//!
//! What is worth an entry is found out by experience: a field is written plainly when it is seen for the first time and
//! enters the table when it is seen again, so that ids and dates, which never come back, do not push out what does.
//! Fields that carry credentials never enter a table, here or further on (RFC 7541 §7.1.3): streams of many clients
//! share a connection to a host, and a table would tell one whether another sent the same.

use super::integer::{put_integer, put_plain, put_short};
use super::static_table::{self, STATIC_LEN};
use super::table::Table;
use super::{DEFAULT_TABLE_BYTES, NameClass, Shape};
use crate::field::{FieldBlock, Known};
use crate::h2::head::is_connection_specific;
use crate::head::{Method, RequestHead, ResponseHead, Scheme};

/// Places where an entry is looked for by the hash of its name and value.
const SLOTS: usize = 256;
/// Fields seen once that are remembered.
const SEEN: usize = 128;
/// Longest path that enters the table, bytes; longer ones rarely come back.
const PATH_MAX: usize = 256;
/// Share of the table that one entry may take at most: a quarter.
const ENTRY_SHARE: usize = 4;

/// The encoder of one connection.
#[derive(Debug)]
pub struct Encoder {
    table: Table,
    /// Sequence numbers of entries by hash. Empty until the first field that could be indexed.
    slots: Vec<u32>,
    /// Hashes of fields seen once.
    seen: Vec<u32>,
    /// Largest size we use whatever the peer allows.
    most: usize,
    /// Size updates owed: the smallest size in between, and the last.
    update: Option<(usize, usize)>,
}

/// How a field is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    Index,
    Plain,
    Never,
}

impl Default for Encoder {
    fn default() -> Self {
        Self::new(DEFAULT_TABLE_BYTES as usize)
    }
}

impl Encoder {
    /// An encoder that uses at most `most` bytes of table.
    #[must_use]
    pub fn new(most: usize) -> Self {
        let size = DEFAULT_TABLE_BYTES as usize;
        let mut made =
            Self { table: Table::new(size), slots: Vec::new(), seen: Vec::new(), most, update: None };
        if most < size {
            made.allow_table(size);
        }
        made
    }

    /// The peer's SETTINGS_HEADER_TABLE_SIZE.
    pub fn allow_table(&mut self, bytes: usize) {
        let size = bytes.min(self.most);
        if size == self.table.max() && self.update.is_none() {
            return;
        }
        let least = self.update.map_or(size, |(least, _)| least.min(size));
        self.table.resize(size);
        self.update = Some((least, size));
    }

    /// Appends the block of a request.
    pub fn request(&mut self, head: &RequestHead, out: &mut Vec<u8>) {
        self.begin(out);
        match head.method() {
            Method::Get => out.push(0x82),
            Method::Post => out.push(0x83),
            _ => self.field(NameClass::Method, b":method", head.method_bytes(), out),
        }
        if head.method() != Method::Connect {
            out.push(match head.scheme() {
                Scheme::Http => 0x86,
                Scheme::Https => 0x87,
            });
        }
        self.field(NameClass::Authority, b":authority", head.authority(), out);
        if head.method() != Method::Connect {
            match head.path() {
                b"/" => out.push(0x84),
                path => self.field(NameClass::Path, b":path", path, out),
            }
        }
        self.fields(&head.fields, out);
    }

    /// Appends the block of a response.
    pub fn response(&mut self, head: &ResponseHead, out: &mut Vec<u8>) {
        self.begin(out);
        match head.status {
            200 => out.push(0x88),
            204 => out.push(0x89),
            206 => out.push(0x8a),
            304 => out.push(0x8b),
            400 => out.push(0x8c),
            404 => out.push(0x8d),
            500 => out.push(0x8e),
            status => {
                let digit = |unit: u16| b'0' + u8::try_from(status / unit % 10).unwrap_or(0);
                self.field(NameClass::Status, b":status", &[digit(100), digit(10), digit(1)], out);
            }
        }
        self.fields(&head.fields, out);
    }

    /// Appends the block of a trailer section.
    pub fn trailers(&mut self, fields: &FieldBlock, out: &mut Vec<u8>) {
        self.begin(out);
        self.fields(fields, out);
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if let Some((least, last)) = self.update.take() {
            if least < last {
                put_integer(out, 0x20, 5, least);
            }
            put_integer(out, 0x20, 5, last);
        }
    }

    fn fields(&mut self, fields: &FieldBlock, out: &mut Vec<u8>) {
        for (known, name, value) in fields.iter_known() {
            if is_connection_specific(known)
                || known == Known::Host
                || (known == Known::Te && value != b"trailers")
            {
                continue;
            }
            self.field(NameClass::Field(known), name, value, out);
        }
    }

    fn field(&mut self, class: NameClass, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let mut policy = policy(class, value);
        if policy == Policy::Index && (name.len() + value.len()) * ENTRY_SHARE > self.table.max() {
            policy = Policy::Plain;
        }
        match policy {
            Policy::Index => {
                let hash = hash(class, name, value);
                // What is in the table may be there: names are looked at only before a field enters it.
                if let Some(index) = self.find(hash, name, value) {
                    return put_integer(out, 0x80, 7, index);
                }
                if class == NameClass::Field(Known::Other) && is_secret(name) {
                    return Self::literal(0x10, class, name, value, out);
                }
                if self.was_seen(hash) {
                    let named = static_table::find_name(class, name).unwrap_or(0);
                    if let Some(exact) = exact(named, name, value) {
                        return put_integer(out, 0x80, 7, exact);
                    }
                    put_integer(out, 0x40, 6, named);
                    if named == 0 {
                        put_short(out, name);
                    }
                    put_short(out, value);
                    self.insert(hash, class, name, value);
                    return;
                }
                Self::literal(0x00, class, name, value, out);
            }
            Policy::Plain => Self::literal(0x00, class, name, value, out),
            Policy::Never => Self::literal(0x10, class, name, value, out),
        }
    }

    fn literal(top: u8, class: NameClass, name: &[u8], value: &[u8], out: &mut Vec<u8>) {
        let named = static_table::find_name(class, name).unwrap_or(0);
        put_integer(out, top, 4, named);
        if named == 0 {
            put_plain(out, name);
        }
        put_plain(out, value);
    }

    /// The index of an entry that is this field, whatever its hash says.
    #[inline]
    fn find(&self, hash: u32, name: &[u8], value: &[u8]) -> Option<usize> {
        for at in places(hash) {
            let age = self.table.inserted().wrapping_sub(*self.slots.get(at)?) as usize;
            if age < self.table.len()
                && let Some(found) = self.table.get(age)
                && found.value == value
                && found.name == name
            {
                return Some(STATIC_LEN + 1 + age);
            }
        }
        None
    }

    /// Whether the field was seen before; it is remembered otherwise.
    fn was_seen(&mut self, hash: u32) -> bool {
        if self.seen.is_empty() {
            self.seen = vec![0; SEEN];
            self.slots = vec![0; SLOTS];
        }
        let mark = hash | 1;
        match self.seen.get_mut(hash as usize >> 8 & (SEEN - 1)) {
            Some(seen) if *seen == mark => true,
            Some(seen) => {
                *seen = mark;
                false
            }
            None => false,
        }
    }

    fn insert(&mut self, hash: u32, class: NameClass, name: &[u8], value: &[u8]) {
        if !self.table.insert(class, name, value, Shape::Clean) {
            return;
        }
        // An age is counted from the number of the next entry minus one.
        let number = self.table.inserted();
        let [first, second] = places(hash);
        let age = |at: usize| number.wrapping_sub(self.slots.get(at).copied().unwrap_or(0));
        let at = if age(first) >= age(second) { first } else { second };
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = number;
        }
    }
}

/// The static entry that is this field, where values stand in the static table; `named` is the first of its name.
fn exact(named: usize, name: &[u8], value: &[u8]) -> Option<usize> {
    let (_, _, its_value) = static_table::get(named)?;
    if *its_value == value && !value.is_empty() {
        return Some(named);
    }
    let (next_name, _, next_value) = static_table::get(named + 1)?;
    (*next_name == name && *next_value == value && !value.is_empty()).then_some(named + 1)
}

const fn places(hash: u32) -> [usize; 2] {
    [hash as usize & (SLOTS - 1), (hash >> 20) as usize & (SLOTS - 1)]
}

#[inline]
fn policy(class: NameClass, value: &[u8]) -> Policy {
    match class {
        NameClass::Field(known) => POLICIES.get(known as usize).copied().unwrap_or(Policy::Plain),
        NameClass::Path => {
            // A query may hold anything, credentials too.
            if value.len() <= PATH_MAX && !value.contains(&b'?') { Policy::Index } else { Policy::Plain }
        }
        _ => Policy::Index,
    }
}

/// By known name.
static POLICIES: [Policy; 128] = policies();

#[allow(clippy::indexing_slicing)] // evaluated by the compiler
const fn policies() -> [Policy; 128] {
    let mut table = [Policy::Index; 128];
    let mut rest: &[Known] =
        &[Known::Authorization, Known::ProxyAuthorization, Known::Cookie, Known::SetCookie];
    while let [first, tail @ ..] = rest {
        table[*first as usize] = Policy::Never;
        rest = tail;
    }
    // Another one each time: not even remembered.
    rest = &[
        Known::ContentLength,
        Known::Date,
        Known::XRequestId,
        Known::Traceparent,
        Known::Tracestate,
        Known::B3,
        Known::XB3SpanId,
        Known::XB3TraceId,
        Known::XB3ParentSpanId,
        Known::XClientTraceId,
        Known::Age,
        Known::Etag,
        Known::GrpcMessage,
        Known::GrpcStatusDetails,
        Known::SecWebSocketKey,
        Known::SecWebSocketAccept,
        Known::XEnvoyOriginalPath,
        Known::XEnvoyUpstreamServiceTime,
        Known::Location,
        Known::Referer,
    ];
    while let [first, tail @ ..] = rest {
        table[*first as usize] = Policy::Plain;
        rest = tail;
    }
    table
}

/// Names that, by custom, carry credentials.
fn is_secret(name: &[u8]) -> bool {
    [
        &b"-key"[..],
        b"-token",
        b"-secret",
        b"-signature",
        b"-password",
        b"-auth",
        b"-authorization",
        b"-session",
    ]
    .iter()
    .any(|end| name.ends_with(end))
        || matches!(name, b"apikey" | b"token" | b"x-auth" | b"x-session-id")
}

/// Of the length and the two ends of the value, which is where values differ: a longer look costs more than the misses
/// it avoids.
///
/// Not keyed: an attacker who makes fields collide only spoils the compression of their own fields, because every hit is
/// compared and nothing is searched further than two places.
fn hash(class: NameClass, name: &[u8], value: &[u8]) -> u32 {
    const K: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut state = match class {
        NameClass::Field(Known::Other) | NameClass::Bad => mix(K, name),
        NameClass::Field(known) => (known as u64 + 16).wrapping_mul(K),
        NameClass::Method => K ^ 1,
        NameClass::Scheme => K ^ 2,
        NameClass::Authority => K ^ 3,
        NameClass::Path => K ^ 4,
        NameClass::Protocol => K ^ 5,
        NameClass::Status => K ^ 6,
    };
    state = mix(state, value.last_chunk::<8>().map_or(value, |last| last));
    if let Some(first) = value.first_chunk::<8>() {
        state = (state ^ u64::from_le_bytes(*first) ^ value.len() as u64).wrapping_mul(K).rotate_left(29);
    }
    (state.wrapping_mul(K) >> 32) as u32
}

#[inline]
fn mix(mut state: u64, text: &[u8]) -> u64 {
    const K: u64 = 0xff51_afd7_ed55_8ccd;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        state = (state ^ u64::from_le_bytes(*word)).wrapping_mul(K).rotate_left(29);
    }
    let mut last = [0u8; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    (state ^ u64::from_le_bytes(last) ^ (text.len() as u64) << 56).wrapping_mul(K).rotate_left(29)
}
