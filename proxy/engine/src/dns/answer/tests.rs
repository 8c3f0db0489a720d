use super::*;
use hickory_resolver::proto::op::Query;
use outrigger_traffic::config::{DnsDomain, DnsForward, DnsServer};
use proptest::prelude::*;
use std::time::Duration;

fn zone(forward: bool) -> Zone {
    let domain = |name: &str, addresses: &[&str]| DnsDomain {
        name: name.into(),
        addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
        ttl: Duration::from_secs(30),
    };
    let many: Vec<String> = (0..100).map(|n| format!("240.240.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let forward = forward.then(|| DnsForward {
        resolvers: vec!["127.0.0.1:1".parse().unwrap()],
        timeout: Duration::from_secs(1),
        max_pending: 1,
    });
    let domains = vec![
        domain("b.demo.mesh", &["240.240.0.1"]),
        domain("both.mesh", &["240.240.0.2", "2001:db8::2"]),
        domain("*.wild.mesh", &["240.240.0.3"]),
        domain("many.mesh", &many),
    ];
    Zone::new(&DnsServer { stat_prefix: "t".into(), domains, forward }, None)
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn ask(zone: &Zone, message: &Message) -> Verdict {
    judge(&message.to_vec().unwrap(), zone, zone.stats.control())
}

fn reply(verdict: Verdict) -> Message {
    match verdict {
        Verdict::Answer(message) => message,
        other => panic!("{other:?}"),
    }
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn names_of_the_table_are_answered_by_family() {
    let zone = zone(false);
    for (name, kind, expected) in [
        ("b.demo.mesh.", RecordType::A, &["240.240.0.1"][..]),
        ("B.Demo.MESH.", RecordType::A, &["240.240.0.1"]),
        ("b.demo.mesh.", RecordType::AAAA, &[]),
        ("b.demo.mesh.", RecordType::TXT, &[]),
        ("both.mesh.", RecordType::AAAA, &["2001:db8::2"]),
        ("both.mesh.", RecordType::ANY, &["240.240.0.2", "2001:db8::2"]),
        ("x.y.wild.mesh.", RecordType::A, &["240.240.0.3"]),
    ] {
        let found = reply(ask(&zone, &question(name, kind)));
        assert_eq!(addresses(&found), expected, "{name} {kind}");
        let head = found.metadata;
        assert_eq!((head.id, head.response_code, head.authoritative), (7, ResponseCode::NoError, true));
        assert!(head.recursion_desired && head.recursion_available);
        assert!(found.answers.iter().all(|record| record.ttl == 30));
        assert_eq!(found.queries[0].name().to_ascii(), name, "the question comes back as it was written");
    }
    let stats = zone.stats.control();
    assert_eq!((stats.known_domain_queries.value(), stats.local_a_record_answers.value()), (7, 4));
}

#[test]
fn other_names_do_not_exist_or_are_for_others() {
    let found = reply(ask(&zone(false), &question("example.org.", RecordType::A)));
    assert_eq!(found.metadata.response_code, ResponseCode::NXDomain);
    let zone = zone(true);
    let Verdict::Ask(asked) = ask(&zone, &question("example.org.", RecordType::MX)) else { panic!() };
    assert_eq!((asked.name.to_ascii().as_str(), asked.kind), ("example.org.", RecordType::MX));
    let found = asked.answered(Err(AskError::Timeout), zone.stats.control());
    assert_eq!(found.metadata.response_code, ResponseCode::ServFail);
    assert_eq!(zone.stats.control().lookup_timeouts.value(), 1);
    let found = reply(ask(&zone, &question("example.org.", RecordType::AXFR)));
    assert_eq!(found.metadata.response_code, ResponseCode::NotImp);
}

#[test]
fn what_is_no_question_is_refused_or_ignored() {
    let zone = zone(true);
    let stats = zone.stats.control();
    let mut two = question("a.test.", RecordType::A);
    two.add_query(Query::query(Name::from_ascii("b.test.").unwrap(), RecordType::A));
    assert_eq!(reply(ask(&zone, &two)).metadata.response_code, ResponseCode::FormErr);
    let mut update = question("a.test.", RecordType::A);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(reply(ask(&zone, &update)).metadata.response_code, ResponseCode::NotImp);
    let mut chaos = question("a.test.", RecordType::A);
    chaos.queries[0].set_query_class(DNSClass::CH);
    assert_eq!(reply(ask(&zone, &chaos)).metadata.response_code, ResponseCode::NotImp);
    let answer = Message::response(7, OpCode::Query);
    assert!(matches!(ask(&zone, &answer), Verdict::Ignore));
    let mut cut = question("a.test.", RecordType::A).to_vec().unwrap();
    cut.truncate(14);
    let found = reply(judge(&cut, &zone, stats));
    assert_eq!((found.metadata.id, found.metadata.response_code), (7, ResponseCode::FormErr));
    assert!(matches!(judge(&cut[..11], &zone, stats), Verdict::Ignore));
    assert_eq!(stats.query_parsing_failure.value(), 2);
}

#[test]
fn long_answer_over_udp_is_cut_to_what_the_client_takes() {
    let zone = zone(false);
    let plain = reply(ask(&zone, &question("many.mesh.", RecordType::A)));
    assert!(encode(&plain, false).unwrap().len() > 1600);
    let cut = Message::from_vec(&encode(&plain, true).unwrap()).unwrap();
    assert!(cut.metadata.truncation && cut.answers.is_empty() && cut.queries.len() == 1);
    for (offered, expected) in [(100, 512), (700, 700), (4096, UDP_BYTES_MAX as u16)] {
        let mut asked = question("b.demo.mesh.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(offered);
        asked.set_edns(edns);
        let found = reply(ask(&zone, &asked));
        assert_eq!(found.edns.as_ref().unwrap().max_payload(), expected);
        assert!(!Message::from_vec(&encode(&found, true).unwrap()).unwrap().metadata.truncation);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let zone = zone(true);
        let _ = judge(&bytes, &zone, zone.stats.control());
    }
}
