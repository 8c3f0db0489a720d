//! How hosts are picked: `DestinationRule`'s `loadBalancer`.

mod world;

use outrigger_traffic::config::{
    Action, Config, HashCookie, HashPolicy, HashSource, LbPolicy, Maglev, RingHash, RouteConfig,
};
use std::time::Duration;
use world::{planned, sidecar, workload};

fn rule(balancer: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: b, namespace: demo}}\nspec: {{host: b, trafficPolicy: {{loadBalancer: {balancer}}}}}\n"
    )
}

fn config(resources: &str) -> Config {
    let world = world::world(vec![workload("demo", "a", "v1", 1), workload("demo", "b", "v1", 2)], resources);
    planned(&world, &sidecar(&world, "a-v1-1")).config
}

/// The policy of b's cluster and the hash policies of the routes there.
fn balancing(config: &Config) -> (LbPolicy, Vec<Vec<HashPolicy>>) {
    const CLUSTER: &str = "outbound|8080||b.demo.mesh";
    let policy = config.clusters.iter().find(|c| c.name == CLUSTER).unwrap().lb_policy.clone();
    let of = |table: &RouteConfig| -> Vec<Vec<HashPolicy>> {
        let routes = table.virtual_hosts.iter().flat_map(|host| host.routes.clone());
        routes
            .filter_map(|route| match route.action {
                Action::Forward(action) if format!("{:?}", action.cluster).contains(CLUSTER) => {
                    Some(action.hash_policy)
                }
                _ => None,
            })
            .collect()
    };
    (policy, config.route_configs.iter().flat_map(of).collect())
}

#[test]
fn consistent_hash_sets_the_policy_of_the_cluster_and_of_its_routes() {
    let ring = |minimum_ring_size| LbPolicy::RingHash(RingHash { minimum_ring_size, ..RingHash::default() });
    let cookie = HashCookie {
        name: "sid".into(),
        ttl: Some(Duration::from_secs(60)),
        path: "/p".into(),
        attributes: Vec::new(),
    };
    for (text, source, policy) in [
        ("{httpHeaderName: X-User}", HashSource::Header { name: "x-user".into(), rewrite: None }, ring(1024)),
        (
            "{httpCookie: {name: sid, path: /p, ttl: 60s}, minimumRingSize: 9}",
            HashSource::Cookie(cookie),
            ring(9),
        ),
        ("{useSourceIp: true, ringHash: {minimumRingSize: 8}}", HashSource::SourceIp, ring(8)),
        (
            "{httpQueryParameterName: q, maglev: {tableSize: 101}}",
            HashSource::Query("q".into()),
            LbPolicy::Maglev(Maglev { table_size: 101, ..Maglev::default() }),
        ),
    ] {
        let (found, routes) = balancing(&config(&rule(&format!("{{consistentHash: {text}}}"))));
        assert_eq!(found, policy, "{text}");
        assert!(!routes.is_empty());
        assert!(
            routes.iter().all(|one| *one == [HashPolicy { source: source.clone(), terminal: false }]),
            "{routes:?}"
        );
    }
    let (found, routes) = balancing(&config(&rule("{simple: RANDOM}")));
    assert_eq!(found, LbPolicy::Random);
    assert!(routes.iter().all(Vec::is_empty));
}

#[test]
fn routes_of_a_virtual_service_say_it_too() {
    let service = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b, namespace: demo}\nspec: {hosts: [b], http: [{route: [{destination: {host: b}, weight: 100}]}]}\n";
    let (_, routes) =
        balancing(&config(&format!("{}{service}", rule("{consistentHash: {useSourceIp: true}}"))));
    assert!(!routes.is_empty());
    assert!(routes.iter().all(|one| one.len() == 1), "{routes:?}");
}

#[test]
fn warmup_makes_new_hosts_start_slowly() {
    use outrigger_traffic::config::{Fraction, SlowStart};
    let slow = |balancer: &str| {
        let config = config(&rule(balancer));
        config.clusters.into_iter().find(|c| c.name == "outbound|8080||b.demo.mesh").unwrap().slow_start
    };
    let whole = SlowStart {
        window: Duration::from_secs(60),
        aggression: 1.0,
        min_weight: Fraction::from_percent(10),
    };
    assert_eq!(slow("{simple: ROUND_ROBIN}"), None);
    assert_eq!(slow("{simple: ROUND_ROBIN, warmupDurationSecs: 60s}"), Some(whole.clone()));
    assert_eq!(slow("{warmup: {duration: 60s}}"), Some(whole.clone()));
    assert_eq!(
        slow("{simple: LEAST_REQUEST, warmup: {duration: 60s, minimumPercent: 25, aggression: 2.5}}"),
        Some(SlowStart { aggression: 2.5, min_weight: Fraction::from_percent(25), ..whole })
    );
}
