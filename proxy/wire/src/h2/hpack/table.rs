//! The dynamic table (RFC 7541 §2.3.2 and §4).
//!
//! All entries lie one behind the other in one buffer, oldest first, each as the line `name: value CR LF` that a
//! [`FieldBlock`](crate::FieldBlock) holds, so that a field that is found is stored by one copy. An evicted entry leaves a hole at the front, which is
//! closed when the buffer has grown to twice the table: a byte is moved at most once in its life on average, and nothing
//! is allocated once the buffer has its size.

use std::collections::VecDeque;

use super::{ENTRY_OVERHEAD, NameClass, Shape};

/// What a line has beside name and value.
const LINE_OVERHEAD: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Entry {
    start: usize,
    name_len: usize,
    value_len: usize,
    class: NameClass,
    shape: Shape,
}

impl Entry {
    const fn size(&self) -> usize {
        self.name_len + self.value_len + ENTRY_OVERHEAD
    }
}

/// One dynamic table.
#[derive(Debug)]
pub(super) struct Table {
    bytes: Vec<u8>,
    entries: VecDeque<Entry>,
    size: usize,
    max: usize,
    /// Entries inserted since the connection began.
    inserted: u32,
}

/// An entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'t> {
    pub(super) name: &'t [u8],
    pub(super) class: NameClass,
    pub(super) value: &'t [u8],
    pub(super) shape: Shape,
    /// `name: value CR LF`
    pub(super) line: &'t [u8],
}

impl Table {
    pub(super) const fn new(max: usize) -> Self {
        Self { bytes: Vec::new(), entries: VecDeque::new(), size: 0, max, inserted: 0 }
    }

    pub(super) const fn max(&self) -> usize {
        self.max
    }

    #[cfg(test)]
    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many entries were inserted so far, modulo 2^32.
    pub(super) const fn inserted(&self) -> u32 {
        self.inserted
    }

    /// The entry of an index; the newest has 0.
    #[inline]
    pub(super) fn get(&self, index: usize) -> Option<Found<'_>> {
        let entry = self.entries.get(self.entries.len().checked_sub(index + 1)?)?;
        let end = entry.start + entry.name_len + entry.value_len + LINE_OVERHEAD;
        let line = self.bytes.get(entry.start..end)?;
        let (name, rest) = line.split_at_checked(entry.name_len)?;
        let value = rest.get(2..2 + entry.value_len)?;
        Some(Found { name, class: entry.class, value, shape: entry.shape, line })
    }

    /// Changes the size; what does not fit any more is evicted.
    pub(super) fn resize(&mut self, max: usize) {
        self.max = max;
        self.evict(0);
        if self.entries.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Inserts an entry. `false` when it is larger than the table, which is empty then (RFC 7541 §4.4).
    pub(super) fn insert(&mut self, class: NameClass, name: &[u8], value: &[u8], shape: Shape) -> bool {
        let wanted = name.len() + value.len() + ENTRY_OVERHEAD;
        self.evict(wanted);
        if wanted > self.max {
            return false;
        }
        self.make_room(name.len() + value.len() + LINE_OVERHEAD);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(name);
        self.push(start, class, name.len(), value, shape);
        true
    }

    /// Inserts an entry with the name of the dynamic entry `index`, which may be evicted by that (RFC 7541 §4.4).
    pub(super) fn insert_with_name_of(&mut self, index: usize, value: &[u8], shape: Shape) -> Option<bool> {
        let at = self.entries.len().checked_sub(index + 1)?;
        let Entry { name_len, class, .. } = *self.entries.get(at)?;
        let wanted = name_len + value.len() + ENTRY_OVERHEAD;
        if wanted > self.max {
            self.evict(wanted);
            return Some(false);
        }
        self.make_room(name_len + value.len() + LINE_OVERHEAD);
        let named = self.entries.get(at)?.start;
        let start = self.bytes.len();
        self.bytes.extend_from_within(named..named + name_len);
        self.evict(wanted);
        self.push(start, class, name_len, value, shape);
        Some(true)
    }

    /// Completes an entry whose name is at the end of the buffer.
    fn push(&mut self, start: usize, class: NameClass, name_len: usize, value: &[u8], shape: Shape) {
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        let entry = Entry { start, name_len, value_len: value.len(), class, shape };
        self.size += entry.size();
        self.entries.push_back(entry);
        self.inserted = self.inserted.wrapping_add(1);
    }

    fn evict(&mut self, wanted: usize) {
        while self.size + wanted > self.max
            && let Some(oldest) = self.entries.pop_front()
        {
            self.size -= oldest.size();
        }
        if self.entries.is_empty() && wanted > self.max {
            self.bytes.clear();
        }
    }

    /// Closes the hole at the front when the buffer would become larger than twice the table.
    fn make_room(&mut self, more: usize) {
        if self.bytes.len() + more <= 2 * self.max {
            return;
        }
        let hole = self.entries.front().map_or(self.bytes.len(), |oldest| oldest.start);
        self.bytes.drain(..hole);
        for entry in &mut self.entries {
            entry.start -= hole;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::field::Known;
    use proptest::prelude::*;

    const CLASS: NameClass = NameClass::Field(Known::Other);

    proptest! {
        #[test]
        fn table_is_what_a_plain_list_is(
            max in 0usize..300,
            steps in prop::collection::vec((0usize..40, 0usize..60, any::<bool>(), 0usize..6), 1..200),
        ) {
            let mut table = Table::new(max);
            let mut list: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
            for (turn, (name_len, value_len, named, index)) in steps.into_iter().enumerate() {
                let fill = (turn % 251) as u8;
                let value = vec![fill; value_len];
                let name = if named && index < list.len() {
                    prop_assert!(table.insert_with_name_of(index, &value, Shape::Clean).is_some());
                    list[index].0.clone()
                } else {
                    let name = vec![fill.wrapping_add(1); name_len];
                    table.insert(CLASS, &name, &value, Shape::Clean);
                    name
                };
                list.insert(0, (name, value));
                let cost = |list: &[(Vec<u8>, Vec<u8>)]| -> usize {
                    list.iter().map(|(name, value)| name.len() + value.len() + 32).sum()
                };
                while cost(&list) > max {
                    list.pop();
                }
                prop_assert_eq!(table.len(), list.len());
                prop_assert_eq!(table.size(), cost(&list));
                for (at, (name, value)) in list.iter().enumerate() {
                    let line = [&name[..], b": ", value, b"\r\n"].concat();
                    let (class, shape) = (CLASS, Shape::Clean);
                    prop_assert_eq!(table.get(at), Some(Found { name, class, value, shape, line: &line }));
                }
                prop_assert!(table.get(list.len()).is_none());
                prop_assert!(table.bytes.len() <= 2 * max + 100);
            }
        }
    }
}
