//! Requests and responses in, fields out.

use super::*;
use outrigger_traffic::config::RouteSource;

fn config(change: impl FnOnce(&mut HttpConnectionManager)) -> HttpConnectionManager {
    let mut config = HttpConnectionManager::new("test", RouteSource::Named(String::from("r")));
    config.generate_request_id = false;
    change(&mut config);
    config
}

fn client(config: &HttpConnectionManager) -> ClientFacts {
    ClientFacts::new("10.0.0.9".parse().unwrap(), false, None, &[], config)
}

fn run(
    fields: &[(&str, &str)],
    config: &HttpConnectionManager,
    client: &ClientFacts,
) -> (RequestHead, String) {
    let mut head = RequestHead::default();
    for (name, value) in fields {
        assert!(head.fields.append(name.as_bytes(), value.as_bytes()));
    }
    let mut number = 0;
    let trusted = request(&mut head, config, client, &mut || {
        number += 0x0123_4567_89ab_cdef;
        number
    });
    (head, trusted.to_string())
}

fn text<'a>(head: &'a RequestHead, name: &str) -> Option<&'a str> {
    head.fields.get(name.as_bytes()).map(|value| std::str::from_utf8(value).unwrap())
}

#[test]
fn forwarded_for_appended_at_the_edge_only() {
    for (edge, skip, expected) in [
        (true, false, Some("1.1.1.1, 2.2.2.2,10.0.0.9")),
        (true, true, Some("1.1.1.1, 2.2.2.2")),
        (false, false, Some("1.1.1.1, 2.2.2.2")),
    ] {
        let config = config(|c| {
            c.use_remote_address = edge;
            c.skip_xff_append = skip;
        });
        let (head, _) = run(&[("x-forwarded-for", "1.1.1.1, 2.2.2.2")], &config, &client(&config));
        assert_eq!(text(&head, "x-forwarded-for"), expected);
    }
    let config = config(|c| c.use_remote_address = true);
    let (head, _) = run(&[], &config, &client(&config));
    assert_eq!(text(&head, "x-forwarded-for"), Some("10.0.0.9"));
}

#[test]
fn trusted_address_by_hops() {
    for (edge, hops, lines, expected) in [
        (true, 0, &["1.1.1.1,2.2.2.2"][..], "10.0.0.9"),
        (true, 1, &["1.1.1.1,2.2.2.2"], "2.2.2.2"),
        (true, 2, &["1.1.1.1,2.2.2.2"], "1.1.1.1"),
        (true, 3, &["1.1.1.1,2.2.2.2"], "10.0.0.9"),
        (false, 0, &["1.1.1.1, 2.2.2.2"], "2.2.2.2"),
        (false, 1, &["1.1.1.1", "2.2.2.2"], "1.1.1.1"),
        (false, 2, &["1.1.1.1", "2.2.2.2"], "10.0.0.9"),
        (false, 0, &[], "10.0.0.9"),
        (false, 0, &["1.1.1.1, bogus"], "10.0.0.9"),
        (false, 0, &["1.1.1.1:80"], "10.0.0.9"),
        (false, 0, &["1.1.1.1,"], "10.0.0.9"),
        (false, 0, &["::ffff:1.2.3.4"], "1.2.3.4"),
        (false, 0, &["2001:db8::1"], "2001:db8::1"),
    ] {
        let config = config(|c| {
            c.use_remote_address = edge;
            c.xff_num_trusted_hops = hops;
        });
        let fields: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
        let (_, trusted) = run(&fields, &config, &client(&config));
        assert_eq!(trusted, expected, "{edge} {hops} {lines:?}");
    }
}

