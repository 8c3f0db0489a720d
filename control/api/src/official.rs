//! Names of the official API that we do not have, so that an error can tell "not supported" from "no such thing".
//!
//! The table `official_names.tsv` holds facts only: for every message and enumeration of ours the fields and values
//! that are missing, and the messages that extensions are configured with. `tests/official/names.py` writes it and
//! `tests/official/compare.py` checks that it is current.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

#[derive(Default)]
struct Table {
    fields: BTreeMap<&'static str, Vec<(u32, &'static str)>>,
    values: BTreeMap<&'static str, Vec<(i32, &'static str)>>,
    messages: BTreeSet<&'static str>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table::default();
    for line in include_str!("official_names.tsv").lines() {
        let mut parts = line.split('\t');
        let (Some(kind), Some(owner)) = (parts.next(), parts.next()) else { continue };
        match (kind, parts.next(), parts.next()) {
            ("field", Some(number), Some(name)) => {
                if let Ok(number) = number.parse() {
                    table.fields.entry(owner).or_default().push((number, name));
                }
            }
            ("value", Some(number), Some(name)) => {
                if let Ok(number) = number.parse() {
                    table.values.entry(owner).or_default().push((number, name));
                }
            }
            ("message", ..) => {
                table.messages.insert(owner);
            }
            _ => {}
        }
    }
    table
});

/// The name of an official field that we lack.
pub fn field_by_number(message: &str, number: u32) -> Option<&'static str> {
    TABLE.fields.get(message)?.iter().find(|f| f.0 == number).map(|f| f.1)
}

/// The number of an official field that we lack.
pub fn field_by_name(message: &str, name: &str) -> Option<u32> {
    TABLE.fields.get(message)?.iter().find(|f| f.1 == name).map(|f| f.0)
}

/// The official fields of a message that we lack.
pub fn fields(message: &str) -> impl Iterator<Item = &'static str> {
    TABLE.fields.get(message).into_iter().flatten().map(|f| f.1)
}

/// The name of an official enumeration value that we lack.
pub fn value_by_number(enumeration: &str, number: i32) -> Option<&'static str> {
    TABLE.values.get(enumeration)?.iter().find(|v| v.0 == number).map(|v| v.1)
}

/// The number of an official enumeration value that we lack.
pub fn value_by_name(enumeration: &str, name: &str) -> Option<i32> {
    TABLE.values.get(enumeration)?.iter().find(|v| v.1 == name).map(|v| v.0)
}

/// Whether the official API has a message of that name that we lack.
pub fn is_message(name: &str) -> bool {
    TABLE.messages.contains(name)
}

#[cfg(test)]
mod tests {
    #[test]
    fn missing_fields_and_types_are_known_by_name() {
        let hcm = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        assert_eq!(super::field_by_number(hcm, 44), Some("http3_protocol_options"));
        assert_eq!(super::field_by_name(hcm, "http3_protocol_options"), Some(44));
        assert_eq!(super::field_by_name(hcm, "route_config"), None);
        assert_eq!(super::value_by_name("envoy.type.v3.CodecClientType", "HTTP3"), Some(2));
        assert!(super::is_message("envoy.extensions.filters.http.lua.v3.Lua"));
        assert!(!super::is_message("envoy.extensions.filters.http.router.v3.Router"));
    }
}
