//! What may stand in a binary resource: messages, fields and enumeration values, as tables made by the build.
//!
//! The tables are numbers and one text. They need no set-up, no memory and no relocation, so that a proxy that is only
//! ever spoken to in binary never builds descriptors at all.

/// Where a name stands in the text of all names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Name {
    start: u32,
    len: u16,
}

/// A message type.
#[derive(Debug)]
pub(super) struct Message {
    name: Name,
    /// It is an entry of a map: key is field 1, value is field 2.
    pub(super) is_map: bool,
    first: u16,
    count: u16,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    /// Its number on the wire.
    pub(super) number: u32,
    name: Name,
    /// What it holds.
    pub(super) kind: Kind,
    /// Whether it is a list or map.
    pub(super) repeated: bool,
    /// Where its elements are counted, if they are.
    pub(super) slot: Option<u8>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A number or truth value of variable length.
    Varint,
    /// Four bytes.
    Fixed32,
    /// Eight bytes.
    Fixed64,
    /// Any bytes.
    Bytes,
    /// UTF-8.
    Text,
    /// A message of the type with this position.
    Message(u16),
    /// A value of the enumeration with this position.
    Enum(u16),
}

/// An enumeration.
#[derive(Debug)]
pub(super) struct Enum {
    name: Name,
    first: u16,
    count: u16,
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

impl Name {
    fn text(self) -> &'static str {
        let start = self.start as usize;
        TEXT.get(start..start + usize::from(self.len)).unwrap_or_default()
    }
}

impl Message {
    /// The message of a full name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        MESSAGES
            .binary_search_by(|message| message.name.text().cmp(name))
            .ok()
            .and_then(|at| MESSAGES.get(at))
    }

    /// The message at a position.
    pub(super) fn at(position: u16) -> Option<&'static Self> {
        MESSAGES.get(usize::from(position))
    }

    /// Full name.
    pub(super) fn name(&self) -> &'static str {
        self.name.text()
    }

    /// A field by number, with its position among the fields of the message.
    pub(super) fn field(&self, number: u32) -> Option<(usize, &'static Field)> {
        let first = usize::from(self.first);
        let fields = FIELDS.get(first..first + usize::from(self.count))?;
        let at = fields.binary_search_by_key(&number, |field| field.number).ok()?;
        Some((at, fields.get(at)?))
    }
}

impl Field {
    /// Its name.
    pub(super) fn name(&self) -> &'static str {
        self.name.text()
    }
}

impl Enum {
    /// The enumeration at a position.
    pub(super) fn at(position: u16) -> Option<&'static Self> {
        ENUMS.get(usize::from(position))
    }

    /// Full name.
    pub(super) fn name(&self) -> &'static str {
        self.name.text()
    }

    /// Whether it has the value.
    pub(super) fn has(&self, value: i32) -> bool {
        let first = usize::from(self.first);
        VALUES
            .get(first..first + usize::from(self.count))
            .is_some_and(|values| values.binary_search(&value).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_say_what_the_descriptors_say() {
        let pool = crate::pool();
        let mut fields = 0;
        for message in &MESSAGES {
            let known = pool.get_message_by_name(message.name()).expect("a message of the pool");
            assert_eq!(known.is_map_entry(), message.is_map);
            assert_eq!(known.fields().len(), usize::from(message.count));
            for field in known.fields() {
                let (_, ours) = message.field(field.number()).expect("a field of ours");
                assert_eq!(ours.name(), field.name());
                assert_eq!(ours.repeated, field.is_list() || field.is_map());
                match (field.kind(), ours.kind) {
                    (prost_reflect::Kind::Message(m), Kind::Message(at)) => {
                        assert_eq!(Message::at(at).map(Message::name), Some(m.full_name()));
                    }
                    (prost_reflect::Kind::Enum(e), Kind::Enum(at)) => {
                        let ours = Enum::at(at).expect("an enumeration of ours");
                        assert_eq!(ours.name(), e.full_name());
                        assert!(e.values().all(|value| ours.has(value.number())));
                        assert!(!ours.has(i32::MAX));
                    }
                    (prost_reflect::Kind::String, Kind::Text) | (prost_reflect::Kind::Bytes, Kind::Bytes) => {
                    }
                    (_, Kind::Varint | Kind::Fixed32 | Kind::Fixed64) => {}
                    (theirs, ours) => panic!("{theirs:?} is {ours:?}"),
                }
                fields += 1;
            }
        }
        assert!(fields > 500, "{fields}");
        assert!(Message::named("envoy.nothing").is_none());
        let listener = Message::named("envoy.config.listener.v3.Listener").expect("a message of ours");
        assert!(listener.field(999).is_none());
    }
}
