use super::*;
use outrigger_traffic::config::LocalityEndpoints;

fn named(names: &[&str]) -> Endpoints {
    let endpoints = names.iter().map(|name| {
        let mut endpoint = Endpoint::at("127.0.0.1:1".parse().unwrap());
        endpoint.address = EndpointAddress::Name((*name).into(), 80);
        endpoint
    });
    Endpoints {
        cluster_name: "c".into(),
        localities: vec![LocalityEndpoints {
            endpoints: endpoints.collect(),
            ..LocalityEndpoints::default()
        }],
        overprovisioning_factor: None,
    }
}

fn question(endpoints: &Endpoints, first_only: bool) -> Question<'_> {
    Question {
        endpoints,
        refresh_rate: Duration::from_secs(5),
        respect_ttl: true,
        family: DnsFamily::Auto,
        first_only,
    }
}

fn answers() -> Answers {
    let ip = |last| IpAddr::from([10, 0, 0, last]);
    [("a".to_owned(), vec![ip(1), ip(2)]), ("b".to_owned(), vec![ip(2), ip(3)])].into()
}

fn addresses(endpoints: &Endpoints) -> Vec<(String, String)> {
    let all = endpoints.localities.iter().flat_map(|l| &l.endpoints);
    all.map(|e| match &e.address {
        EndpointAddress::Socket(address) => (address.to_string(), e.hostname.clone()),
        EndpointAddress::Name(name, _) => panic!("{name} is left"),
    })
    .collect()
}

#[test]
fn names_become_their_addresses_once_each_with_the_name_as_hostname() {
    let endpoints = named(&["a", "b", "unknown"]);
    let pair = |address: &str, name: &str| (address.to_owned(), name.to_owned());
    let strict = resolved(&question(&endpoints, false), &answers());
    assert_eq!(
        addresses(&strict),
        [pair("10.0.0.1:80", "a"), pair("10.0.0.2:80", "a"), pair("10.0.0.3:80", "b")]
    );
    let logical = resolved(&question(&endpoints, true), &answers());
    assert_eq!(addresses(&logical), [pair("10.0.0.1:80", "a"), pair("10.0.0.2:80", "b")]);
}

#[test]
fn pause_follows_ttl_within_bounds_and_grows_with_failures() {
    let endpoints = named(&[]);
    let question = question(&endpoints, false);
    let within = |actual: Duration, base: u64| {
        assert!(
            actual >= Duration::from_secs(base) && actual <= Duration::from_millis(base * 1100),
            "{actual:?} {base}"
        );
    };
    within(pause(&question, Some(Duration::from_secs(30)), 0), 30);
    within(pause(&question, Some(Duration::ZERO), 0), 1);
    within(pause(&question, Some(Duration::from_secs(1 << 30)), 0), 3600);
    within(pause(&question, None, 0), 5);
    for (failures, factor) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 8), (1000, 8)] {
        within(pause(&question, None, failures), 5 * factor);
    }
}
