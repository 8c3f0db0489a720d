//! Embedding: the examples do what they say, and two proxies of one process have nothing to do with each other.

#[path = "../../examples/decisions.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "an example is a program: its `main` is not called here, and each has `common`"
)]
mod decisions;
#[path = "../../examples/extend.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "an example is a program: its `main` is not called here, and each has `common`"
)]
mod extend;
#[path = "../../examples/own_socket.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "an example is a program: its `main` is not called here, and each has `common`"
)]
mod own_socket;
#[path = "../../examples/service.rs"]
#[allow(
    dead_code,
    clippy::duplicate_mod,
    reason = "an example is a program: its `main` is not called here, and each has `common`"
)]
mod service;

#[path = "../../examples/common/mod.rs"]
mod common;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use outrigger_engine::listener::NotServed;
use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_engine::service::{ProxyService, ServiceError};
use outrigger_testkit::within;
use outrigger_traffic::balance::{BalancerFactory, Balancers, PickContext, Picker};
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::LbPolicy;
use std::sync::Arc;
use std::time::Duration;
use tower_service::Service;

#[test]
fn decisions_are_made_without_a_socket() {
    decisions::run().unwrap();
}

#[tokio::test]
async fn filter_and_policy_of_the_program_are_used() {
    within("the example", extend::run()).await.unwrap();
}

#[tokio::test]
async fn connections_of_the_program_are_served() {
    within("the example", own_socket::run()).await.unwrap();
}

#[tokio::test]
async fn requests_of_the_program_are_served() {
    within("the example", service::run()).await.unwrap();
}

/// The host of this position.
#[derive(Debug, Clone, Copy)]
struct At(usize);

impl BalancerFactory for At {
    fn name(&self) -> &'static str {
        "at"
    }

    fn build(&self, _: &[Arc<Host>]) -> Arc<dyn Picker> {
        Arc::new(*self)
    }
}

impl Picker for At {
    fn pick(&self, hosts: &[Arc<Host>], _: &mut PickContext<'_>) -> Option<usize> {
        Some(self.0.min(hosts.len().saturating_sub(1)))
    }
}

fn proxy(at: usize) -> ProxyHandle {
    let balancers = Balancers::from([("at".to_owned(), Arc::new(At(at)) as Arc<dyn BalancerFactory>)]);
    Proxy::start(ProxyOptions { concurrency: 2, balancers, ..ProxyOptions::default() }).unwrap()
}

#[tokio::test]
async fn two_proxies_of_one_process_do_not_know_each_other() {
    let origins = [common::origin("one").await.unwrap(), common::origin("two").await.unwrap()];
    let mut config = common::config(true, &origins);
    config.clusters[0].lb_policy = LbPolicy::Registered("at".into());
    let proxies = [proxy(0), proxy(1)];
    for proxy in &proxies {
        // The same names of listener, cluster and policy in both.
        proxy.apply(config.clone()).unwrap();
    }
    let addresses = [0, 1].map(|n: usize| proxies[n].listener_addrs("edge")[0]);
    assert_ne!(addresses[0], addresses[1]);
    for (address, name) in addresses.iter().zip(["one", "two"]) {
        for _ in 0..4 {
            assert_eq!(within("an answer", common::get(*address, "/")).await.unwrap().1, name);
        }
    }
    let requests = |proxy: &ProxyHandle| {
        let live = proxy.shared().live.load_full();
        live.clusters.iter().flatten().map(|c| c.stats.total(|s| s.upstream_rq_total.value())).sum::<u64>()
    };
    assert_eq!((requests(&proxies[0]), requests(&proxies[1])), (4, 4));
    // The end of one is not the other's.
    let [first, second] = proxies;
    within("the end", first.drain_within(Duration::from_secs(5))).await;
    assert!(tokio::net::TcpStream::connect(addresses[0]).await.is_err());
    assert_eq!(within("an answer", common::get(addresses[1], "/")).await.unwrap().1, "two");
    drop(second);
}

#[tokio::test]
async fn unknown_policy_is_refused_by_name() {
    let mut config = common::config(false, &[([127, 0, 0, 1], 1).into()]);
    config.clusters[0].lb_policy = LbPolicy::Registered("nobody".into());
    let proxy = Proxy::start(ProxyOptions::default()).unwrap();
    let errors = proxy.apply(config).unwrap_err();
    assert_eq!(errors[0].to_string(), "cluster/upstream: lb_policy: no policy `nobody` is registered");
}

#[tokio::test]
async fn what_cannot_be_served_is_said() {
    let origin = common::origin("one").await.unwrap();
    let proxy = Proxy::start(ProxyOptions::default()).unwrap();
    proxy.apply(common::config(false, &[origin])).unwrap();
    let end = || async { tokio::net::TcpStream::connect(origin).await.unwrap().into_std().unwrap() };
    assert_eq!(proxy.serve("nowhere", end().await), Err(NotServed::NoListener));
    let mut service = ProxyService::new(proxy.clone(), "edge");
    let request = |host: &str| {
        let mut request = Request::get("/");
        if !host.is_empty() {
            request = request.header("host", host);
        }
        request.body(Full::<Bytes>::default()).unwrap()
    };
    assert!(matches!(service.call(request("")).await, Err(ServiceError::NoAuthority)));
    let many = (0..50).map(|_| {
        let mut service = service.clone();
        async move {
            let response = service.call(request("h")).await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "one");
        }
    });
    for one in many.map(tokio::spawn).collect::<Vec<_>>() {
        within("an answer", one).await.unwrap();
    }
    within("the end", proxy.drain_within(Duration::from_secs(1))).await;
    assert_eq!(proxy.serve("edge", end().await), Err(NotServed::Draining));
    assert!(matches!(service.call(request("h")).await, Err(ServiceError::NotServed(_))));
}
