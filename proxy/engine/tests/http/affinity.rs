//! Requests that stay with their host, and limits of single hosts.

use std::collections::BTreeMap;

use outrigger_testkit::Origin;
use outrigger_testkit::client::get;
use outrigger_traffic::config::{HashCookie, HashPolicy, HashSource, LbPolicy, Maglev, RingHash};

use crate::bed::{Bed, action, to};

fn policies() -> [LbPolicy; 2] {
    [LbPolicy::RingHash(RingHash::default()), LbPolicy::Maglev(Maglev::default())]
}

fn by(source: HashSource) -> HashPolicy {
    HashPolicy { source, terminal: false }
}

#[tokio::test]
async fn requests_with_the_same_header_go_to_the_same_host_by_either_protocol() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await, Origin::h1("2").await];
    for policy in policies() {
        let mut config = to(&[&origins[0], &origins[1], &origins[2]]);
        config.clusters[0].lb_policy = policy;
        action(&mut config, 0).hash_policy =
            vec![by(HashSource::Header { name: "x-user".into(), rewrite: None })];
        let bed = Bed::start(config);
        let (mut h1, h2) = (bed.h1().await, bed.h2().await);
        let mut homes: BTreeMap<String, String> = BTreeMap::new();
        for user in (0..30).chain(0..30) {
            let user = format!("user-{user}");
            let answer = h1.request("GET", "/", &[("host", "h"), ("x-user", &user)], b"").await.unwrap();
            let request = http::Request::get("http://h/").header("x-user", &user).body(bytes::Bytes::new());
            let other = h2.request(request.unwrap()).await.unwrap();
            let home = homes.entry(user).or_insert_with(|| answer.origin().to_owned());
            assert_eq!((answer.origin(), other.origin()), (home.as_str(), home.as_str()));
        }
        let used: std::collections::BTreeSet<&String> = homes.values().collect();
        assert_eq!(used.len(), 3);
    }
}

#[tokio::test]
async fn cookie_is_made_once_and_keeps_its_client() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await, Origin::h1("2").await];
    let mut config = to(&[&origins[0], &origins[1], &origins[2]]);
    config.clusters[0].lb_policy = LbPolicy::RingHash(RingHash::default());
    action(&mut config, 0).hash_policy = vec![by(HashSource::Cookie(HashCookie {
        name: "sid".into(),
        ttl: Some(std::time::Duration::from_secs(60)),
        path: "/".into(),
        attributes: Vec::new(),
    }))];
    let bed = Bed::start(config);
    for _ in 0..5 {
        let first = get(bed.address, "h", "/").await;
        let cookie = first.field("set-cookie").expect("a cookie").to_owned();
        assert!(
            cookie.starts_with("sid=\"") && cookie.ends_with("; Max-Age=60; Path=/; HttpOnly"),
            "{cookie}"
        );
        let pair = cookie.split(';').next().unwrap();
        let mut client = bed.h1().await;
        for _ in 0..5 {
            let answer = client.request("GET", "/", &[("host", "h"), ("cookie", pair)], b"").await.unwrap();
            assert_eq!(answer.origin(), first.origin());
            assert!(answer.field("set-cookie").is_none());
        }
    }
}

#[tokio::test]
async fn one_client_stays_with_its_address_and_query_decides_where_it_must() {
    let origins = [Origin::h1("0").await, Origin::h1("1").await, Origin::h1("2").await];
    let mut config = to(&[&origins[0], &origins[1], &origins[2]]);
    config.clusters[0].lb_policy = LbPolicy::Maglev(Maglev::default());
    action(&mut config, 0).hash_policy = vec![
        HashPolicy { source: HashSource::Query("shard".into()), terminal: true },
        by(HashSource::SourceIp),
    ];
    let bed = Bed::start(config);
    let home = get(bed.address, "h", "/").await.origin().to_owned();
    for _ in 0..6 {
        assert_eq!(get(bed.address, "h", "/?other=1").await.origin(), home);
    }
    let mut used = std::collections::BTreeSet::new();
    for shard in 0..30 {
        used.insert(get(bed.address, "h", &format!("/?shard={shard}")).await.origin().to_owned());
    }
    assert_eq!(used.len(), 3);
}

#[tokio::test]
async fn connections_of_a_host_are_limited_one_by_one() {
    let origin = Origin::h1("0").await;
    let mut config = to(&[&origin]);
    config.clusters[0].circuit_breakers.max_connections_per_host = Some(2);
    let bed = Bed::start(config);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let address = bed.address;
        clients.push(tokio::spawn(async move { get(address, "h", "/delay/50").await.status }));
    }
    for client in clients {
        assert_eq!(client.await.unwrap(), 200);
    }
    assert!(origin.connections() <= 2, "{}", origin.connections());
    assert!(bed.cluster_stat("a", |stats| stats.upstream_cx_overflow.value()) > 0);
}
