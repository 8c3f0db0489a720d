use super::*;
use outrigger_traffic::config::Fraction;

const TRACE: u128 = 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c;
const SPAN: u64 = 0xb7ad_6b71_6920_3331;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn tracing(random: Fraction) -> Tracing {
    Tracing {
        client_sampling: Fraction::ONE,
        random_sampling: random,
        overall_sampling: Fraction::ONE,
        service_name: String::new(),
        collector_cluster: String::new(),
        ..Tracing::default()
    }
}

fn head(fields: &[(&str, &str)]) -> RequestHead {
    let mut head = RequestHead::default();
    for (name, value) in fields {
        assert!(head.fields.append(name.as_bytes(), value.as_bytes()));
    }
    head
}

fn begin(fields: &[(&str, &str)]) -> (RequestTrace, RequestHead) {
    let mut head = head(fields);
    let mut n = 0x1111_u64;
    let (trace, _) = RequestTrace::begin(&mut head, &tracing(Fraction::ZERO), &mut || {
        n += 1;
        n
    });
    (trace, head)
}

fn field(head: &RequestHead, name: &str) -> Option<String> {
    head.fields.get(name.as_bytes()).map(|v| String::from_utf8_lossy(v).into_owned())
}

#[test]
fn traceparent_valid_is_continued() {
    for (text, sampled) in [
        (PARENT.to_owned(), true),
        (PARENT.replace("-01", "-00"), false),
        // Unknown flags are ignored, a later version is read as far as it is known.
        (PARENT.replace("-01", "-ff"), true),
        (PARENT.replace("00-0af", "cc-0af"), true),
        (PARENT.replace("00-0af", "cc-0af") + "-what-the-future-will-be-like", true),
    ] {
        let (trace, _) = begin(&[("traceparent", &text)]);
        assert_eq!((trace.trace_id, trace.parent_span_id, trace.sampled), (TRACE, SPAN, sampled), "{text}");
    }
}

#[test]
fn traceparent_invalid_restarts_the_trace_and_is_removed_with_tracestate() {
    let short = PARENT.get(..54).unwrap();
    for text in [
        "",
        "garbage",
        short,
        &PARENT.to_uppercase(),
        &PARENT.replace("00-0af", "ff-0af"),
        &PARENT.replace("00-0af", "0-0af"),
        &PARENT.replace("00-0af", "000-0af"),
        &PARENT.replace("00-0af", ".0-0af"),
        &(PARENT.to_owned() + "-extra"),
        &(PARENT.replace("00-0af", "cc-0af") + ".what"),
        &PARENT.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
        &PARENT.replace("b7ad6b7169203331", "0000000000000000"),
        &PARENT.replace("-01", "-0."),
        &PARENT.replace("-01", "-001"),
        &PARENT.replace("-01", "-1"),
        &PARENT.replace("b7ad6b7169203331", "b7ad6b716920333"),
    ] {
        let (trace, head) = begin(&[("traceparent", text), ("tracestate", "a=1")]);
        assert!(trace.trace_id != TRACE && trace.trace_id != 0 && trace.parent_span_id == 0, "{text}");
        assert_eq!((field(&head, "traceparent"), field(&head, "tracestate")), (None, None), "{text}");
    }
    let (trace, head) = begin(&[("traceparent", PARENT), ("traceparent", PARENT)]);
    assert!(trace.trace_id != TRACE && field(&head, "traceparent").is_none());
}

#[test]
fn tracestate_is_kept_when_valid_and_removed_alone_when_not() {
    let long = |n: usize| "z".repeat(n);
    let members = |n: usize| (0..n).map(|i| format!("bar{i:02}={i:02}")).collect::<Vec<_>>().join(",");
    for (state, valid) in [
        ("foo=1".to_owned(), true),
        ("foo=1 \t , \t bar=2, \t baz=3".to_owned(), true),
        ("foo=1,,bar=2".to_owned(), true),
        ("0foo@bar=1".to_owned(), true),
        ("foo-_*/bar=0 1".to_owned(), true),
        (format!("{}=1", long(256)), true),
        (format!("{}=1", long(257)), false),
        (format!("{}@{}=1", "t".repeat(241), "v".repeat(14)), true),
        (format!("{}@v=1", "t".repeat(242)), true),
        (format!("t@{}=1", "v".repeat(15)), true),
        (members(32), true),
        (members(33), false),
        (format!("foo={}", "a".repeat(256)), true),
        (format!("foo={}", "a".repeat(257)), false),
        (String::new(), false),
        ("foo".to_owned(), false),
        ("foo =1".to_owned(), false),
        ("FOO=1".to_owned(), false),
        ("foo.bar=1".to_owned(), false),
        ("foo@=1,bar=2".to_owned(), true),
        ("@foo=1,bar=2".to_owned(), false),
        ("foo@@bar=1".to_owned(), true),
        ("foo@bar@baz=1".to_owned(), true),
        ("foo=bar=baz".to_owned(), false),
        ("foo=,bar=3".to_owned(), false),
    ] {
        let (trace, head) = begin(&[("traceparent", PARENT), ("tracestate", &state)]);
        assert_eq!(trace.trace_id, TRACE, "{state}");
        assert_eq!(field(&head, "tracestate").is_some(), valid, "{state}");
    }
}

