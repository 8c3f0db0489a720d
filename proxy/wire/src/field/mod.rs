//! A header or trailer section: an ordered list of fields in one arena.
//!
//! Names are stored in lower case and values without surrounding white space. The arena holds each
//! field exactly as HTTP/1.1 writes it (`name: value CR LF`), so that writing a head copies whole runs
//! of fields at once. A block is cleared and used again; in steady state nothing is allocated.

mod known;
#[cfg(test)]
mod tests;

use std::fmt;

pub use known::Known;

use crate::syntax;

/// A trailer section.
pub type Trailers = FieldBlock;

/// Where one field lies in the arena: `name`, two bytes, `value`, two bytes.
#[derive(Clone, Copy)]
struct Field {
    start: u32,
    value_len: u32,
    name_len: u16,
    known: Known,
}

impl Field {
    const fn name_start(self) -> usize {
        self.start as usize
    }
    const fn value_start(self) -> usize {
        self.start as usize + self.name_len as usize + 2
    }
    const fn value_end(self) -> usize {
        self.value_start() + self.value_len as usize
    }
    /// One past the field's CR LF.
    const fn end(self) -> usize {
        self.value_end() + 2
    }
}

/// An ordered list of header or trailer fields.
///
/// Names given to the look-ups must be in lower case; names given to [`append`](Self::append) and
/// [`set`](Self::set) are lower-cased on the way in.
///
/// ```
/// use outrigger_wire::{FieldBlock, Known};
/// let mut fields = FieldBlock::default();
/// fields.append(b"Content-Type", b" text/plain ");
/// assert_eq!(fields.get(b"content-type"), Some(&b"text/plain"[..]));
/// assert_eq!(fields.get_known(Known::ContentLength), None);
/// ```
#[derive(Default)]
pub struct FieldBlock {
    arena: Vec<u8>,
    fields: Vec<Field>,
    /// Bits of the names that may be present: a clear bit proves absence. Removal leaves bits set.
    maybe_present: u128,
    /// Bits of the names that may stand there more than once: a clear bit proves that they do not.
    maybe_repeated: u128,
}

/// Some known names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KnownSet(u128);

impl KnownSet {
    /// The set of these names.
    #[must_use]
    pub const fn of(names: &[Known]) -> Self {
        let (mut bits, mut rest) = (0, names);
        while let [first, tail @ ..] = rest {
            bits |= first.bit();
            rest = tail;
        }
        Self(bits)
    }
}

