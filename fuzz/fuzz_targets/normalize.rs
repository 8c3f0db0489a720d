//! A normalised path stays as it is, begins with a slash and has no way up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use outrigger_traffic::config::EscapedSlashes;
use outrigger_wire::RequestHead;

#[path = "../../proxy/engine/src/http/normalize.rs"]
#[allow(dead_code, reason = "the proxy uses the rest")]
mod normalize;

use normalize::{PathRules, PathScratch, PathVerdict};

fuzz_target!(|data: &[u8]| {
    let Some((choice, path)) = data.split_first() else { return };
    let actions = [
        EscapedSlashes::KeepUnchanged,
        EscapedSlashes::RejectRequest,
        EscapedSlashes::UnescapeAndRedirect,
        EscapedSlashes::UnescapeAndForward,
    ];
    let rules = PathRules {
        normalize: choice & 1 != 0,
        merge_slashes: choice & 2 != 0,
        escaped_slashes: actions[usize::from(choice >> 2 & 3)],
    };
    let mut head = RequestHead::default();
    if !head.set_path(path) {
        return;
    }
    let mut scratch = PathScratch::default();
    let query = head.query().map(<[u8]>::to_vec);
    if normalize::normalize(&mut head, rules, &mut scratch) == PathVerdict::Reject {
        return;
    }
    let once = head.path().to_vec();
    assert_eq!(head.query().map(<[u8]>::to_vec), query);
    assert_eq!(normalize::normalize(&mut head, rules, &mut scratch), PathVerdict::Forward);
    assert_eq!(head.path(), once);
    let only = head.path_only();
    if rules.normalize && only != b"*" {
        assert!(only.starts_with(b"/") && !only.contains(&b'\\'));
        assert!(!only.split(|byte| *byte == b'/').any(|segment| segment == b"." || segment == b".."));
    }
    // As in Envoy, a path of slashes alone keeps the one it begins with and the one it ends with.
    if rules.merge_slashes && only != b"//" {
        assert!(!only.windows(2).any(|pair| pair == b"//"));
    }
});
