//! Whatever a header block says, it is read within its bounds, and what was read survives being written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_wire::h2::hpack::{
    Decoder, Encoder, Field, FieldSink, NameClass, Shape, huffman_decode, huffman_encode,
};
use outrigger_wire::{FieldBlock, ResponseHead};

#[derive(Default)]
struct List {
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl FieldSink for List {
    fn field(&mut self, field: &Field<'_>) {
        let Field { class, name, value, shape, line } = *field;
        assert_eq!((class, shape), (NameClass::of(name), Shape::of(value)));
        assert!(line.is_empty() || line == [name, b": ", value, b"\r\n"].concat());
        self.bytes += name.len() + value.len();
        if self.bytes < 1 << 20 {
            self.fields.push((name.to_vec(), value.to_vec()));
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut text = Vec::new();
    if huffman_decode(data, &mut text) {
        let mut again = Vec::new();
        huffman_encode(&text, &mut again);
        assert_eq!(again, data);
    }
    let (mut decoder, mut encoder, mut reader) = (Decoder::new(), Encoder::default(), Decoder::new());
    // Blocks behind one another, each with its length in front.
    let mut rest = data;
    while let Some((length, tail)) = rest.split_first() {
        let (block, tail) = tail.split_at(tail.len().min(usize::from(*length)));
        rest = tail;
        let mut list = List::default();
        if decoder.decode(block, &mut list).is_err() {
            return;
        }
        let mut fields = FieldBlock::default();
        for (name, value) in &list.fields {
            if matches!(NameClass::of(name), NameClass::Field(_)) {
                fields.append(name, value);
            }
        }
        let mut out = Vec::new();
        encoder.response(&ResponseHead { status: 200, fields }, &mut out);
        let mut again = List::default();
        reader.decode(&out, &mut again).expect("what we write is readable");
        assert_eq!(again.fields[0].0, b":status");
    }
});