impl FieldBlock {
    /// Number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is no field.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Removes every field and keeps the memory for the next head.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.fields.clear();
        self.maybe_present = 0;
        self.maybe_repeated = 0;
    }

    /// Gives memory back when a large head left more than `bytes` reserved, so that one large head
    /// does not pin memory to an idle connection.
    pub fn shrink_above(&mut self, bytes: usize) {
        if self.arena.capacity() > bytes {
            self.arena.shrink_to(bytes);
        }
    }

    /// Bytes of all names and values, the size Envoy compares with its limits.
    #[must_use]
    pub fn byte_size(&self) -> usize {
        self.fields.iter().map(|field| usize::from(field.name_len) + field.value_len as usize).sum()
    }

    /// Name and value of every field in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.fields.iter().map(|field| (self.name(*field), self.value(*field)))
    }

    /// Like [`iter`](Self::iter), with the recognised name.
    pub fn iter_known(&self) -> impl Iterator<Item = (Known, &[u8], &[u8])> {
        self.fields.iter().map(|field| (field.known, self.name(*field), self.value(*field)))
    }

    /// Value of the first field called `name` (lower case).
    #[must_use]
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// Values of all fields called `name` (lower case), in order.
    pub fn get_all<'a, 'n>(&'a self, name: &'n [u8]) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        let known = Known::from_lower(name);
        self.candidates(known)
            .iter()
            .filter(move |field| {
                field.known == known && (known != Known::Other || self.name(**field) == name)
            })
            .map(|field| self.value(*field))
    }

    /// Whether a field called `name` (lower case) is present.
    #[must_use]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.get(name).is_some()
    }

    /// Value of the first field of a known name. Cost: one bit test when the field is absent.
    #[must_use]
    #[inline]
    pub fn get_known(&self, known: Known) -> Option<&[u8]> {
        self.get_all_known(known).next()
    }

    /// Values of all fields of a known name, in order.
    pub fn get_all_known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.candidates(known)
            .iter()
            .filter(move |field| field.known == known)
            .map(|field| self.value(*field))
    }

    /// Whether a field of a known name is present.
    #[must_use]
    #[inline]
    pub fn contains_known(&self, known: Known) -> bool {
        self.candidates(known).iter().any(|field| field.known == known)
    }

    /// Whether the list field `known` has the member `token`, whatever its case, in any of its lines.
    #[must_use]
    pub fn has_token(&self, known: Known, token: &[u8]) -> bool {
        self.get_all_known(known)
            .any(|value| syntax::list_members(value).any(|member| member.eq_ignore_ascii_case(token)))
    }

    /// Adds a field at the end; surrounding white space of the value is dropped.
    ///
    /// Control bytes in the value become spaces, as RFC 9110 §5.5 asks of a sender that will not
    /// refuse. Returns `false`, adding nothing, when the name is not a token or the block is full (4 GiB).
    pub fn append(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.append_parts(name, &[value])
    }

    /// Like [`append`](Self::append), with the value given in pieces that are joined.
    pub fn append_parts(&mut self, name: &[u8], parts: &[&[u8]]) -> bool {
        self.append_as(Known::from_lower(name), name, parts)
    }

    /// Like [`append_parts`](Self::append_parts), with what is known of the name as it is written. A known name is a
    /// token in lower case.
    fn append_as(&mut self, known: Known, name: &[u8], parts: &[&[u8]]) -> bool {
        if known == Known::Other && !syntax::is_token(name) {
            return false;
        }
        let start = self.arena.len();
        self.arena.extend_from_slice(name);
        if known == Known::Other {
            self.lower_case_from(start);
        }
        self.arena.extend_from_slice(b": ");
        let value_start = self.arena.len();
        for part in parts {
            self.arena.extend_from_slice(part);
        }
        self.finish_field(start, name.len(), value_start, known)
    }

    /// Removes every field called `name` and adds one with this value. See [`append`](Self::append).
    pub fn set(&mut self, name: &[u8], value: &[u8]) -> bool {
        self.set_parts(name, &[value])
    }

    /// Like [`set`](Self::set), with the value given in pieces that are joined.
    pub fn set_parts(&mut self, name: &[u8], parts: &[&[u8]]) -> bool {
        let known = Known::from_lower(name);
        if known != Known::Other {
            self.remove_known(known);
            return self.append_as(known, name, parts);
        }
        if !syntax::is_token(name) {
            return false;
        }
        if name.iter().any(u8::is_ascii_uppercase) {
            self.remove(&name.to_ascii_lowercase());
        } else {
            self.remove(name);
        }
        self.append_as(known, name, parts)
    }

    /// Adds `addition` to the last field called `name` (lower case), after `separator`; adds a field
    /// when there is none. This is how one address is added to `x-forwarded-for`.
    pub fn join(&mut self, name: &[u8], separator: &[u8], addition: &[u8]) -> bool {
        let known = Known::from_lower(name);
        let last = self
            .fields
            .iter()
            .rposition(|field| field.known == known && (known != Known::Other || self.name(*field) == name));
        let Some((index, field)) = last.and_then(|at| self.fields.get(at).map(|field| (at, *field))) else {
            return self.append(name, addition);
        };
        // The field is written again at the end of the arena, then takes the old one's place.
        let start = self.arena.len();
        self.arena.extend_from_within(field.name_start()..field.value_end());
        let value_start = start + usize::from(field.name_len) + 2;
        if value_start < self.arena.len() {
            self.arena.extend_from_slice(separator);
        }
        self.arena.extend_from_slice(addition);
        if !self.finish_field(start, usize::from(field.name_len), value_start, known) {
            return false;
        }
        if let (Some(moved), Some(place)) = (self.fields.pop(), self.fields.get_mut(index)) {
            *place = moved;
        }
        true
    }

    /// Removes every field called `name` (lower case) and returns how many there were.
    pub fn remove(&mut self, name: &[u8]) -> usize {
        let known = Known::from_lower(name);
        if self.candidates(known).is_empty() {
            return 0;
        }
        if known != Known::Other {
            return self.remove_known(known);
        }
        let before = self.fields.len();
        let arena = &self.arena;
        self.fields.retain(|field| {
            field.known != Known::Other
                || arena.get(field.name_start()..field.value_start() - 2) != Some(name)
        });
        before - self.fields.len()
    }

    /// Removes every field of a known name and returns how many there were.
    pub fn remove_known(&mut self, known: Known) -> usize {
        if self.candidates(known).is_empty() {
            return 0;
        }
        let before = self.fields.len();
        self.fields.retain(|field| field.known != known);
        if known != Known::Other {
            self.maybe_present &= !known.bit();
            self.maybe_repeated &= !known.bit();
        }
        before - self.fields.len()
    }

    /// Keeps the fields for which `keep(name, value)` is true.
    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        self.retain_known(|_, name, value| keep(name, value));
    }

    /// Keeps the fields for which `keep(known, name, value)` is true.
    pub fn retain_known(&mut self, mut keep: impl FnMut(Known, &[u8], &[u8]) -> bool) {
        let arena = &self.arena;
        self.fields.retain(|field| {
            let name = arena.get(field.name_start()..field.value_start() - 2).unwrap_or_default();
            let value = arena.get(field.value_start()..field.value_end()).unwrap_or_default();
            keep(field.known, name, value)
        });
    }

    /// Adds a field whose name is known to be a token and whose value is known to be clean and trimmed.
    pub(crate) fn push_checked(&mut self, name: &[u8], value: &[u8]) -> Option<Known> {
        let start = self.arena.len();
        self.arena.extend_from_slice(name);
        self.lower_case_from(start);
        self.arena.extend_from_slice(b": ");
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(b"\r\n");
        self.record(start, name.len(), value.len())
    }

    /// Adds a field whose lower-case name was recognised and whose value was found clean and trimmed before; `false` when
    /// it is too long to be stored.
    pub(crate) fn push_known(&mut self, known: Known, name: &[u8], value: &[u8]) -> bool {
        let start = self.arena.len();
        self.arena.extend_from_slice(name);
        self.arena.extend_from_slice(b": ");
        self.arena.extend_from_slice(value);
        self.arena.extend_from_slice(b"\r\n");
        let recorded = self.record_known(start, name.len(), value.len(), known).is_some();
        if !recorded {
            self.arena.truncate(start);
        }
        recorded
    }

    /// Adds a whole line `name: value CR LF` whose lower-case name was recognised and whose value was found clean and
    /// trimmed before; `false` when it is too long to be stored.
    pub(crate) fn push_ready(&mut self, known: Known, line: &[u8], name_len: usize) -> bool {
        let start = self.arena.len();
        self.arena.extend_from_slice(line);
        let value_len = line.len().saturating_sub(name_len + 4);
        let recorded = self.record_known(start, name_len, value_len, known).is_some();
        if !recorded {
            self.arena.truncate(start);
        }
        recorded
    }

    /// Removes every field of a known name and adds one with this value, which the caller made itself: it has no control
    /// byte and no white space around it. Saves the look at it that [`set`](Self::set) takes.
    pub fn put(&mut self, known: Known, value: &[u8]) -> bool {
        debug_assert!(known != Known::Other && syntax::is_plain_value(value), "{known:?}");
        self.remove_known(known);
        self.push_known(known, known.name(), value)
    }

    /// Whether any of these names may be present; `false` proves that none is. One test for all of them.
    #[must_use]
    #[inline]
    pub const fn may_have(&self, names: KnownSet) -> bool {
        self.maybe_present & names.0 != 0
    }

    /// Makes one field, with a comma between the values, of the fields of each of these names that stands there more than
    /// once. They must be names of lists, or such as may stand there only once (RFC 9110 §5.3).
    ///
    /// Cost: one test where no name is repeated.
    #[inline]
    pub fn join_repeated(&mut self, names: KnownSet) {
        let repeated = self.maybe_repeated & names.0;
        if repeated != 0 {
            self.join_all(repeated);
        }
    }

    #[cold]
    fn join_all(&mut self, repeated: u128) {
        for known in Known::all().filter(|known| repeated & known.bit() != 0) {
            if self.get_all_known(known).nth(1).is_none() {
                continue;
            }
            let mut joined: Vec<u8> = Vec::new();
            for value in self.get_all_known(known).filter(|value| !value.is_empty()) {
                if !joined.is_empty() {
                    joined.push(b',');
                }
                joined.extend_from_slice(value);
            }
            self.remove_known(known);
            self.push_known(known, known.name(), &joined);
        }
    }

    /// Adds the field of a line `name: value CR LF` and gives the length of its name. The caller has seen that there is no
    /// control byte in it and sees to it that the name is followed by a colon and one space.
    pub(crate) fn push_line(&mut self, line: &[u8]) -> Option<(Known, usize)> {
        let start = self.arena.len();
        self.arena.extend_from_slice(line);
        let name_len = syntax::colon(line)?;
        let name = self.arena.get_mut(start..start + name_len)?;
        name.make_ascii_lowercase();
        let known = Known::from_lower(name);
        // A known name is a token; whatever else stands before the colon has to be one.
        if known == Known::Other && !syntax::is_token(name) {
            return None;
        }
        let value_len = line.len().checked_sub(name_len + 4)?;
        self.record_known(start, name_len, value_len, known).map(|known| (known, name_len))
    }

    /// Copies the lines of a field section into the arena and returns where they begin. They are no
    /// fields yet: [`record_imported`](Self::record_imported) makes them so, one by one.
    pub(crate) fn import(&mut self, section: &[u8]) -> usize {
        let start = self.arena.len();
        self.arena.extend_from_slice(section);
        start
    }

    /// Makes a field of an imported line `name: value CR LF` that begins at `start`.
    pub(crate) fn record_imported(
        &mut self,
        start: usize,
        name_len: usize,
        value_len: usize,
    ) -> Option<Known> {
        let name = self.arena.get_mut(start..start + name_len)?;
        name.make_ascii_lowercase();
        let known = Known::from_lower(name);
        self.record_known(start, name_len, value_len, known)
    }

    /// Writes `name: value CR LF` of every field whose name is not in `skip`, whole runs at a time.
    pub(crate) fn write_except(&self, skip: u128, out: &mut Vec<u8>) {
        let (mut run_start, mut run_end) = (0, 0);
        for field in &self.fields {
            if skip & field.known.bit() != 0 {
                continue;
            }
            if field.name_start() != run_end {
                out.extend_from_slice(self.arena.get(run_start..run_end).unwrap_or_default());
                run_start = field.name_start();
            }
            run_end = field.end();
        }
        out.extend_from_slice(self.arena.get(run_start..run_end).unwrap_or_default());
    }

    /// Bytes [`write_except`](Self::write_except) writes at most.
    pub(crate) fn arena_len(&self) -> usize {
        self.arena.len()
    }

    fn candidates(&self, known: Known) -> &[Field] {
        if self.maybe_present & known.bit() == 0 { &[] } else { &self.fields }
    }

    fn name(&self, field: Field) -> &[u8] {
        self.arena.get(field.name_start()..field.value_start() - 2).unwrap_or_default()
    }

    fn value(&self, field: Field) -> &[u8] {
        self.arena.get(field.value_start()..field.value_end()).unwrap_or_default()
    }

    fn lower_case_from(&mut self, start: usize) {
        if let Some(name) = self.arena.get_mut(start..) {
            name.make_ascii_lowercase();
        }
    }

    /// Cleans and trims the value at the end of the arena, closes the line and records the field. `known` may be
    /// [`Known::Other`] for a name that was not in lower case.
    fn finish_field(&mut self, start: usize, name_len: usize, value_start: usize, known: Known) -> bool {
        let value = self.arena.get(value_start..).unwrap_or_default();
        if !syntax::is_plain_value(value) {
            self.clean_value(value_start);
        }
        let value_len = self.arena.len() - value_start;
        self.arena.extend_from_slice(b"\r\n");
        if known == Known::Other {
            return self.record(start, name_len, value_len).is_some();
        }
        let recorded = self.record_known(start, name_len, value_len, known).is_some();
        if !recorded {
            self.arena.truncate(start);
        }
        recorded
    }

    /// Makes spaces of the control bytes of the value at the end of the arena, and trims it.
    #[cold]
    fn clean_value(&mut self, value_start: usize) {
        if let Some(value) = self.arena.get_mut(value_start..) {
            for byte in value.iter_mut().filter(|byte| !syntax::is_field_value(&[**byte])) {
                *byte = b' ';
            }
        }
        if let Some(value) = self.arena.get(value_start..)
            && let trimmed = syntax::trim_ows(value)
            && trimmed.len() != value.len()
        {
            let lead = value.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let kept = trimmed.len();
            if lead > 0 {
                self.arena.copy_within(value_start + lead..value_start + lead + kept, value_start);
            }
            self.arena.truncate(value_start + kept);
        }
    }

    fn record(&mut self, start: usize, name_len: usize, value_len: usize) -> Option<Known> {
        let name = self.arena.get(start..start + name_len).unwrap_or_default();
        let recorded = self.record_known(start, name_len, value_len, Known::from_lower(name));
        if recorded.is_none() {
            self.arena.truncate(start);
        }
        recorded
    }

    fn record_known(
        &mut self,
        start: usize,
        name_len: usize,
        value_len: usize,
        known: Known,
    ) -> Option<Known> {
        let field = Field {
            start: u32::try_from(start).ok()?,
            value_len: u32::try_from(value_len).ok()?,
            name_len: u16::try_from(name_len).ok()?,
            known,
        };
        self.maybe_repeated |= self.maybe_present & known.bit();
        self.maybe_present |= known.bit();
        self.fields.push(field);
        Some(known)
    }
}

impl Clone for FieldBlock {
    fn clone(&self) -> Self {
        Self {
            arena: self.arena.clone(),
            fields: self.fields.clone(),
            maybe_present: self.maybe_present,
            maybe_repeated: self.maybe_repeated,
        }
    }

    /// Copies `source` into the memory this block already has.
    fn clone_from(&mut self, source: &Self) {
        self.arena.clone_from(&source.arena);
        self.fields.clone_from(&source.fields);
        self.maybe_present = source.maybe_present;
        self.maybe_repeated = source.maybe_repeated;
    }
}

impl PartialEq for FieldBlock {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for FieldBlock {}

/// Shows names and value lengths only: values may hold credentials.
impl fmt::Debug for FieldBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(
                self.iter().map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.len())),
            )
            .finish()
    }
}