#[test]
fn tracestate_fields_are_joined_in_order() {
    let (_, head) = begin(&[("traceparent", PARENT), ("tracestate", "foo=1"), ("tracestate", "bar=2")]);
    assert_eq!(head.fields.get_all(b"tracestate").count(), 1);
    assert_eq!(field(&head, "tracestate").as_deref(), Some("foo=1,bar=2"));
}

#[test]
fn b3_single_is_read_and_written() {
    for (text, trace_id, sampled) in [
        ("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", TRACE, true),
        ("0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-1", TRACE, true),
        ("8448eb211c80319c-b7ad6b7169203331-d-05e3ac9a4f6e3b90", 0x8448_eb21_1c80_319c, true),
        ("8448eb211c80319c-b7ad6b7169203331-0", 0x8448_eb21_1c80_319c, false),
    ] {
        let (trace, mut head) = begin(&[("b3", text)]);
        assert_eq!(
            (trace.trace_id, trace.parent_span_id, trace.sampled),
            (trace_id, SPAN, sampled),
            "{text}"
        );
        assert_eq!(field(&head, "b3"), None);
        assert!(trace.inject(&mut head, 0xabc));
        let sampled = u8::from(sampled);
        assert_eq!(field(&head, "b3").unwrap(), format!("{trace_id:032x}-0000000000000abc-{sampled}"));
        assert_eq!(
            field(&head, "traceparent").unwrap(),
            format!("00-{trace_id:032x}-0000000000000abc-0{sampled}")
        );
    }
}

#[test]
fn b3_decision_alone_starts_a_trace_with_it() {
    assert!(begin(&[("b3", "1")]).0.sampled);
    assert!(!begin(&[("b3", "0")]).0.sampled);
    assert!(begin(&[("x-b3-sampled", "1")]).0.sampled);
    assert!(begin(&[("x-b3-flags", "1")]).0.sampled);
}

#[test]
fn b3_multi_is_read_and_written() {
    let fields = [
        ("x-b3-traceid", "0af7651916cd43dd8448eb211c80319c"),
        ("x-b3-spanid", "b7ad6b7169203331"),
        ("x-b3-sampled", "1"),
    ];
    let (trace, mut head) = begin(&fields);
    assert_eq!((trace.trace_id, trace.parent_span_id, trace.sampled), (TRACE, SPAN, true));
    trace.inject(&mut head, 0xabc);
    assert_eq!(field(&head, "x-b3-spanid").as_deref(), Some("0000000000000abc"));
    assert_eq!(field(&head, "x-b3-parentspanid").unwrap(), format!("{:016x}", trace.span_id));
    assert_eq!(field(&head, "x-b3-sampled").as_deref(), Some("1"));
    assert_eq!(field(&head, "b3"), None, "only what came in, and traceparent");
}

#[test]
fn b3_invalid_is_removed_and_ignored() {
    for fields in [
        vec![("b3", "xyz")],
        vec![("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-9")],
        vec![("b3", "0000000000000000-b7ad6b7169203331-1")],
        vec![("x-b3-traceid", "0af7651916cd43dd8448eb211c80319c")],
        vec![("x-b3-traceid", "zz"), ("x-b3-spanid", "b7ad6b7169203331")],
    ] {
        let (trace, head) = begin(&fields);
        assert!(trace.trace_id != TRACE && !trace.sampled && trace.parent_span_id == 0, "{fields:?}");
        assert!(fields.iter().all(|(name, _)| field(&head, name).is_none()), "{fields:?}");
    }
}

#[test]
fn w3c_wins_over_b3() {
    let (trace, _) = begin(&[("b3", "8448eb211c80319c-b7ad6b7169203331-0"), ("traceparent", PARENT)]);
    assert_eq!((trace.trace_id, trace.sampled), (TRACE, true));
}

#[test]
fn root_is_sampled_by_its_share_and_client_trace_id() {
    let mut draws = 0_u64;
    let mut begin = |fields: &[(&str, &str)], share| {
        RequestTrace::begin(&mut head(fields), &tracing(share), &mut || {
            draws += 1;
            draws
        })
        .1
    };
    assert_eq!(begin(&[], Fraction::ONE), Sampling::Random);
    assert_eq!(begin(&[], Fraction::ZERO), Sampling::Not);
    assert_eq!(begin(&[("x-client-trace-id", "1")], Fraction::ZERO), Sampling::Client);
    assert_eq!(begin(&[("traceparent", PARENT)], Fraction::ZERO), Sampling::Parent);
}
