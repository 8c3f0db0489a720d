//! Announcements: defaults, limits, refusals.

use super::*;

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn wire() -> v1::Workload {
    v1::Workload {
        instance_id: "task-1".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "cart".to_owned(),
        service: "cart".to_owned(),
        version: "v2".to_owned(),
        ports: vec![v1::WorkloadPort {
            name: "http".to_owned(),
            number: 80,
            protocol: "http".to_owned(),
            target_port: 8080,
            ..Default::default()
        }],
        inbound_port: 15_006,
        ..Default::default()
    }
}

fn fields(wire: v1::Workload) -> Vec<String> {
    match Workload::from_wire(wire, PEER, Reach::Network) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.into_iter().map(|error| error.field).collect(),
    }
}

#[test]
fn defaults_are_filled_in_and_survive_the_way_back() {
    let workload = Workload::from_wire(wire(), PEER, Reach::Network).unwrap();
    assert_eq!(workload.address, PEER);
    assert_eq!(workload.labels["app"], "cart");
    assert_eq!(workload.labels["version"], "v2");
    assert_eq!((workload.weight, workload.health), (1, Health::Healthy));
    assert_eq!((workload.inbound_port, workload.outbound_port), (Some(15_006), None));
    let port = &workload.ports[0];
    assert_eq!((port.number, port.target_port, port.protocol), (80, 8080, Protocol::Http));
    assert_eq!(port.target_address, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(workload.outbound_address, IpAddr::from([127, 0, 0, 1]));
    assert_eq!(
        Workload::from_wire(workload.to_wire(), IpAddr::from([9, 9, 9, 9]), Reach::Network).unwrap(),
        workload
    );
    let text = serde_json::to_string(&workload).unwrap();
    assert_eq!(serde_json::from_str::<Workload>(&text).unwrap(), workload);
}

#[test]
fn addresses_between_application_and_proxy_are_kept_and_refused_when_they_cannot_be() {
    let with = |outbound: &str, target: &str| {
        let mut wire = v1::Workload { outbound_address: outbound.to_owned(), ..wire() };
        wire.ports[0].target_address = target.to_owned();
        wire
    };
    for outbound in ["0.0.0.0", "::", "172.17.0.2"] {
        let workload = Workload::from_wire(with(outbound, "172.17.0.1"), PEER, Reach::Network).unwrap();
        assert_eq!(workload.outbound_address.to_string(), outbound);
        assert_eq!(workload.ports[0].target_address, IpAddr::from([172, 17, 0, 1]));
        assert_eq!(Workload::from_wire(workload.to_wire(), PEER, Reach::Network).unwrap(), workload);
    }
    for outbound in ["mesh", "127.0.0.1:15001", "224.0.0.1"] {
        assert_eq!(fields(with(outbound, "")), ["outbound_address"], "{outbound}");
    }
    assert_eq!(fields(with("", "0.0.0.0")), ["ports[0].target_address"]);
}

#[test]
fn record_of_a_version_without_outbound_address_is_read_with_the_default() {
    let workload = Workload::from_wire(wire(), PEER, Reach::Network).unwrap();
    let mut record = serde_json::to_value(&workload).unwrap();
    assert!(record.as_object_mut().unwrap().remove("outboundAddress").is_some());
    assert_eq!(serde_json::from_value::<Workload>(record).unwrap(), workload);
}

#[test]
fn own_labels_win_over_derived_ones() {
    let mut wire = wire();
    wire.labels.insert("app".to_owned(), "basket".to_owned());
    assert_eq!(Workload::from_wire(wire, PEER, Reach::Network).unwrap().labels["app"], "basket");
}

#[test]
fn every_bad_value_is_named_at_once() {
    let mut bad = wire();
    bad.instance_id = String::new();
    bad.namespace = "Shop".to_owned();
    bad.address = "0.0.0.0".to_owned();
    bad.health = 9;
    bad.weight = WEIGHT_MAX + 1;
    bad.inbound_port = 65_536;
    bad.ports[0].protocol = "smtp".to_owned();
    bad.ports.push(v1::WorkloadPort {
        name: "http".to_owned(),
        protocol: "TCP".to_owned(),
        ..Default::default()
    });
    let expected = [
        "instance_id",
        "namespace",
        "address",
        "weight",
        "inbound_port",
        "health",
        "ports[0].protocol",
        "ports[1].name",
        "ports[1].number",
    ];
    assert_eq!(fields(bad), expected);
}

#[test]
fn counts_and_lengths_pass_at_the_limit_and_not_one_past_it() {
    let port = |index: usize| v1::WorkloadPort {
        name: format!("p{index}"),
        number: u32::try_from(index).unwrap() + 1,
        protocol: "TCP".to_owned(),
        ..Default::default()
    };
    let mut at = wire();
    at.ports = (0..PORTS_MAX).map(port).collect();
    at.labels = (0..LABELS_MAX).map(|n| (format!("k{n}"), "v".repeat(LABEL_VALUE_BYTES_MAX))).collect();
    at.instance_id = "i".repeat(TEXT_BYTES_MAX);
    at.inbound_port = 65_535;
    assert_eq!(fields(at.clone()), [""; 0]);
    let mut over = at;
    over.ports.push(port(PORTS_MAX));
    over.labels.insert("one-more".to_owned(), String::new());
    over.instance_id.push('i');
    assert_eq!(fields(over), ["instance_id", "labels", "ports"]);
    let mut long = wire();
    long.labels.insert("k".to_owned(), "v".repeat(LABEL_VALUE_BYTES_MAX + 1));
    long.labels.insert("k".repeat(LABEL_KEY_BYTES_MAX + 1), String::new());
    assert_eq!(fields(long).len(), 2);
}

#[test]
fn address_that_other_hosts_cannot_connect_to_is_refused_given_or_found() {
    let at = |address: &str, peer: &str, reach: Reach| {
        let wire = v1::Workload { address: address.to_owned(), ..wire() };
        Workload::from_wire(wire, peer.parse().unwrap(), reach).map(|workload| workload.address.to_string())
    };
    let never = [
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "169.254.169.254",
        "fe80::1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.1.1",
    ];
    let loopback = ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"];
    for address in never {
        for reach in [Reach::Network, Reach::Host] {
            assert!(at(address, "192.0.2.7", reach).is_err(), "{address}");
            assert!(at("", address, reach).is_err(), "from {address}");
        }
    }
    for address in loopback {
        let refused = at(address, "192.0.2.7", Reach::Network).unwrap_err();
        assert!(refused[0].reason.contains("--allow-loopback-workloads"), "{}", refused[0]);
        assert!(at("", address, Reach::Network).is_err(), "from {address}");
        let canonical = address.trim_start_matches("::ffff:");
        assert_eq!(at(address, "192.0.2.7", Reach::Host).unwrap(), canonical);
        assert_eq!(at("", address, Reach::Host).unwrap(), canonical);
    }
    for address in ["10.0.0.1", "203.0.113.9", "2001:db8::1", "fd00::1", "100.64.0.1"] {
        assert_eq!(at(address, "127.0.0.1", Reach::Network).unwrap(), address, "the one given counts");
        assert_eq!(at("", address, Reach::Network).unwrap(), address);
    }
    assert!(at("localhost", "192.0.2.7", Reach::Host).is_err());
}
