//! Names in DNS whose addresses are instances of services.
//!
//! A name that cannot be resolved keeps the addresses it had: a name server that is away takes nobody away. A name that
//! resolves to nothing has none.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::config::{
    ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::{Resolver, TokioResolver};

use super::catalog::{Found, Reading, Sink};
use super::fact::{Draft, DraftPort};
use super::settings::{DnsName, DnsSettings, Records};
use super::workload::{Health, Protocol, Reach};

/// Most instances of one name.
pub const INSTANCES_MAX: usize = 1_000;

/// Shortest time between two questions for a name, however short its TTL is.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// Where one instance is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Place {
    address: IpAddr,
    port: u16,
    weight: u32,
}

/// What is known of a name.
#[derive(Default)]
struct Known {
    places: Option<Vec<Place>>,
    ask_again: Option<Instant>,
}

/// Asks, and asks again when an answer is too old, for ever.
pub async fn run(settings: DnsSettings, sink: Sink, reach: Reach) {
    let interval = Duration::from_secs(settings.interval_seconds);
    let mut known: Vec<Known> = settings.names.iter().map(|_| Known::default()).collect();
    let resolver = loop {
        match resolver(&settings) {
            Ok(resolver) => break resolver,
            Err(error) => sink.fail(&error),
        }
        tokio::time::sleep(interval).await;
    };
    loop {
        let mut failure: Option<String> = None;
        for (name, known) in settings.names.iter().zip(&mut known) {
            let now = Instant::now();
            if known.ask_again.is_some_and(|at| at > now) {
                continue;
            }
            let pause = match ask(&resolver, name).await {
                Ok((places, ttl)) => {
                    known.places = Some(places);
                    ttl.clamp(PAUSE_MIN, interval.max(PAUSE_MIN))
                }
                Err(error) => {
                    failure.get_or_insert(format!("{}: {error}", name.host));
                    PAUSE_MIN.max(interval / 10)
                }
            };
            known.ask_again = Instant::now().checked_add(pause);
        }
        // Until every name was resolved once, what an earlier run knew stays.
        if known.iter().all(|known| known.places.is_some()) {
            sink.replace(found(&settings.names, &known, sink.name(), reach), Reading::Full);
        }
        if let Some(failure) = failure {
            sink.fail(&failure);
        }
        let next = known.iter().filter_map(|known| known.ask_again).min();
        let wait = next.map_or(interval, |at| at.saturating_duration_since(Instant::now()));
        tokio::time::sleep(wait.max(Duration::from_millis(50))).await;
    }
}

fn resolver(settings: &DnsSettings) -> Result<TokioResolver, String> {
    let mut builder = if settings.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| error.to_string())?
    } else {
        let server = |address: &std::net::SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.to_vec())
        };
        let servers = settings.servers.iter().map(server).collect();
        let config = ResolverConfig::from_parts(None, Vec::new(), servers);
        Resolver::builder_with_config(config, TokioRuntimeProvider::default())
    };
    let options = builder.options_mut();
    options.use_hosts_file = ResolveHosts::Always;
    options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    options.cache_size = 0;
    builder.build().map_err(|error| error.to_string())
}

/// The places of a name, sorted, and how long the answer is good for.
async fn ask(resolver: &TokioResolver, name: &DnsName) -> Result<(Vec<Place>, Duration), String> {
    let ttl = |valid_until: Instant| valid_until.saturating_duration_since(Instant::now());
    let mut places = Vec::new();
    let good_for = match name.records {
        Records::Address => {
            let port = if name.port.target == 0 { name.port.number } else { name.port.target };
            match resolver.lookup_ip(name.host.as_str()).await {
                Ok(found) => {
                    places.extend(found.iter().map(|address| Place { address, port, weight: 1 }));
                    ttl(found.valid_until())
                }
                Err(error) if error.is_no_records_found() => PAUSE_MIN,
                Err(error) => return Err(error.to_string()),
            }
        }
        Records::Srv => match resolver.srv_lookup(name.host.as_str()).await {
            Ok(found) => {
                let records = || {
                    found.answers().iter().filter_map(|record| match &record.data {
                        RData::SRV(srv) => Some(srv),
                        _ => None,
                    })
                };
                // RFC 2782: only the records of the lowest priority are used while they can be reached, which is for
                // the proxies to find out; weight 0 is a very small one.
                let best = records().map(|srv| srv.priority).min();
                for srv in records().filter(|srv| Some(srv.priority) == best).take(INSTANCES_MAX) {
                    let target = srv.target.to_utf8();
                    let addresses = resolver.lookup_ip(target.as_str()).await;
                    let addresses = addresses.map_err(|error| format!("{target}: {error}"))?;
                    let weight = u32::from(srv.weight).max(1);
                    places.extend(addresses.iter().map(|address| Place { address, port: srv.port, weight }));
                }
                ttl(found.valid_until())
            }
            Err(error) if error.is_no_records_found() => PAUSE_MIN,
            Err(error) => return Err(error.to_string()),
        },
    };
    places.sort();
    places.dedup_by(|a, b| (a.address, a.port) == (b.address, b.port));
    places.truncate(INSTANCES_MAX);
    Ok((places, good_for))
}

fn found(names: &[DnsName], known: &[Known], source: &str, reach: Reach) -> Found {
    let mut found = Found::default();
    for (name, known) in names.iter().zip(known) {
        for place in known.places.iter().flatten() {
            match draft(name, place).check(source, reach) {
                Ok(workload) => found.workloads.push(workload),
                Err(unusable) => found.unusable.push(unusable),
            }
        }
    }
    found
}

fn draft(name: &DnsName, place: &Place) -> Draft {
    let port = &name.port;
    let labels: BTreeMap<String, String> = name.labels.clone();
    Draft {
        object: format!("{} {}", name.host, place.address),
        instance_id: format!("{}-{}-{}", name.service, place.address, place.port),
        namespace: name.namespace.clone(),
        service: name.service.clone(),
        service_account: String::new(),
        version: String::new(),
        address: place.address.to_string(),
        ports: vec![DraftPort {
            name: port.name.clone(),
            number: port.number,
            protocol: Protocol::parse(&port.protocol).unwrap_or(Protocol::Tcp),
            target: place.port,
            mesh_tls: port.mesh_tls,
        }],
        labels,
        locality: name.locality.clone(),
        weight: place.weight,
        health: Health::Healthy,
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
