//! Make before break: which of the accepted resources may take effect now.
//!
//! A listener or route table takes effect when what it points to is usable: its route table has arrived, its EDS clusters
//! have endpoints, its secrets are there. Until then its predecessor stays in force, with the clusters it needs, even
//! when the server has removed them. After [`HOLD_MAX`] it takes effect as it is, as Envoy's `initial_fetch_timeout` does.
//! Source: Envoy, "Cluster warming" and "Listener warming".

use super::held::{Held, HeldMap};
use super::refs::Refs;
use crate::ads::Kind;
use crate::ingredients::Ingredients;
use crate::source::FETCH_TIMEOUT;
use outrigger_traffic::config::{ClusterDiscovery, Config, Resource};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a resource waits for what it points to, where no source says it.
pub const HOLD_MAX: Duration = FETCH_TIMEOUT;

/// Resources that take effect together.
pub type Chosen = BTreeMap<(Kind, String), Arc<Resource>>;

/// What is in force, and since when the rest waits.
#[derive(Debug, Default)]
pub struct Warming {
    effective: BTreeMap<(Kind, String), Arc<Resource>>,
    waiting: HashMap<(Kind, String), Instant>,
    /// What has waited long enough and is not in force yet.
    overdue: HashMap<(Kind, String), Instant>,
}

impl Warming {
    /// The resources that may take effect at `now`. Does not change what is in force: see [`Self::commit`].
    pub fn choose(
        &mut self,
        accepted: &HeldMap,
        ingredients: &Ingredients,
        base: &Config,
        now: Instant,
    ) -> BTreeMap<(Kind, String), Arc<Resource>> {
        let ready = Ready::new(accepted, base);
        let mut chosen = BTreeMap::new();
        let (mut waiting, mut overdue) = (HashMap::new(), HashMap::new());
        for (key, held) in accepted {
            let pointed = match held.resource.as_ref() {
                Resource::Listener(_) | Resource::RouteConfig(_) => {
                    ready.is_ready(&held.resource) && has_ingredients(held, ingredients)
                }
                // A changed cluster waits for its secret and endpoints while the old one serves; a new one replaces nothing.
                Resource::Cluster(v) => !self.effective.contains_key(key) || ready.cluster_ready(&v.name),
                Resource::Endpoints(_) | Resource::Secret(_) => true,
            };
            let in_force = self.effective.get(key);
            let since = *self.waiting.get(key).or_else(|| self.overdue.get(key)).unwrap_or(&now);
            let is_overdue = hold(held, accepted).is_some_and(|hold| now.duration_since(since) >= hold);
            if pointed || in_force == Some(&held.resource) || is_overdue {
                if is_overdue {
                    overdue.insert(key.clone(), since);
                }
                chosen.insert(key.clone(), held.resource.clone());
                continue;
            }
            waiting.insert(key.clone(), since);
            if let Some(previous) = in_force {
                chosen.insert(key.clone(), previous.clone());
            }
        }
        self.keep_what_is_still_used(&mut chosen);
        (self.waiting, self.overdue) = (waiting, overdue);
        chosen
    }

    /// Whether exactly these are in force.
    pub fn is_in_force(&self, chosen: &BTreeMap<(Kind, String), Arc<Resource>>) -> bool {
        self.effective == *chosen
    }

    /// The chosen resources are in force now.
    pub fn commit(&mut self, chosen: BTreeMap<(Kind, String), Arc<Resource>>) {
        self.effective = chosen;
        self.overdue.clear();
    }

