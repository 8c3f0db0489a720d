//! A filter and a balancing policy of the embedding program, registered by value: the names in the configuration stand for
//! what this proxy was given, and another proxy of the same process may be given something else.

#![allow(unreachable_pub, reason = "the tests run it as a module")]

#[path = "common/mod.rs"]
mod common;

use std::error::Error;
use std::sync::Arc;

use outrigger_engine::filter::{LocalReply, RegisteredFilters, RequestFilter, Said};
use outrigger_engine::listener::ConnFacts;
use outrigger_engine::proxy::{Proxy, ProxyOptions};
use outrigger_traffic::balance::{BalancerFactory, Balancers, PickContext, Picker};
use outrigger_traffic::cluster::Host;
use outrigger_traffic::config::{FilterConfig, HttpFilter, LbPolicy, Terminal};
use outrigger_wire::RequestHead;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run())
}

/// Lets nobody see what is private.
#[derive(Debug)]
struct NothingPrivate;

impl RequestFilter for NothingPrivate {
    fn on_request(&self, request: &mut RequestHead, _: &ConnFacts) -> Said {
        if !request.path().starts_with(b"/private") {
            return Said::Next;
        }
        Said::Answer(LocalReply {
            status: 404,
            body: b"there is nothing here".to_vec(),
            fields: Vec::new(),
            details: "private".into(),
        })
    }
}

/// Everything goes to the last host that may be used.
#[derive(Debug)]
struct Last;

impl BalancerFactory for Last {
    fn name(&self) -> &'static str {
        "last"
    }

    fn build(&self, _: &[Arc<Host>]) -> Arc<dyn Picker> {
        Arc::new(Self)
    }
}

impl Picker for Last {
    fn pick(&self, hosts: &[Arc<Host>], _: &mut PickContext<'_>) -> Option<usize> {
        hosts.len().checked_sub(1)
    }
}

/// Serves with both.
pub async fn run() -> Result<(), Box<dyn Error>> {
    let origins = [common::origin("first").await?, common::origin("last").await?];
    let proxy = Proxy::start(ProxyOptions {
        filters: RegisteredFilters::from([("nothing-private".into(), Arc::new(NothingPrivate) as _)]),
        balancers: Balancers::from([("last".into(), Arc::new(Last) as _)]),
        ..ProxyOptions::default()
    })?;
    let mut config = common::config(true, &origins);
    config.clusters[0].lb_policy = LbPolicy::Registered("last".into());
    if let Terminal::Http(manager) = &mut config.listeners[0].filter_chains[0].terminal {
        let filter = FilterConfig::Registered("nothing-private".into());
        manager.http_filters.push(HttpFilter::new("nothing-private", filter));
    }
    proxy.apply(config).map_err(|errors| format!("{errors:?}"))?;
    let address = proxy.listener_addrs("edge")[0];
    for _ in 0..3 {
        let (status, body) = common::get(address, "/").await?;
        println!("/: {status} from {body}");
        assert_eq!(body, "last");
    }
    let (status, body) = common::get(address, "/private").await?;
    println!("/private: {status}: {body}");
    assert!(status.contains("404"));
    Ok(())
}
