//! Clusters: one for each port of a service, and one more for each of its subsets.

use std::collections::BTreeSet;
use std::time::Duration;

use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, DnsFamily, EndpointAddress, Endpoints, Fraction, HttpUpstream,
    LbPolicy, OutlierDetection, TcpKeepalive, UpstreamTls,
};

use super::endpoints::{self, Nearness};
use super::{gateway, tls};
use crate::inventory::{Discovery, Instance, InstancePort, Service};
use crate::name;
use crate::node::{Flavour, NodeKind};
use crate::protocol::Protocol;
use crate::resource::destination_rule::{Balancer, Outliers, Pool, Settings, Subset, TlsMode};
use crate::scope::Scope;

/// Retries at a time towards one cluster. Envoy's default of 3 gives up on most requests of a host that went away under
/// load; the number of requests at a time is limited anyway, and each makes few attempts.
const MAX_RETRIES: u32 = 1024;

/// Adds the clusters a node needs: a sidecar can be asked for any service it sees, others use what their routes name.
pub fn assemble(scope: &Scope<'_>, config: &mut Config) {
    if scope.node.kind == NodeKind::Sidecar {
        for service in scope.services() {
            let subsets: Vec<&Subset> =
                scope.rule(service).map(|(_, rule)| rule.subsets.iter().collect()).unwrap_or_default();
            for port in service.ports.keys() {
                add(scope, config, service, *port, None);
                for subset in &subsets {
                    add(scope, config, service, *port, Some(*subset));
                }
            }
        }
        return;
    }
    for (host, port, subset) in scope.used() {
        let Some(service) = scope.service(&host).filter(|s| s.ports.contains_key(&port)) else { continue };
        match subset {
            None => add(scope, config, service, port, None),
            Some(name) => {
                if let Some(subset) = scope.subset(service, &name) {
                    add(scope, config, service, port, Some(subset));
                }
            }
        }
    }
}

/// How a cluster's hosts are spoken to.
enum Hop {
    /// TLS of the mesh.
    Mesh,
    /// Plaintext.
    Plain,
    /// TLS of a DestinationRule.
    Own(Box<UpstreamTls>),
    /// The rule names a Secret that is not there: nothing is sent rather than something unprotected.
    Nothing,
}

fn add(scope: &Scope<'_>, config: &mut Config, service: &Service, port: u16, subset: Option<&Subset>) {
    let Some(known) = service.ports.get(&port) else { return };
    let settings = scope.settings(service, port, subset);
    let hop = hop(scope, config, service, port, known.protocol, &settings);
    let name = name::outbound_cluster(&service.host, port, subset.map(|s| s.name.as_str()));
    let wanted = |instance: &Instance, at: &InstancePort| {
        let in_subset = subset.is_none_or(|s| instance.has_labels(&s.labels));
        in_subset && (!matches!(hop, Hop::Mesh) || at.takes_mesh_tls) && !matches!(hop, Hop::Nothing)
    };
    let nearness = Nearness::new(scope.node, settings.locality.as_ref());
    let found = endpoints::of(&name, service, port, &nearness, wanted);
    let (discovery, eds) = discovery(service, &name, found);
    let mut cluster = Cluster::new(name, discovery);
    // gRPC libraries know round robin everywhere, others only behind switches, and reject the cluster for them.
    let grpc = scope.node.flavour == Flavour::Grpc;
    let wanted = settings.balancer.filter(|_| !grpc);
    let default = if grpc { Balancer::RoundRobin } else { Balancer::LeastRequest };
    cluster.lb_policy = match wanted.unwrap_or(default) {
        _ if settings.hash.is_some() && !grpc => {
            settings.hash.as_ref().map_or(LbPolicy::RoundRobin, |hash| hash.policy.clone())
        }
        Balancer::LeastRequest => LbPolicy::least_request(),
        Balancer::RoundRobin => LbPolicy::RoundRobin,
        Balancer::Random => LbPolicy::Random,
    };
    // A rule for one port or subset may have changed the policy that a more general one warms up.
    if matches!(cluster.lb_policy, LbPolicy::LeastRequest(_) | LbPolicy::RoundRobin) {
        cluster.slow_start = settings.warmup.clone();
    }
    // Istio's default: a host that was set aside stays aside, unless `minHealthPercent` says otherwise.
    cluster.healthy_panic_threshold = Fraction::ZERO;
    cluster.circuit_breakers.default.max_retries = MAX_RETRIES;
    cluster.labels = labels(service);
    let pool = settings.pool.clone().unwrap_or_default();
    speak(&mut cluster, known.protocol, &hop, &pool);
    apply_pool(&mut cluster, &pool);
    if let Some(outliers) = &settings.outliers {
        apply_outliers(&mut cluster, outliers);
    }
    cluster.tls = match hop {
        Hop::Mesh => Some(mesh_tls(scope, service, port, subset, known.protocol, &settings, &cluster)),
        Hop::Own(tls) => Some(*tls),
        Hop::Plain | Hop::Nothing => None,
    };
    if matches!(&cluster.tls, Some(tls) if tls.alpn.is_empty()) && cluster.http.protocol == HttpUpstream::Auto
    {
        cluster.http.protocol = HttpUpstream::Http1;
    }
    // Settings of a protocol that is not spoken have no meaning, and no place on the wire.
    match cluster.http.protocol {
        HttpUpstream::Http1 => cluster.http.http2 = Default::default(),
        HttpUpstream::Http2 => cluster.http.http1 = Default::default(),
        HttpUpstream::Downstream | HttpUpstream::Auto => {}
    }
    config.clusters.push(cluster);
    config.endpoints.extend(eds);
}