    /// One resource was replaced in force without a new choice.
    pub fn replace(&mut self, key: (Kind, String), resource: Arc<Resource>) {
        self.effective.insert(key, resource);
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Removed resources stay while something in force points to them: route tables and clusters of listeners, clusters of
    /// route tables (of those kept just now too), endpoints of clusters, and the secrets of all.
    fn keep_what_is_still_used(&self, chosen: &mut BTreeMap<(Kind, String), Arc<Resource>>) {
        let mut refs = refs_of(chosen);
        self.keep(Kind::RouteConfig, |refs| &refs.route_configs, &mut refs, chosen);
        self.keep(Kind::Cluster, |refs| &refs.clusters, &mut refs, chosen);
        self.keep(Kind::Endpoints, |refs| &refs.endpoints, &mut refs, chosen);
        self.keep(Kind::Secret, |refs| &refs.secrets, &mut refs, chosen);
    }

    fn keep(
        &self,
        kind: Kind,
        names: impl Fn(&Refs) -> &BTreeSet<String>,
        refs: &mut Refs,
        chosen: &mut BTreeMap<(Kind, String), Arc<Resource>>,
    ) {
        let mut kept = Vec::new();
        for name in names(refs) {
            let key = (kind, name.clone());
            if let (false, Some(old)) = (chosen.contains_key(&key), self.effective.get(&key)) {
                kept.push((key, old.clone()));
            }
        }
        for (key, old) in kept {
            add_refs(&old, refs);
            chosen.insert(key, old);
        }
    }
}

/// How long a resource waits for what it points to: as long as the sources of that say, and of what its clusters point
/// to; `None`: for ever.
fn hold(held: &Held, accepted: &HeldMap) -> Option<Duration> {
    let mut refs = Refs::default();
    add_refs(&held.resource, &mut refs);
    let clusters = refs.clusters.into_iter().filter_map(|name| accepted.get(&(Kind::Cluster, name)));
    let wanted = clusters.flat_map(|cluster| cluster.wanted.iter()).chain(held.wanted.iter());
    let mut longest = None;
    for one in wanted {
        longest = longest.max(Some(one.fetch_timeout?));
    }
    longest.or(Some(HOLD_MAX))
}

/// Whether the settings and scopes that it names have arrived, or need not be waited for.
fn has_ingredients(held: &Held, ingredients: &Ingredients) -> bool {
    let named = held.wanted.iter().filter(|one| one.kind.is_ingredient());
    let mut waited = named.filter(|one| one.fetch_timeout != Some(Duration::ZERO));
    waited.all(|one| ingredients.has(one.kind, &one.name))
}

/// What resources refer to.
fn refs_of(resources: &BTreeMap<(Kind, String), Arc<Resource>>) -> Refs {
    let mut refs = Refs::default();
    resources.values().for_each(|resource| add_refs(resource, &mut refs));
    refs
}

fn add_refs(resource: &Resource, refs: &mut Refs) {
    match resource {
        Resource::Listener(v) => refs.add_listener(v),
        Resource::RouteConfig(v) => refs.add_route_config(v),
        Resource::Cluster(v) => refs.add_cluster(v),
        Resource::Endpoints(_) | Resource::Secret(_) => {}
    }
}

/// Names that are usable.
struct Ready<'a> {
    accepted: &'a HeldMap,
    base: &'a Config,
}

impl<'a> Ready<'a> {
    fn new(accepted: &'a HeldMap, base: &'a Config) -> Self {
        Self { accepted, base }
    }

    fn has(&self, kind: Kind, name: &str) -> bool {
        self.accepted.contains_key(&(kind, name.to_owned()))
    }

    fn is_ready(&self, resource: &Resource) -> bool {
        let mut refs = Refs::default();
        match resource {
            Resource::Listener(v) => refs.add_listener(v),
            Resource::RouteConfig(v) => refs.add_route_config(v),
            Resource::Cluster(_) | Resource::Endpoints(_) | Resource::Secret(_) => {}
        }
        refs.route_configs.iter().all(|name| {
            self.has(Kind::RouteConfig, name) || self.base.route_configs.iter().any(|r| &r.name == name)
        }) && refs.clusters.iter().all(|name| self.cluster_ready(name))
            && refs.secrets.iter().all(|name| self.secret_ready(name))
    }

    /// A cluster that does not exist is not waited for: its requests are answered with 503, as in Envoy.
    fn cluster_ready(&self, name: &str) -> bool {
        let Some(held) = self.accepted.get(&(Kind::Cluster, name.to_owned())) else { return true };
        let Resource::Cluster(cluster) = held.resource.as_ref() else { return true };
        let mut refs = Refs::default();
        refs.add_cluster(cluster);
        let endpoints = match &cluster.discovery {
            ClusterDiscovery::Eds { service_name } => self.has(Kind::Endpoints, service_name),
            ClusterDiscovery::Static(_)
            | ClusterDiscovery::StrictDns { .. }
            | ClusterDiscovery::LogicalDns { .. }
            | ClusterDiscovery::OriginalDst(_) => true,
        };
        endpoints && refs.secrets.iter().all(|name| self.secret_ready(name))
    }

