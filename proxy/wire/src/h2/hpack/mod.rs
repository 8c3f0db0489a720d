//! Header compression (RFC 7541).
//!
//! [`Decoder`] hands every field of a block to a [`FieldSink`] where it lies; [`Encoder`] writes blocks from our heads.
//! Names are recognised and values judged once, when they enter a table ([`NameClass`], [`Shape`]).

mod decode;
mod encode;
mod huffman;
mod integer;
mod name;
mod shape;
mod static_table;
mod table;
#[cfg(test)]
mod tests;

pub use decode::{Decoder, Field, FieldSink};
pub use encode::Encoder;
pub use huffman::{decode as huffman_decode, encode as huffman_encode, encoded_len as huffman_encoded_len};
pub use name::NameClass;
pub use shape::Shape;

/// What an entry costs beside its bytes (RFC 7541 §4.1, RFC 9113 §6.5.2).
pub const ENTRY_OVERHEAD: usize = 32;
/// Size both tables begin with (RFC 9113 §6.5.2).
pub const DEFAULT_TABLE_BYTES: u32 = 4096;
