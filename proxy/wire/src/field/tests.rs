//! Behaviour of [`FieldBlock`].

use super::*;

fn block(fields: &[(&str, &str)]) -> FieldBlock {
    let mut block = FieldBlock::default();
    for (name, value) in fields {
        assert!(block.append(name.as_bytes(), value.as_bytes()));
    }
    block
}

#[test]
fn append_lowers_names_and_trims_values() {
    let fields = block(&[("X-A", " \t1 2\t "), ("Empty", "  "), ("x-a", "3")]);
    let all: Vec<_> = fields.iter().collect();
    assert_eq!(all, [(&b"x-a"[..], &b"1 2"[..]), (b"empty", b""), (b"x-a", b"3")]);
    assert_eq!(fields.get_all(b"x-a").collect::<Vec<_>>(), [&b"1 2"[..], b"3"]);
    assert_eq!(fields.byte_size(), 3 + 3 + 5 + 3 + 1);
}

#[test]
fn append_bad_name_refused_and_control_bytes_become_spaces() {
    let mut fields = FieldBlock::default();
    assert!(!fields.append(b"", b"x") && !fields.append(b"a b", b"x") && !fields.append(b"a\r\n", b"x"));
    assert!(!fields.set(b"a:", b"x"));
    assert!(fields.append(b"a", b"1\r\nEvil: 2\x00\x7f3"));
    assert_eq!(fields.get(b"a"), Some(&b"1  Evil: 2  3"[..]));
    assert!(fields.append(b"b", b"\r\n"));
    assert_eq!(fields.get(b"b"), Some(&b""[..]));
}

#[test]
fn set_replaces_all_and_remove_counts() {
    let mut fields = block(&[("via", "1"), ("other", "o"), ("via", "2"), ("OTHER", "p")]);
    assert!(fields.set(b"Via", b"3"));
    assert_eq!(fields.get_all(b"via").collect::<Vec<_>>(), [&b"3"[..]]);
    assert_eq!(fields.remove(b"other"), 2);
    assert_eq!(fields.remove(b"other"), 0);
    assert_eq!(fields.remove_known(Known::Via), 1);
    assert!(fields.is_empty() && !fields.contains_known(Known::Via));
}

#[test]
fn join_extends_the_last_line_in_place() {
    let mut fields = block(&[("x-forwarded-for", "a"), ("x-forwarded-for", "b"), ("z", "")]);
    assert!(fields.join(b"x-forwarded-for", b", ", b"c"));
    assert!(fields.join(b"z", b", ", b"only"));
    assert!(fields.join(b"new", b", ", b"n"));
    let all: Vec<_> = fields.iter().collect();
    assert_eq!(
        all,
        [
            (&b"x-forwarded-for"[..], &b"a"[..]),
            (b"x-forwarded-for", b"b, c"),
            (b"z", b"only"),
            (b"new", b"n")
        ]
    );
}

#[test]
fn tokens_are_found_in_any_line_and_case() {
    let fields = block(&[("connection", "keep-alive , Upgrade"), ("connection", ",,x-nominated")]);
    for token in [&b"upgrade"[..], b"KEEP-ALIVE", b"X-Nominated"] {
        assert!(fields.has_token(Known::Connection, token));
    }
    assert!(!fields.has_token(Known::Connection, b"close") && !fields.has_token(Known::Te, b"upgrade"));
}

#[test]
fn write_except_skips_and_keeps_order() {
    let mut fields = block(&[("a", "1"), ("connection", "close"), ("b", "2"), ("c", "3")]);
    fields.remove(b"b");
    let mut out = Vec::new();
    fields.write_except(Known::Connection.bit(), &mut out);
    assert_eq!(out, b"a: 1\r\nc: 3\r\n");
    out.clear();
    assert!(fields.join(b"a", b",", b"x"));
    fields.write_except(0, &mut out);
    assert_eq!(out, b"a: 1,x\r\nconnection: close\r\nc: 3\r\n");
}

#[test]
fn retain_sees_names_and_values() {
    let mut fields = block(&[("a", "1"), ("b", "2"), ("a", "3")]);
    fields.retain(|name, value| name == b"b" || value == b"3");
    assert_eq!(fields.iter().collect::<Vec<_>>(), [(&b"b"[..], &b"2"[..]), (b"a", b"3")]);
}

#[test]
fn clear_keeps_memory() {
    let mut fields = block(&[("a", "1")]);
    let capacity = fields.arena.capacity();
    fields.clear();
    assert!(fields.is_empty() && !fields.contains(b"a"));
    assert_eq!(fields.arena.capacity(), capacity);
}

#[test]
fn debug_shows_no_values() {
    let shown = format!("{:?}", block(&[("authorization", "secret")]));
    assert!(shown.contains("authorization") && !shown.contains("secret"));
}
