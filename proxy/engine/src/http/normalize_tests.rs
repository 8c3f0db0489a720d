//! Paths in, paths out.

use super::*;
use proptest::prelude::*;

const NORMALIZE: PathRules =
    PathRules { normalize: true, merge_slashes: false, escaped_slashes: EscapedSlashes::KeepUnchanged };
const ALL: PathRules =
    PathRules { normalize: true, merge_slashes: true, escaped_slashes: EscapedSlashes::UnescapeAndForward };

fn apply(path: &str, rules: PathRules) -> (PathVerdict, String) {
    let mut head = RequestHead::default();
    assert!(head.set_path(path.as_bytes()), "{path}");
    let verdict = normalize(&mut head, rules, &mut PathScratch::default());
    (verdict, String::from_utf8(head.path().to_vec()).unwrap())
}

#[test]
fn normalize_resolves_dots_and_decodes_unreserved() {
    for (path, expected) in [
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/./b", "/a/b"),
        ("/a/../b", "/b"),
        ("/a/b/..", "/a/"),
        ("/a/.", "/a/"),
        ("/..", "/"),
        ("/../../a", "/a"),
        ("/%2e%2e/a", "/a"),
        ("/a/%2E/b", "/a/b"),
        ("/a/.%2e/b", "/b"),
        ("/%61%7e%5f", "/a~_"),
        ("/a%2fb", "/a%2fb"),
        ("/a%5Cb", "/a%5Cb"),
        ("/a\\..\\b", "/b"),
        ("/a//b", "/a//b"),
        ("/a//../b", "/a/b"),
        ("/%252e", "/%252e"),
        ("/%2%65", "/%2%65"),
        ("/%%32e", "/%%32e"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
        ("/...", "/..."),
        ("/.a/..b", "/.a/..b"),
        ("/a/../b?c=/../d%2e", "/b?c=/../d%2e"),
        ("/%C3%A9", "/%C3%A9"),
        ("*", "*"),
    ] {
        assert_eq!(apply(path, NORMALIZE), (PathVerdict::Forward, expected.to_owned()), "{path}");
    }
    assert_eq!(apply("/a%00b", NORMALIZE).0, PathVerdict::Reject);
}

#[test]
fn slashes_merge_in_the_path_alone() {
    let rules =
        PathRules { normalize: false, merge_slashes: true, escaped_slashes: EscapedSlashes::KeepUnchanged };
    for (path, expected) in
        [("//a///b/", "/a/b/"), ("/a?b//c", "/a?b//c"), ("/a/../b", "/a/../b"), ("/%61", "/%61")]
    {
        assert_eq!(apply(path, rules), (PathVerdict::Forward, expected.to_owned()));
    }
}

#[test]
fn escaped_slashes_follow_their_action() {
    let with = |escaped_slashes| PathRules { normalize: true, merge_slashes: true, escaped_slashes };
    let path = "/a%2F..%5c%2fb?q=%2F";
    for (action, expected) in [
        (EscapedSlashes::KeepUnchanged, (PathVerdict::Forward, path)),
        (EscapedSlashes::RejectRequest, (PathVerdict::Reject, path)),
        (EscapedSlashes::UnescapeAndForward, (PathVerdict::Forward, "/b?q=%2F")),
        (EscapedSlashes::UnescapeAndRedirect, (PathVerdict::Redirect, "/b?q=%2F")),
    ] {
        assert_eq!(apply(path, with(action)), (expected.0, expected.1.to_owned()), "{action:?}");
    }
    for action in [EscapedSlashes::RejectRequest, EscapedSlashes::UnescapeAndRedirect] {
        assert_eq!(apply("/a%20b?q=%2F", with(action)), (PathVerdict::Forward, "/a%20b?q=%2F".to_owned()));
    }
}

#[test]
fn idle_rules_leave_everything() {
    let rules =
        PathRules { normalize: false, merge_slashes: false, escaped_slashes: EscapedSlashes::KeepUnchanged };
    assert_eq!(apply("//a/../%2F%00", rules), (PathVerdict::Forward, "//a/../%2F%00".to_owned()));
}

fn path() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "//", ".", "..", "a", "F", "2", "%", "%2", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", "%41",
        "%32", "%46", "%65", "%25", "%20", "?", "x",
    ]);
    prop::collection::vec(piece, 0..16).prop_map(|pieces| format!("/{}", pieces.concat()))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_second_pass_changes_nothing(path in path(), normalize: bool, merge_slashes: bool, unescape: bool) {
        let escaped_slashes =
            if unescape { EscapedSlashes::UnescapeAndForward } else { EscapedSlashes::KeepUnchanged };
        let rules = PathRules { normalize, merge_slashes, escaped_slashes };
        let (verdict, once) = apply(&path, rules);
        if verdict == PathVerdict::Forward {
            prop_assert_eq!(apply(&once, rules), (PathVerdict::Forward, once.clone()));
        }
    }

    #[test]
    fn no_dot_segment_survives(path in path()) {
        let (_, result) = apply(&path, ALL);
        let only = result.split('?').next().unwrap();
        prop_assert!(only.starts_with('/'));
        prop_assert!(!only.split('/').any(|segment| segment == "." || segment == ".."), "{}", only);
        prop_assert!((only == "//" || !only.contains("//")) && !only.contains('\\'), "{}", only);
        let query = path.split_once('?').map(|(_, query)| query);
        prop_assert_eq!(result.split_once('?').map(|(_, query)| query), query);
    }

    #[test]
    fn a_path_judged_to_need_no_work_is_a_fixed_point(path in "/[a-z./%]{0,10}") {
        if !needs_work(path.as_bytes()) {
            let mut scratch = PathScratch { from: path.clone().into_bytes(), to: Vec::new() };
            scratch.step(unescape_slashes);
            scratch.step(decode_unreserved);
            scratch.step(resolve_dot_segments);
            scratch.step(merge_slashes);
            prop_assert_eq!(scratch.from, path.into_bytes());
        }
    }
}
