//! Which bodies are compressed, in which coding, and which are decompressed. Source: Envoy: compressor and decompressor
//! filters; RFC 9110 §12.5.3.

use crate::config::{Compressible, Compressor, Decompressible, Decompressor};
use crate::view::FieldView;

/// Media types that are compressed where the configuration names none, with their synonyms.
const TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "application/javascript",
    "application/x-javascript",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/ecmascript",
    "application/x-json",
    "application/xml",
    "application/json",
    "image/svg+xml",
    "text/xml",
    "application/xhtml+xml",
];

/// Most elements of `accept-encoding` that are looked at; real clients name four.
const ELEMENTS_MAX: usize = 32;

/// Whether the fields of a message let it be compressed: its length, its type, and that it is not coded.
pub fn is_compressible<F: FieldView + ?Sized>(rules: &Compressible, fields: &F) -> bool {
    let long = fields
        .header(b"content-length")
        .and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok())
        .is_none_or(|length| length >= u64::from(rules.min_content_length));
    long && has_type(rules, fields.header(b"content-type")) && fields.header(b"content-encoding").is_none()
}

/// Whether the response itself, beside what [`is_compressible`] looks at, may be compressed.
pub fn is_response_compressible<F: FieldView + ?Sized>(of: &Compressor, status: u16, fields: &F) -> bool {
    let is_left_alone = of.uncompressible_statuses.contains(&status)
        || is_no_transform(fields)
        || (of.disable_on_etag && fields.header(b"etag").is_some());
    !is_left_alone && of.response.as_ref().is_some_and(|rules| is_compressible(rules, fields))
}

/// Whether an `etag` is a strong one, which a compressed body would belie.
pub fn is_strong_etag(etag: &[u8]) -> bool {
    !matches!(etag, [b'w' | b'W', b'/', ..])
}

/// Whether a message whose `content-encoding` is of this coding is decompressed.
pub fn is_decompressible<F: FieldView + ?Sized>(
    rules: Decompressible,
    of: &Decompressor,
    fields: &F,
) -> bool {
    let codings = fields.header(b"content-encoding").unwrap_or_default();
    let first = codings.split(|byte| *byte == b',').next().unwrap_or_default();
    first.trim_ascii().eq_ignore_ascii_case(of.coding.token().as_bytes())
        && (rules.ignore_no_transform || !is_no_transform(fields))
}

/// `content-encoding` without its first coding; `None` where none is left.
pub fn without_first(codings: &[u8]) -> Option<&[u8]> {
    let at = memchr::memchr(b',', codings)?;
    Some(codings.get(at + 1..)?.trim_ascii()).filter(|rest| !rest.is_empty())
}

fn has_type(rules: &Compressible, content_type: Option<&[u8]>) -> bool {
    let Some(text) = content_type else { return true };
    let media = text.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    let is = |one: &str| media.eq_ignore_ascii_case(one.as_bytes());
    if rules.content_types.is_empty() {
        TYPES.iter().any(|one| is(one))
    } else {
        rules.content_types.iter().any(|one| is(one))
    }
}

fn is_no_transform<F: FieldView + ?Sized>(fields: &F) -> bool {
    let says = fields.header(b"cache-control").unwrap_or_default();
    says.split(|byte| *byte == b',').any(|one| one.trim_ascii().eq_ignore_ascii_case(b"no-transform"))
}

/// One element of `accept-encoding`.
struct Element<'a> {
    coding: &'a [u8],
    /// Thousandths.
    quality: u32,
}

/// The place in `offered` of the coding that the client likes best; `None`: it likes it unchanged. `offered` are the
/// tokens of the compressors of a chain in their order, and whether each asks to be chosen first.
///
/// Among codings of the same quality the order of the client decides, and where one of them asks to be chosen first, the
/// order of the chain.
pub fn choose(accept: &[u8], offered: &[(&str, bool)]) -> Option<usize> {
    let mut wanted: Vec<Element<'_>> =
        accept.split(|byte| *byte == b',').take(ELEMENTS_MAX).filter_map(element).collect();
    if wanted.is_empty() {
        return None;
    }
    let find = |coding: &[u8]| offered.iter().position(|(one, _)| coding == one.as_bytes());
    let rank = |element: &Element<'_>| match find(element.coding) {
        Some(at) if offered.get(at).is_some_and(|(_, first)| *first) => at,
        _ => usize::MAX,
    };
    wanted.sort_by(|a, b| b.quality.cmp(&a.quality).then_with(|| rank(a).cmp(&rank(b))));
    for element in &wanted {
        if element.coding.eq_ignore_ascii_case(b"identity") || element.quality == 0 {
            return None;
        }
        if element.coding == b"*" {
            let refused = |token: &str| {
                wanted.iter().any(|e| e.quality == 0 && e.coding.eq_ignore_ascii_case(token.as_bytes()))
            };
            return offered.iter().position(|(token, _)| !refused(token));
        }
        if let Some(at) = find(element.coding) {
            return Some(at);
        }
    }
    None
}

