//! Putting configurations into effect.

use crate::support::*;
use outrigger_engine::cluster::{Answer, Resolve, Resolving};
use outrigger_testkit::{H1Client, Origin, client::get};
use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, DnsFamily, Endpoint, EndpointAddress, RouteSource, TrafficDirection,
};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

#[tokio::test]
async fn config_applied_is_served_and_counted() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    assert_eq!(proxy.version(), 0);
    assert_eq!(proxy.apply(simple(&[origin.address()])).unwrap(), 1);
    let response = get(address(&proxy), "any.test", "/").await;
    assert_eq!((response.status, response.origin()), (200, "one"));
    proxy.drain().await;
}

#[tokio::test]
async fn config_refused_changes_nothing_and_names_every_reason() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    proxy.apply(simple(&[origin.address()])).unwrap();
    let mut bad = simple(&[]);
    bad.clusters[0].circuit_breakers.default.max_requests = 7;
    bad.clusters.push(cluster("a", &[]));
    bad.listeners.push(bad.listeners[0].clone());
    let errors = proxy.apply(bad).unwrap_err();
    let resources: Vec<_> = errors.iter().map(|e| e.resource.as_str()).collect();
    assert!(resources.contains(&"cluster/a") && resources.contains(&"listener/in"), "{errors:?}");
    assert_eq!(proxy.version(), 1);
    assert_eq!(get(address(&proxy), "any.test", "/").await.origin(), "one");
}

#[tokio::test]
async fn change_holds_for_the_next_request_of_a_kept_connection_and_resets_no_counter() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let proxy = start();
    let mut config = simple(&[one.address()]);
    config.clusters.push(cluster("b", &[two.address()]));
    proxy.apply(config.clone()).unwrap();
    let mut client = H1Client::connect(address(&proxy)).await;
    let ask = [("host", "any.test")];
    assert_eq!(client.request("GET", "/", &ask, b"").await.unwrap().origin(), "one");
    config.listeners[0] =
        simple_with(&[], |hcm| hcm.routes = RouteSource::Inline(routes_to("b"))).listeners.remove(0);
    proxy.apply(config).unwrap();
    assert_eq!(client.request("GET", "/", &ask, b"").await.unwrap().origin(), "two");
    let lines = [
        "http.ingress.downstream_rq_2xx: 2",
        "cluster.a.upstream_rq_total: 1",
        "cluster.b.upstream_rq_total: 1",
    ];
    eventually("both requests to be counted", async || {
        let stats = admin_text(&proxy, "/stats?filter=downstream_rq_2xx|upstream_rq_total").await;
        lines.iter().all(|line| stats.contains(line)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn endpoints_are_replaced_without_a_new_state() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let proxy = start();
    let mut config = simple(&[]);
    config.clusters = vec![Cluster::new("a", ClusterDiscovery::Eds { service_name: "svc".into() })];
    config.endpoints = vec![endpoints("svc", &[one.address()])];
    let version = proxy.apply(config).unwrap();
    assert_eq!(get(address(&proxy), "h", "/").await.origin(), "one");
    proxy.apply_endpoints(&endpoints("svc", &[two.address()])).unwrap();
    assert_eq!(proxy.version(), version);
    assert_eq!(get(address(&proxy), "h", "/").await.origin(), "two");
    // What is applied next starts from the endpoints in effect.
    assert_eq!(proxy.config().endpoints, vec![endpoints("svc", &[two.address()])]);
    let mut bad = endpoints("svc", &[one.address(), one.address()]);
    bad.localities[0].endpoints[0].weight = 0;
    assert!(proxy.apply_endpoints(&bad).is_err());
    assert_eq!(get(address(&proxy), "h", "/").await.origin(), "two");
}

#[tokio::test]
async fn address_in_use_is_the_listeners_error_and_the_rest_can_go_on() {
    let origin = Origin::h1("one").await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = start();
    let mut config = simple(&[origin.address()]);
    let mut second = config.listeners[0].clone();
    second.name = "taken".into();
    second.address = taken.local_addr().unwrap();
    config.listeners.push(second);
    let errors = proxy.apply(config.clone()).unwrap_err();
    assert_eq!(errors.iter().map(|e| e.resource.as_str()).collect::<Vec<_>>(), ["listener/taken"]);
    assert!(proxy.listener_addrs("in").is_empty(), "all or nothing");
    let outcome = proxy.apply_isolated(config);
    assert_eq!(outcome.refused.keys().collect::<Vec<_>>(), ["listener/taken"]);
    assert!(outcome.version.is_some());
    assert_eq!(get(address(&proxy), "h", "/").await.origin(), "one");
}

#[tokio::test]
async fn refused_resource_keeps_its_last_good_version_while_others_change() {
    let (one, two) = (Origin::h1("one").await, Origin::h1("two").await);
    let proxy = start();
    let mut config = simple(&[one.address()]);
    proxy.apply(config.clone()).unwrap();
    let before = address(&proxy);
    config.clusters[0] = cluster("a", &[two.address()]);
    config.listeners[0].traffic_direction = TrafficDirection::Inbound;
    if let outrigger_traffic::config::Terminal::Http(hcm) = &mut config.listeners[0].filter_chains[0].terminal
    {
        hcm.access_log = vec![outrigger_traffic::config::AccessLog {
            sink: outrigger_traffic::config::AccessLogSink::Stdout,
            format: outrigger_traffic::config::AccessLogFormat::Text("%NO_SUCH%".into()),
            filter: None,
        }];
    }
    let outcome = proxy.apply_isolated(config);
    assert_eq!(outcome.refused.keys().collect::<Vec<_>>(), ["listener/in"]);
    assert_eq!(address(&proxy), before, "the listener was not touched");
    assert_eq!(get(before, "h", "/").await.origin(), "two");
}

#[tokio::test]
async fn listener_removed_closes_its_port_and_one_added_opens() {
    let origin = Origin::h1("one").await;
    let proxy = start();
    let mut config = simple(&[origin.address()]);
    proxy.apply(config.clone()).unwrap();
    let old = address(&proxy);
    config.listeners[0].name = "other".into();
    proxy.apply(config).unwrap();
    assert!(proxy.listener_addrs("in").is_empty());
    let new = proxy.listener_addrs("other")[0];
    assert_eq!(get(new, "h", "/").await.origin(), "one");
    eventually("the old port to close", async || tokio::net::TcpStream::connect(old).await.err()).await;
}

/// Answers every name with what it holds; counts the questions.
#[derive(Debug, Default)]
struct Names {
    answer: std::sync::Mutex<Option<Vec<IpAddr>>>,
    asked: AtomicUsize,
}

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str, _: DnsFamily) -> Resolving<'a> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer.lock().unwrap().clone();
        Box::pin(async move {
            let addresses = answer.ok_or("away")?;
            Ok(Answer { addresses, ttl: Duration::from_secs(1) })
        })
    }
}