fn labels(service: &Service) -> Vec<(String, String)> {
    let short = service.short.clone().unwrap_or_else(|| service.host.clone());
    vec![
        ("destination_service".into(), service.host.clone()),
        ("destination_service_name".into(), short),
        ("destination_service_namespace".into(), service.namespace.clone()),
    ]
}

/// Where mesh TLS is not switched off or on by a rule, it is used as soon as one instance takes it; instances that do
/// not are left out then, for a connection to them would be unprotected by chance.
fn hop(
    scope: &Scope<'_>,
    config: &mut Config,
    service: &Service,
    port: u16,
    protocol: Protocol,
    settings: &Settings,
) -> Hop {
    if scope.node.flavour == Flavour::Grpc {
        return Hop::Plain;
    }
    let takes = |i: &&Instance| i.ports.get(&port).is_some_and(|at| at.takes_mesh_tls);
    let serving = service.instances.iter().filter(|i| i.ports.contains_key(&port)).count();
    let able = service.instances.iter().filter(takes).count();
    let told = settings.tls.as_ref().map(|tls| (tls, tls.mode));
    match told {
        Some((_, TlsMode::Disable)) => return Hop::Plain,
        Some((tls, TlsMode::Simple | TlsMode::Mutual)) => {
            let secret = match gateway::credential(scope, config, &tls.credential_name) {
                Some(names) => Some(names),
                None if tls.credential_name.is_empty() => None,
                None => {
                    let text = format!(
                        "no Secret {:?} in namespace {:?}: nothing is sent to {}",
                        tls.credential_name, scope.node.namespace, service.host
                    );
                    scope.notice(rule_label(scope, service), text);
                    return Hop::Nothing;
                }
            };
            let alpn: &[&str] = match protocol {
                Protocol::Http | Protocol::Https => &["h2", "http/1.1"],
                Protocol::Http2 | Protocol::Grpc => &["h2"],
                Protocol::Tcp | Protocol::Tls => &[],
            };
            return tls::own_upstream(tls, &service.host, secret.as_ref(), alpn)
                .map_or(Hop::Plain, |tls| Hop::Own(Box::new(tls)));
        }
        Some((_, TlsMode::IstioMutual)) => {}
        None if able == 0 => return Hop::Plain,
        None => {}
    }
    if able < serving {
        let text = format!(
            "{} of {serving} instances of port {port} do not take mesh TLS and are left out",
            serving - able
        );
        scope.notice(format!("service/{}", service.host), text);
    }
    Hop::Mesh
}

fn rule_label(scope: &Scope<'_>, service: &Service) -> String {
    scope.rule(service).map(|(object, _)| object.label()).unwrap_or_default()
}

fn mesh_tls(
    scope: &Scope<'_>,
    service: &Service,
    port: u16,
    subset: Option<&Subset>,
    protocol: Protocol,
    settings: &Settings,
    cluster: &Cluster,
) -> UpstreamTls {
    let told: &[String] =
        settings.tls.as_ref().map(|tls| tls.subject_alt_names.as_slice()).unwrap_or_default();
    let mut identities: BTreeSet<String> = BTreeSet::new();
    if !told.is_empty() {
        identities.extend(told.iter().cloned());
    } else if !service.subject_alt_names.is_empty() {
        identities.extend(service.subject_alt_names.iter().cloned());
    } else {
        let serving =
            service.instances.iter().filter(|i| i.ports.get(&port).is_some_and(|at| at.takes_mesh_tls));
        let in_subset = serving.filter(|i| subset.is_none_or(|s| i.has_labels(&s.labels)));
        identities.extend(in_subset.filter_map(|i| i.identity.clone()));
    }
    let identities: Vec<String> = identities.into_iter().collect();
    let alpn: &[&str] = match cluster.http.protocol {
        HttpUpstream::Http2 => &["h2"],
        HttpUpstream::Http1 if protocol.is_http() => &["http/1.1"],
        HttpUpstream::Http1 | HttpUpstream::Downstream | HttpUpstream::Auto => &[],
    };
    tls::mesh_upstream(
        &scope.world.settings,
        &identities,
        &service.namespace,
        name::server_name(&service.host, port),
        alpn,
    )
}