fn element(text: &[u8]) -> Option<Element<'_>> {
    let mut parts = text.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    let coding = parts.next().filter(|coding| !coding.is_empty())?;
    let quality = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
    let quality = match quality {
        None => 1000,
        Some(text) => {
            let number: f32 = std::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()?;
            (number.clamp(0.0, 1.0) * 1000.0) as u32
        }
    };
    Some(Element { coding, quality })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Coding, Decoding};
    use crate::route::tests::Head;

    #[test]
    fn coding_that_the_client_likes_best_is_chosen() {
        const BOTH: &[(&str, bool)] = &[("gzip", false), ("br", false)];
        for (accept, offered, expected) in [
            ("gzip", BOTH, Some(0)),
            ("br, gzip", BOTH, Some(1)),
            ("gzip;q=0.5, br", BOTH, Some(1)),
            ("br, gzip", &[("gzip", true), ("br", false)], Some(0)),
            ("deflate", BOTH, None),
            ("deflate, gzip;q=0.1", BOTH, Some(0)),
            ("*", BOTH, Some(0)),
            ("*, gzip;q=0", BOTH, Some(1)),
            ("gzip;q=0", BOTH, None),
            ("*;q=0", BOTH, None),
            ("identity", BOTH, None),
            ("identity;q=0.5, gzip;q=0.2", BOTH, None),
            ("identity;q=0.5, gzip", BOTH, Some(0)),
            // As in Envoy, although names of codings have no case.
            ("GZIP", BOTH, None),
            ("", BOTH, None),
            (" , gzip ; q=0.7", BOTH, Some(0)),
        ] {
            assert_eq!(choose(accept.as_bytes(), offered), expected, "{accept}");
        }
    }

    #[test]
    fn messages_are_chosen_by_length_type_and_cache_control() {
        let rules = Compressible::default();
        let case = |fields: &[(&str, &str)]| {
            let head = fields.iter().fold(Head::get("h", "/"), |head, (name, value)| head.with(name, value));
            is_compressible(&rules, &head)
        };
        assert!(case(&[("content-length", "30")]) && !case(&[("content-length", "29")]));
        assert!(
            case(&[("content-type", "Text/HTML; charset=utf-8")]) && !case(&[("content-type", "image/png")])
        );
        assert!(case(&[]) && !case(&[("content-encoding", "br")]));
        assert!(!case(&[("content-type", "")]));
        let own = Compressible { content_types: vec!["image/png".into()], ..rules.clone() };
        assert!(is_compressible(&own, &Head::get("h", "/").with("content-type", "image/png")));
        assert!(!is_compressible(&own, &Head::get("h", "/").with("content-type", "text/html")));
    }

    #[test]
    fn status_and_etag_may_forbid_compression() {
        let mut of = Compressor {
            coding: Coding::Gzip { level: 6, window_bits: 12 },
            response: Some(Compressible::default()),
            request: None,
            disable_on_etag: false,
            remove_accept_encoding: false,
            uncompressible_statuses: vec![206],
            choose_first: false,
        };
        let head = Head::get("h", "/").with("etag", "\"a\"");
        assert!(is_response_compressible(&of, 200, &head) && !is_response_compressible(&of, 206, &head));
        let kept = Head::get("h", "/").with("cache-control", "private, No-Transform");
        assert!(!is_response_compressible(&of, 200, &kept));
        of.disable_on_etag = true;
        assert!(!is_response_compressible(&of, 200, &head));
        assert!(is_strong_etag(b"\"a\"") && !is_strong_etag(b"W/\"a\""));
    }

    #[test]
    fn first_coding_is_undone() {
        let of = Decompressor {
            coding: Decoding::Gzip { window_bits: 15, max_inflate_ratio: 100 },
            request: None,
            response: Some(Decompressible::default()),
            advertise: true,
        };
        let case = |fields: &[(&str, &str)], rules| {
            let head = fields.iter().fold(Head::get("h", "/"), |head, (name, value)| head.with(name, value));
            is_decompressible(rules, &of, &head)
        };
        let rules = Decompressible::default();
        assert!(case(&[("content-encoding", "GZIP , br")], rules));
        assert!(!case(&[("content-encoding", "br, gzip")], rules) && !case(&[], rules));
        let kept = &[("content-encoding", "gzip"), ("cache-control", "no-transform")];
        assert!(!case(kept, rules) && case(kept, Decompressible { ignore_no_transform: true }));
        assert_eq!((without_first(b"gzip, br"), without_first(b"gzip")), (Some(&b"br"[..]), None));
    }
}