fn dns_cluster(address: SocketAddr) -> Cluster {
    let mut endpoint = Endpoint::at(address);
    endpoint.address = EndpointAddress::Name("origin.test".into(), address.port());
    let mut all = endpoints("a", &[]);
    all.localities[0].endpoints.push(endpoint);
    Cluster::new(
        "a",
        ClusterDiscovery::StrictDns {
            endpoints: all,
            refresh_rate: Duration::from_millis(20),
            respect_ttl: false,
            family: DnsFamily::V4Only,
        },
    )
}

#[tokio::test]
async fn dns_cluster_gets_hosts_and_keeps_the_last_good_ones() {
    let origin = Origin::h1("one").await;
    let names = Arc::new(Names::default());
    let proxy = start_with(|options| options.resolver = names.clone());
    let config = Config { clusters: vec![dns_cluster(origin.address())], ..simple(&[]) };
    proxy.apply(config.clone()).unwrap();
    assert_eq!(get(address(&proxy), "h", "/").await.status, 503, "no host yet");
    *names.answer.lock().unwrap() = Some(vec![origin.address().ip()]);
    let port = address(&proxy);
    eventually("the name to be resolved", async || (get(port, "h", "/").await.status == 200).then_some(()))
        .await;
    *names.answer.lock().unwrap() = None;
    let asked = names.asked.load(Ordering::SeqCst);
    eventually("more questions", async || (names.asked.load(Ordering::SeqCst) > asked + 1).then_some(()))
        .await;
    assert_eq!(get(port, "h", "/").await.origin(), "one", "the last good answer is kept");
    // A rebuilt cluster starts with the last answer although the resolver is away.
    let mut changed = config;
    changed.clusters[0].connect_timeout = Duration::from_secs(3);
    proxy.apply(changed).unwrap();
    assert_eq!(get(port, "h", "/").await.origin(), "one");
    let stats = admin_text(&proxy, "/stats?filter=cluster.a.update_").await;
    assert!(!stats.contains("update_failure: 0") && !stats.contains("update_success: 0"), "{stats}");
}