#[test]
fn forwarded_proto_trusted_behind_hops_only() {
    for (edge, hops, stated, expected, scheme) in [
        (true, 0, Some("https"), "http", Scheme::Http),
        (true, 1, Some("https"), "https", Scheme::Https),
        (false, 0, Some("https"), "https", Scheme::Https),
        (false, 0, None, "http", Scheme::Http),
        (true, 1, None, "http", Scheme::Http),
        (false, 0, Some("gopher"), "gopher", Scheme::Http),
    ] {
        let config = config(|c| {
            c.use_remote_address = edge;
            c.xff_num_trusted_hops = hops;
        });
        let fields: Vec<_> = stated.iter().map(|stated| ("x-forwarded-proto", *stated)).collect();
        let (head, _) = run(&fields, &config, &client(&config));
        assert_eq!((text(&head, "x-forwarded-proto"), head.scheme()), (Some(expected), scheme));
    }
    let forced = config(|c| c.scheme_override = Some("https".into()));
    assert_eq!(run(&[], &forced, &client(&forced)).0.scheme(), Scheme::Https);
}

#[test]
fn internal_fields_removed_and_external_address_set_at_the_edge() {
    let sent = [
        ("x-envoy-retry-on", "5xx"),
        ("x-envoy-internal", "true"),
        ("x-envoy-max-retries", "9"),
        ("x-envoy-external-address", "6.6.6.6"),
        ("x-envoy-decorator-operation", "o"),
    ];
    let edge = config(|c| c.use_remote_address = true);
    let (head, _) = run(&sent, &edge, &client(&edge));
    assert_eq!(text(&head, "x-envoy-external-address"), Some("10.0.0.9"));
    assert!(
        ["x-envoy-retry-on", "x-envoy-internal", "x-envoy-max-retries", "x-envoy-decorator-operation"]
            .iter()
            .all(|n| text(&head, n).is_none())
    );
    let inside = config(|_| {});
    let (head, _) = run(&sent, &inside, &client(&inside));
    assert_eq!(text(&head, "x-envoy-external-address"), Some("6.6.6.6"));
    assert_eq!(
        (text(&head, "x-envoy-retry-on"), text(&head, "x-envoy-decorator-operation")),
        (None, Some("o"))
    );
    let hops = config(|c| {
        c.use_remote_address = true;
        c.xff_num_trusted_hops = 1;
    });
    let (head, _) = run(&[("x-forwarded-for", "8.8.8.8")], &hops, &client(&hops));
    assert_eq!(text(&head, "x-envoy-external-address"), Some("8.8.8.8"));
}

#[test]
fn request_id_made_kept_or_replaced() {
    let made = "01234567-89ab-4def-8246-8acf13579bde";
    for (edge, preserve, generate, sent, expected) in [
        (false, false, true, None, Some(made)),
        (false, false, true, Some("mine"), Some("mine")),
        (true, false, true, Some("mine"), Some(made)),
        (true, true, true, Some("mine"), Some("mine")),
        (true, true, true, None, Some(made)),
        (true, false, false, None, None),
    ] {
        let config = config(|c| {
            c.use_remote_address = edge;
            c.preserve_external_request_id = preserve;
            c.generate_request_id = generate;
        });
        let fields: Vec<_> = sent.iter().map(|id| ("x-request-id", *id)).collect();
        let (head, _) = run(&fields, &config, &client(&config));
        assert_eq!(text(&head, "x-request-id"), expected);
    }
}

fn cert() -> PeerCert {
    PeerCert {
        uri_sans: vec!["spiffe://t/ns/a/sa/b".into()],
        dns_sans: vec!["b.example".into(), "odd;name".into()],
        subject: "CN=\"b\",O=x".into(),
        sha256: "ab12".into(),
        der: vec![0u8; 50].into(),
        verified: true,
        ..PeerCert::default()
    }
}

#[test]
fn client_cert_follows_its_rule() {
    let ours = "By=spiffe://t/us;Hash=ab12;URI=spiffe://t/ns/a/sa/b";
    let by = [Arc::from("spiffe://t/us")];
    for (rule, mutual, expected) in [
        (ForwardClientCert::Sanitize, true, None),
        (ForwardClientCert::Sanitize, false, None),
        (ForwardClientCert::ForwardOnly, true, Some("sent".to_owned())),
        (ForwardClientCert::ForwardOnly, false, None),
        (ForwardClientCert::AppendForward, true, Some(format!("sent,{ours}"))),
        (ForwardClientCert::AppendForward, false, None),
        (ForwardClientCert::SanitizeSet, true, Some(ours.to_owned())),
        (ForwardClientCert::SanitizeSet, false, None),
        (ForwardClientCert::AlwaysForwardOnly, true, Some("sent".to_owned())),
        (ForwardClientCert::AlwaysForwardOnly, false, Some("sent".to_owned())),
    ] {
        let config = config(|c| {
            c.forward_client_cert = rule;
            c.set_client_cert_details.uri = true;
        });
        let cert = cert();
        let client = ClientFacts::new("::1".parse().unwrap(), true, mutual.then_some(&cert), &by, &config);
        let (head, _) = run(&[("x-forwarded-client-cert", "sent")], &config, &client);
        assert_eq!(text(&head, "x-forwarded-client-cert"), expected.as_deref(), "{rule:?} {mutual}");
    }
}

