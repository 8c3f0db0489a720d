//! Reading header blocks.

use super::integer::Input;
use super::static_table::{self, STATIC_LEN};
use super::table::{Found, Table};
use super::{DEFAULT_TABLE_BYTES, NameClass, Shape};
use crate::h2::error::H2Error;

/// Memory for decoded strings that is kept between blocks, bytes.
const SCRATCH_KEEP: usize = 1024;

/// One field of a block.
#[derive(Clone, Copy, Debug)]
pub struct Field<'a> {
    /// What the name is.
    pub class: NameClass,
    /// The name; any bytes.
    pub name: &'a [u8],
    /// The value; any bytes.
    pub value: &'a [u8],
    /// What was found out about the value, once for each entry of the table.
    pub shape: Shape,
    /// `name: value CR LF` where the decoder has it in one piece; empty otherwise.
    pub line: &'a [u8],
}

/// Takes the fields of a block one by one. It must bear every byte in names and values.
pub trait FieldSink {
    /// One field.
    fn field(&mut self, field: &Field<'_>);
}

/// The decoder of one connection. After an error the connection cannot be read any more.
#[derive(Debug)]
pub struct Decoder {
    table: Table,
    /// Largest size the peer may choose.
    allowed: usize,
    /// The next block must begin with a size update (RFC 9113 §4.3.1).
    reduced: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// A decoder whose table has the size both sides begin with.
    #[must_use]
    pub const fn new() -> Self {
        let size = DEFAULT_TABLE_BYTES as usize;
        Self { table: Table::new(size), allowed: size, reduced: false, name: Vec::new(), value: Vec::new() }
    }

    /// Our SETTINGS_HEADER_TABLE_SIZE was acknowledged.
    pub fn allow_table(&mut self, bytes: usize) {
        self.allowed = bytes;
        // The peer must shrink the table itself, so that both sides evict at the same point.
        self.reduced = bytes < self.table.max();
    }

    /// Reads a whole block.
    ///
    /// *Errors*: [`H2Error::Hpack`]; fields before the error have been handed on.
    pub fn decode(&mut self, block: &[u8], sink: &mut impl FieldSink) -> Result<(), H2Error> {
        let mut input = Input(block);
        let mut began = false;
        while let Ok(first) = input.byte() {
            if first & 0xe0 == 0x20 {
                let size = input.integer(first, 5)?;
                if began || size > self.allowed {
                    return Err(H2Error::Hpack);
                }
                self.reduced = false;
                self.table.resize(size);
                continue;
            }
            if self.reduced {
                return Err(H2Error::Hpack);
            }
            began = true;
            if first & 0x80 != 0 {
                let index = input.integer(first, 7)?;
                sink.field(&lookup(&self.table, index)?);
            } else if first & 0x40 != 0 {
                let index = input.integer(first, 6)?;
                self.literal(index, &mut input, true, sink)?;
            } else {
                let index = input.integer(first, 4)?;
                self.literal(index, &mut input, false, sink)?;
            }
        }
        for scratch in [&mut self.name, &mut self.value] {
            scratch.clear();
            scratch.shrink_to(SCRATCH_KEEP);
        }
        Ok(())
    }

    fn literal(
        &mut self,
        index: usize,
        input: &mut Input<'_>,
        keep: bool,
        sink: &mut impl FieldSink,
    ) -> Result<(), H2Error> {
        if index == 0 {
            let name = input.string(&mut self.name)?;
            let value = input.string(&mut self.value)?;
            let (class, shape) = (NameClass::of(name), Shape::of(value));
            sink.field(&Field { class, name, value, shape, line: b"" });
            if keep {
                self.table.insert(class, name, value, shape);
            }
            return Ok(());
        }
        let value = input.string(&mut self.value)?;
        let named = lookup(&self.table, index)?;
        let shape = Shape::of(value);
        sink.field(&Field { value, shape, line: b"", ..named });
        if keep {
            match static_table::get(index) {
                Some((name, class, _)) => {
                    self.table.insert(*class, name, value, shape);
                }
                None => {
                    self.table.insert_with_name_of(index - STATIC_LEN - 1, value, shape);
                }
            }
        }
        Ok(())
    }
}

#[inline]
fn lookup(table: &Table, index: usize) -> Result<Field<'_>, H2Error> {
    match static_table::get(index) {
        Some((name, class, value)) => {
            Ok(Field { class: *class, name, value, shape: Shape::Clean, line: b"" })
        }
        None => {
            let index = index.checked_sub(STATIC_LEN + 1).ok_or(H2Error::Hpack)?;
            let Found { name, class, value, shape, line } = table.get(index).ok_or(H2Error::Hpack)?;
            Ok(Field { class, name, value, shape, line })
        }
    }
}