    fn secret_ready(&self, name: &str) -> bool {
        self.has(Kind::Secret, name) || self.base.secrets.iter().any(|s| s.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use outrigger_traffic::config::{
        Action, CertificateSource, Cluster, ClusterChoice, DownstreamTls, Endpoints, FilterChain,
        FilterChainMatch, HttpConnectionManager, Listener, Route, RouteAction, RouteConfig, RouteMatch,
        RouteSource, Secret, SecretValue, TcpProxy, Terminal, TlsCertificate, TlsParams, VirtualHost,
    };

    fn listener(tls: Option<&str>, terminal: Terminal) -> Resource {
        let mut listener = Listener::new("in".to_owned(), "127.0.0.1:1".parse().unwrap());
        listener.filter_chains.push(FilterChain {
            name: "c".into(),
            matches: FilterChainMatch::default(),
            tls: tls.map(|secret| DownstreamTls {
                certificates: vec![CertificateSource::Sds(secret.into())],
                validation: None,
                require_client_certificate: false,
                alpn: Vec::new(),
                params: TlsParams::default(),
                disable_stateless_session_resumption: false,
            }),
            transport_socket_connect_timeout: Duration::from_secs(1),
            network_filters: Vec::new(),
            terminal,
        });
        Resource::Listener(listener)
    }

    fn tcp(cluster: &str) -> Terminal {
        Terminal::Tcp(Box::new(TcpProxy {
            stat_prefix: "t".into(),
            cluster: ClusterChoice::Single(cluster.into()),
            idle_timeout: None,
            max_downstream_connection_duration: None,
            max_connect_attempts: 1,
            tunnel: None,
            access_log: Vec::new(),
        }))
    }

    fn http(table: &str) -> Terminal {
        let routes = RouteSource::Named(table.into());
        Terminal::Http(Box::new(HttpConnectionManager::new("h".to_owned(), routes)))
    }

    fn table(name: &str, cluster: &str) -> Resource {
        let route = Route {
            name: String::new(),
            matches: RouteMatch::prefix("/"),
            action: Action::Forward(Box::new(RouteAction::to(cluster.to_owned()))),
            headers: Default::default(),
            filters: None,
            per_request_buffer_limit_bytes: None,
            decorator: None,
            tracing: None,
        };
        let host = VirtualHost {
            name: "h".into(),
            domains: vec!["*".into()],
            routes: vec![route],
            ..VirtualHost::default()
        };
        Resource::RouteConfig(RouteConfig {
            name: name.into(),
            virtual_hosts: vec![host.into()],
            ..RouteConfig::default()
        })
    }

    fn cluster(name: &str) -> Resource {
        let eds = ClusterDiscovery::Eds { service_name: name.to_owned() };
        Resource::Cluster(Cluster::new(name.to_owned(), eds))
    }

    fn endpoints(name: &str) -> Resource {
        let (localities, overprovisioning_factor) = (Vec::new(), None);
        Resource::Endpoints(Endpoints { cluster_name: name.into(), localities, overprovisioning_factor })
    }

    fn secret(name: &str) -> Resource {
        let pair = TlsCertificate { chain_pem: "C".into(), key_pem: "K".into() };
        Resource::Secret(Secret { name: name.into(), value: SecretValue::Certificate(pair) })
    }

    fn held(list: Vec<Resource>) -> HeldMap {
        let entry = |resource: Resource| {
            let key = (crate::feed::held::kind_of(&resource), resource.name().to_owned());
            (
                key,
                Held {
                    version: "1".into(),
                    bytes: Arc::from([]),
                    resource: Arc::new(resource),
                    wanted: Arc::from([]),
                    came_from: Default::default(),
                },
            )
        };
        list.into_iter().map(entry).collect()
    }

    /// Names in force after `first`, then `second`, were accepted.
    fn in_force(first: Vec<Resource>, second: Vec<Resource>) -> (Vec<String>, bool) {
        let (mut warming, base, now) = (Warming::default(), Config::default(), Instant::now());
        for accepted in [first, second] {
            let chosen = warming.choose(&held(accepted), &Ingredients::default(), &base, now);
            warming.commit(chosen);
        }
        let names = warming.effective.keys().map(|(kind, name)| format!("{}/{name}", kind.word()));
        (names.collect(), warming.is_waiting())
    }

    #[test]
    fn secret_of_a_listener_in_force_stays_while_its_successor_waits_for_another() {
        let (names, waiting) = in_force(
            vec![listener(Some("old"), tcp("x")), secret("old")],
            vec![listener(Some("new"), tcp("x"))],
        );
        assert!(waiting && names.contains(&"secret/old".to_owned()), "{names:?}");
        let (names, waiting) = in_force(
            vec![listener(Some("old"), tcp("x")), secret("old")],
            vec![listener(Some("new"), tcp("x")), secret("new")],
        );
        assert!(!waiting && !names.contains(&"secret/old".to_owned()), "{names:?}");
    }

    #[test]
    fn cluster_of_a_kept_route_table_stays_with_its_endpoints() {
        let (names, waiting) = in_force(
            vec![listener(None, http("old")), table("old", "x"), cluster("x"), endpoints("x")],
            vec![listener(None, http("new"))],
        );
        assert!(waiting);
        for kept in ["route_config/old", "cluster/x", "endpoints/x"] {
            assert!(names.contains(&kept.to_owned()), "{kept}: {names:?}");
        }
    }

    #[test]
    fn changed_cluster_waits_for_its_new_secret_while_the_old_one_serves() {
        let with = |name: &str| {
            let Resource::Cluster(mut cluster) = cluster("x") else { panic!("a cluster") };
            cluster.tls = Some(outrigger_traffic::config::UpstreamTls {
                sni: String::new(),
                certificate: Some(CertificateSource::Sds(name.into())),
                validation: None,
                alpn: Vec::new(),
                params: TlsParams::default(),
                max_session_keys: 1,
            });
            Resource::Cluster(cluster)
        };
        let first = vec![listener(None, tcp("x")), with("old"), endpoints("x"), secret("old")];
        let (names, waiting) =
            in_force(first.clone(), vec![listener(None, tcp("x")), with("new"), endpoints("x")]);
        assert!(waiting && names.contains(&"secret/old".to_owned()), "{names:?}");
        let second = vec![listener(None, tcp("x")), with("new"), endpoints("x"), secret("new")];
        let (names, waiting) = in_force(first, second);
        assert!(!waiting && !names.contains(&"secret/old".to_owned()), "{names:?}");
    }
}