#[test]
fn unverified_client_cert_counts_as_none() {
    let config = config(|c| c.forward_client_cert = ForwardClientCert::SanitizeSet);
    let cert = PeerCert { verified: false, ..cert() };
    let client = ClientFacts::new("::1".parse().unwrap(), true, Some(&cert), &[], &config);
    let (head, _) = run(&[("x-forwarded-client-cert", "sent")], &config, &client);
    assert_eq!(text(&head, "x-forwarded-client-cert"), None);
}

#[test]
fn client_cert_details_quoted_and_in_order() {
    let all = SetClientCertDetails { subject: true, cert: true, chain: false, dns: true, uri: true };
    let element = String::from_utf8(client_cert_element(&cert(), &[], all)).unwrap();
    let zeros = format!("{}%0A{}%0A", "A".repeat(64), "AAA%3D");
    assert_eq!(
        element,
        format!(
            "Hash=ab12;Cert=\"-----BEGIN%20CERTIFICATE-----%0A{zeros}-----END%20CERTIFICATE-----%0A\";\
             Subject=\"CN=\\\"b\\\",O=x\";URI=spiffe://t/ns/a/sa/b;DNS=b.example;DNS=\"odd;name\""
        )
    );
}

#[test]
fn chain_of_the_client_cert_begins_with_the_leaf() {
    let details = SetClientCertDetails { chain: true, ..SetClientCertDetails::default() };
    let cert = PeerCert { der: vec![1].into(), intermediates: vec![vec![2].into()], ..cert() };
    let element = String::from_utf8(client_cert_element(&cert, &[], details)).unwrap();
    let one =
        |base64: &str| format!("-----BEGIN%20CERTIFICATE-----%0A{base64}%0A-----END%20CERTIFICATE-----%0A");
    assert_eq!(element, format!("Hash=ab12;Chain=\"{}{}\"", one("AQ%3D%3D"), one("Ag%3D%3D")));
}

#[test]
fn via_appended_to_requests_and_responses() {
    let config = config(|c| c.via = "1.1 us".into());
    let (head, _) = run(&[("via", "1.0 them")], &config, &client(&config));
    assert_eq!(text(&head, "via"), Some("1.0 them, 1.1 us"));
    let mut head = ResponseHead::default();
    response(&mut head, &config, None);
    assert_eq!(head.fields.get(b"via"), Some(&b"1.1 us"[..]));
}

#[test]
fn server_and_request_id_of_responses() {
    for (rule, sent, expected) in [
        (ServerHeader::Overwrite, Some("them"), Some("outrigger")),
        (ServerHeader::Overwrite, None, Some("outrigger")),
        (ServerHeader::AppendIfAbsent, Some("them"), Some("them")),
        (ServerHeader::AppendIfAbsent, None, Some("outrigger")),
        (ServerHeader::PassThrough, Some("them"), Some("them")),
        (ServerHeader::PassThrough, None, None),
    ] {
        let config = config(|c| {
            c.server_header = rule;
            c.always_set_request_id_in_response = sent.is_some();
        });
        let mut head = ResponseHead::default();
        if let Some(sent) = sent {
            head.fields.append(b"server", sent.as_bytes());
        }
        response(&mut head, &config, Some(b"id"));
        assert_eq!(head.fields.get(b"server"), expected.map(str::as_bytes));
        assert_eq!(head.fields.get(b"x-request-id").is_some(), sent.is_some());
    }
}