/// Between two sidecars requests travel as HTTP/2 inside mutual TLS, many on one connection, whatever the applications
/// speak: a hop then costs half (docs/adr: the inner hop is HTTP/2).
fn speak(cluster: &mut Cluster, protocol: Protocol, hop: &Hop, pool: &Pool) {
    let wants_h1 = pool.upgrade == Some(false) && protocol == Protocol::Http;
    cluster.http.protocol = match (protocol, hop) {
        _ if pool.use_client_protocol && protocol.is_http() => HttpUpstream::Downstream,
        (Protocol::Http2 | Protocol::Grpc, _) => HttpUpstream::Http2,
        (Protocol::Http, Hop::Mesh) if !wants_h1 => HttpUpstream::Http2,
        (Protocol::Http, Hop::Plain | Hop::Nothing) if pool.upgrade == Some(true) => HttpUpstream::Http2,
        (Protocol::Http | Protocol::Https, Hop::Own(_)) if !wants_h1 => HttpUpstream::Auto,
        (Protocol::Http | Protocol::Https | Protocol::Tls | Protocol::Tcp, _) => HttpUpstream::Http1,
    };
    if matches!(hop, Hop::Mesh) {
        // WebSockets cross the inner hop as extended CONNECT (RFC 8441).
        cluster.http.http2.allow_connect = protocol.is_http();
        cluster.http.http1.enable_trailers = true;
        // A host that lost its power answers nothing; without probes its connections would look alive for hours.
        cluster.tcp_keepalive = Some(TcpKeepalive {
            probes: Some(3),
            time: Some(Duration::from_secs(60)),
            interval: Some(Duration::from_secs(10)),
        });
    }
}

fn discovery(service: &Service, name: &str, found: Endpoints) -> (ClusterDiscovery, Option<Endpoints>) {
    let named = found
        .localities
        .iter()
        .flat_map(|l| &l.endpoints)
        .any(|e| matches!(e.address, EndpointAddress::Name(..)));
    let refresh_rate = Duration::from_secs(5);
    let family = DnsFamily::Auto;
    match service.discovery {
        Discovery::Dns if named => {
            (ClusterDiscovery::StrictDns { endpoints: found, refresh_rate, respect_ttl: true, family }, None)
        }
        Discovery::DnsRoundRobin if named => {
            (ClusterDiscovery::LogicalDns { endpoints: found, refresh_rate, respect_ttl: true, family }, None)
        }
        Discovery::Addresses | Discovery::Dns | Discovery::DnsRoundRobin => {
            (ClusterDiscovery::Eds { service_name: name.to_owned() }, Some(found))
        }
    }
}

fn apply_pool(cluster: &mut Cluster, pool: &Pool) {
    let limits = &mut cluster.circuit_breakers.default;
    let set = |limit: &mut u32, told: Option<u32>| *limit = told.unwrap_or(*limit);
    set(&mut limits.max_connections, pool.max_connections);
    set(&mut limits.max_pending_requests, pool.max_pending_requests);
    set(&mut limits.max_requests, pool.max_requests);
    set(&mut limits.max_retries, pool.max_retries);
    set(&mut cluster.http.http2.max_concurrent_streams, pool.max_concurrent_streams);
    cluster.connect_timeout = pool.connect_timeout.unwrap_or(cluster.connect_timeout);
    cluster.http.idle_timeout = pool.idle_timeout.or(cluster.http.idle_timeout);
    cluster.http.max_connection_duration = pool.max_connection_duration;
    cluster.http.max_requests_per_connection = pool.max_requests_per_connection.filter(|n| *n > 0);
    if let Some((probes, time, interval)) = pool.keepalive {
        cluster.tcp_keepalive = Some(TcpKeepalive { probes, time, interval });
    }
}

fn apply_outliers(cluster: &mut Cluster, told: &Outliers) {
    let mut detection = OutlierDetection {
        split_external_local_origin_errors: told.split_local,
        ..OutlierDetection::default()
    };
    // Istio's resource has no word for ejection by statistics, and Istio switches it off.
    detection.success_rate.enforcing = Fraction::ZERO;
    detection.success_rate.enforcing_local_origin = Fraction::ZERO;
    let enforce = |count: u32| if count > 0 { Fraction::ONE } else { Fraction::ZERO };
    // Zero means "off" in Istio; Envoy wants a count above zero and a share of enforcement.
    if let Some(count) = told.consecutive_5xx {
        detection.consecutive_5xx = count.max(1);
        detection.enforcing_consecutive_5xx = enforce(count);
    }
    if let Some(count) = told.consecutive_gateway {
        detection.consecutive_gateway_failure = count.max(1);
        detection.enforcing_consecutive_gateway_failure = enforce(count);
    }
    if let Some(count) = told.consecutive_local {
        detection.consecutive_local_origin_failure = count.max(1);
        detection.enforcing_consecutive_local_origin_failure = enforce(count);
    }
    detection.interval = told.interval.unwrap_or(detection.interval);
    detection.base_ejection_time = told.base_ejection_time.unwrap_or(detection.base_ejection_time);
    detection.max_ejection_time = detection.max_ejection_time.max(detection.base_ejection_time);
    detection.max_ejection_percent = told.max_ejection_percent.unwrap_or(detection.max_ejection_percent);
    cluster.healthy_panic_threshold = Fraction::from_percent(told.min_health_percent.unwrap_or(0));
    cluster.outlier_detection = Some(detection);
}
