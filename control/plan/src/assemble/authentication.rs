//! Which tokens requests may bring: RequestAuthentication into the JWT filter, and clusters for the servers with keys.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, DnsFamily, Endpoint, EndpointAddress, Endpoints, FilterConfig,
    HttpFilter, HttpTarget, HttpUpstream, JwtAuthn, JwtProvider, JwtRequirement, LocalityEndpoints,
    RemoteJwks, RouteMatch, SanMatch, SanType, StringMatch, Terminal, UpstreamTls, ValidationContext,
    ValidationSource,
};

use super::security::Guarded;
use super::tls;
use crate::inventory::has_labels;
use crate::name;
use crate::resource::Spec;
use crate::resource::request_authentication::{JwtRule, Keys, KeysUri};
use crate::scope::Scope;

/// Name of the filter; rules find its metadata by it.
pub const FILTER: &str = "envoy.filters.http.jwt_authn";

/// How the names of clusters outside of the mesh begin.
const OWN: &str = "keys|";

/// Key under which the claims of an accepted token are. Source: Istio.
pub const CLAIMS: &str = "payload";

/// How long keys of a server are used.
const CACHE: Duration = Duration::from_secs(300);

/// Difference of clocks that is tolerated.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// How often a name is resolved where DNS does not say.
const REFRESH: Duration = Duration::from_secs(60);

/// The JWT filter of a port; `None`: no RequestAuthentication concerns it. [`assemble`] adds the clusters that it asks.
pub fn filter(scope: &Scope<'_>, guarded: Guarded<'_>) -> Option<HttpFilter> {
    let root = &scope.world.settings.root_namespace;
    let mut rules: Vec<(String, &JwtRule)> = Vec::new();
    for object in &scope.world.resources {
        let Spec::RequestAuthentication(spec) = &object.spec else { continue };
        let namespace = &object.metadata.namespace;
        let here = namespace == guarded.namespace || namespace == root;
        if here && spec.selector.as_ref().is_none_or(|labels| has_labels(guarded.labels, labels)) {
            let name = |i| format!("{namespace}/{}/{i}", object.metadata.name);
            rules.extend(spec.rules.iter().enumerate().map(|(i, rule)| (name(i), rule)));
        }
    }
    if rules.is_empty() {
        return None;
    }
    let needs = requirement(rules.iter().map(|(name, _)| name.as_str()).collect());
    let providers = rules.into_iter().map(|(name, rule)| (name, provider(scope, rule))).collect();
    let authn = JwtAuthn {
        providers,
        rules: vec![(RouteMatch::prefix("/"), Some(needs))],
        bypass_cors_preflight: true,
        ..JwtAuthn::default()
    };
    Some(HttpFilter::new(FILTER, FilterConfig::Jwt(Box::new(authn))))
}

/// A token that is there must be good. Where several issuers look for tokens in the same place, a good one of any of them
/// is enough. Source: Istio, the meaning of several rules.
fn requirement(names: Vec<&str>) -> JwtRequirement {
    let one = |name: &&str| JwtRequirement::Provider((*name).to_owned(), Vec::new());
    let or_none = |name: &&str| JwtRequirement::Any(vec![one(name), JwtRequirement::AllowMissing]);
    match names.as_slice() {
        [single] => or_none(single),
        several => {
            let mut any: Vec<JwtRequirement> = several.iter().map(one).collect();
            any.push(JwtRequirement::All(several.iter().map(or_none).collect()));
            JwtRequirement::Any(any)
        }
    }
}

fn provider(scope: &Scope<'_>, rule: &JwtRule) -> JwtProvider {
    let (local_jwks, remote_jwks) = match &rule.keys {
        Keys::Inline(set) => (set.clone(), None),
        Keys::Uri(uri) => {
            let target = HttpTarget {
                cluster: cluster_name(scope, uri),
                https: uri.https,
                authority: uri.authority.clone(),
                path: uri.path.clone(),
                timeout: rule.timeout,
            };
            (String::new(), Some(RemoteJwks { cache: CACHE, ..RemoteJwks::at(target) }))
        }
    };
    JwtProvider {
        issuer: rule.issuer.clone(),
        audiences: rule.audiences.clone(),
        local_jwks,
        remote_jwks,
        forward: rule.forward_original_token,
        from_headers: rule.from_headers.clone(),
        from_params: rule.from_params.clone(),
        from_cookies: rule.from_cookies.clone(),
        forward_payload_header: rule.output_payload_to_header.clone(),
        clock_skew: CLOCK_SKEW,
        claim_to_headers: rule.output_claim_to_headers.clone(),
        payload_in_metadata: CLAIMS.to_owned(),
        space_delimited_claims: vec!["scope".to_owned(), "permission".to_owned()],
        ..JwtProvider::default()
    }
}

/// Name of the cluster that reaches a server: a service of the mesh has one, others get one of their own.
fn cluster_name(scope: &Scope<'_>, uri: &KeysUri) -> String {
    if let Some(service) = scope.service(&uri.host).filter(|service| service.ports.contains_key(&uri.port)) {
        scope.need(&service.host, uri.port, None);
        return name::outbound_cluster(&service.host, uri.port, None);
    }
    format!("{OWN}{}|{}|{}", if uri.https { "https" } else { "http" }, uri.port, uri.host)
}

/// Adds the clusters of servers with keys that the listeners name and that are no services of the mesh.
pub fn assemble(config: &mut Config) {
    let mut names = BTreeSet::new();
    let chains = config.listeners.iter().flat_map(|listener| &listener.filter_chains);
    for chain in chains {
        let Terminal::Http(http) = &chain.terminal else { continue };
        for filter in &http.http_filters {
            let FilterConfig::Jwt(authn) = &filter.config else { continue };
            let remote = authn.providers.values().filter_map(|provider| provider.remote_jwks.as_ref());
            names.extend(remote.map(|remote| remote.target.cluster.clone()));
        }
    }
    config.clusters.extend(names.iter().filter_map(|name| cluster(name)));
}

/// The cluster of a server outside of the mesh.
fn cluster(name: &str) -> Option<Cluster> {
    let mut parts = name.strip_prefix(OWN)?.splitn(3, '|');
    let (scheme, port, host) = (parts.next()?, parts.next()?.parse().ok()?, parts.next()?);
    let address = host.parse::<IpAddr>().ok();
    let mut endpoint = Endpoint::at(([127, 0, 0, 1], port).into());
    endpoint.address = match address {
        Some(ip) => EndpointAddress::Socket(SocketAddr::new(ip, port)),
        None => EndpointAddress::Name(host.to_owned(), port),
    };
    let endpoints = Endpoints {
        cluster_name: name.to_owned(),
        localities: vec![LocalityEndpoints { endpoints: vec![endpoint], ..LocalityEndpoints::default() }],
        overprovisioning_factor: None,
    };
    let discovery = match address {
        Some(_) => ClusterDiscovery::Static(endpoints),
        None => ClusterDiscovery::StrictDns {
            endpoints,
            refresh_rate: REFRESH,
            respect_ttl: true,
            family: DnsFamily::Auto,
        },
    };
    let mut made = Cluster::new(name, discovery);
    made.http.protocol = HttpUpstream::Http1;
    made.http.http2 = Default::default();
    made.tls = (scheme == "https").then(|| server_tls(host, address.is_some()));
    Some(made)
}

/// The server proves by a public certificate that it is the one of the URI.
fn server_tls(host: &str, is_address: bool) -> UpstreamTls {
    let kind = if is_address { SanType::Ip } else { SanType::Dns };
    UpstreamTls {
        sni: if is_address { String::new() } else { host.to_owned() },
        certificate: None,
        validation: Some(ValidationSource::Inline(ValidationContext {
            trusted_ca_pem: None,
            system_roots: true,
            sans: vec![SanMatch { kind, text: StringMatch::exact(host) }],
        })),
        alpn: vec!["http/1.1".to_owned()],
        params: tls::VERSIONS,
        max_session_keys: 1,
    }
}
