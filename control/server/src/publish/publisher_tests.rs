//! The publisher with a planner that is easy to see through: a proxy is sent the names of the resources
//! of its namespace and of all workloads.

use std::net::IpAddr;

use outrigger_api::outrigger::v1;
use outrigger_plan::NodeKind;
use outrigger_traffic::config::Config;
use serde_json::json;

use super::*;
use crate::identity::Identity;
use crate::publish::planner::Parsed;
use crate::publish::{ApplyError, Planner};
use crate::source::register::RegistrySettings;
use crate::source::{Reach, Registry, Workload};
use crate::store::memory::MemoryStore;
use crate::store::{Key, StoreError};

struct NamesPlanner;

struct Names(World);

impl Planner for NamesPlanner {
    fn parse(&self, text: &str) -> Result<Vec<Parsed>, Vec<Problem>> {
        let mut parsed = Vec::new();
        for word in text.split_whitespace() {
            let mut parts = word.splitn(4, '/');
            let (Some(namespace), Some(name), value, version) =
                (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return Err(vec![problem(word, "needs namespace/name/value")]);
            };
            parsed.push(Parsed {
                key: Key::new("Thing", namespace, name),
                object: json!({"kind": "Thing", "value": value.unwrap_or_default()}),
                resource_version: version.and_then(|version| version.parse().ok()),
            });
        }
        Ok(parsed)
    }

    fn prepare(&self, world: &World) -> Result<Arc<dyn Plan>, Vec<Problem>> {
        let bad = world.resources.values().find(|resource| resource.object["value"] == "senseless");
        match bad {
            Some(bad) => Err(vec![problem(&bad.key.to_string(), "makes no sense")]),
            None => Ok(Arc::new(Names(world.clone()))),
        }
    }

    fn stand_ins(&self, _world: &World) -> Vec<ProxyNode> {
        Vec::new()
    }
}

impl Plan for Names {
    fn assemble(&self, node: &ProxyNode) -> NodeConfig {
        let mine = self.0.resources.values().filter(|r| r.key.namespace == node.namespace);
        let mut names: Vec<String> = mine.map(|r| format!("{}={}", r.key.name, r.object["value"])).collect();
        names.extend(self.0.workloads.iter().map(|workload| workload.instance_id.clone()));
        NodeConfig {
            version: names.join(","),
            config: Config::default(),
            api_listeners: Vec::new(),
            notices: Vec::new(),
        }
    }

    fn check(&self, config: &NodeConfig) -> Result<(), Vec<Problem>> {
        if config.version.contains("poison") {
            Err(vec![problem("listener/x", "would be rejected")])
        } else {
            Ok(())
        }
    }
}

fn problem(resource: &str, reason: &str) -> Problem {
    Problem {
        resource: resource.to_owned(),
        path: String::new(),
        reason: reason.to_owned(),
        proxy: String::new(),
    }
}

fn node(id: &str, namespace: &str) -> ProxyNode {
    ProxyNode::without_workload(id, NodeKind::Sidecar, namespace, "app")
}

struct Fixture {
    publisher: Arc<Publisher>,
    registry: Arc<Registry>,
    job: tokio::task::JoinHandle<()>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.job.abort();
    }
}

async fn fixture() -> Fixture {
    let store = SharedStore::new(MemoryStore::default());
    let registry = Arc::new(Registry::open(store.clone(), RegistrySettings::default()).await.unwrap());
    let metrics = Arc::new(Metrics::default());
    let planner: Arc<dyn Planner> = Arc::new(NamesPlanner);
    let publisher = Publisher::start(planner, store, registry.workloads(), metrics).await.unwrap();
    let job = tokio::spawn(Arc::clone(&publisher).follow());
    Fixture { publisher, registry, job }
}

impl Fixture {
    async fn apply(&self, text: &str) -> Result<crate::publish::Applied, ApplyError> {
        self.publisher.apply(text.to_owned(), false).await
    }
}

/// The next configuration a proxy is sent.
async fn next(subscription: &mut Subscription) -> String {
    loop {
        subscription.configs().changed().await.unwrap();
        if let Some(config) = subscription.configs().borrow_and_update().clone() {
            return config.version.clone();
        }
    }
}

async fn register(registry: &Registry, instance: &str) -> String {
    let identity = Identity::new("cluster.local", "shop", "app").unwrap();
    let wire = v1::Workload {
        instance_id: instance.to_owned(),
        namespace: "shop".to_owned(),
        service_account: "app".to_owned(),
        ..Default::default()
    };
    let workload = Workload::from_wire(wire, IpAddr::from([192, 0, 2, 1]), Reach::Network).unwrap();
    registry.register(&identity, workload).await.unwrap()
}

#[tokio::test]
async fn proxy_is_sent_its_plan_and_only_when_it_changes() {
    let fixture = fixture().await;
    let mut shop = fixture.publisher.connect(node("shop-1", "shop"), "outrigger").unwrap();
    assert_eq!(next(&mut shop).await, "");
    fixture.apply("other/x/1 shop/a/1").await.unwrap();
    assert_eq!(next(&mut shop).await, "a=\"1\"");
    let applied = fixture.apply("other/x/2").await.unwrap();
    assert!(applied.affected_proxies.is_empty());
    let applied = fixture.apply("shop/a/2").await.unwrap();
    assert_eq!(applied.affected_proxies, ["shop/app/shop-1"]);
    assert_eq!(next(&mut shop).await, "a=\"2\"", "the other namespace's change was not sent");
}

#[tokio::test]
async fn workloads_reach_proxies_without_a_policy_change() {
    let fixture = fixture().await;
    let mut shop = fixture.publisher.connect(node("shop-1", "shop"), "outrigger").unwrap();
    next(&mut shop).await;
    let lease = register(&fixture.registry, "w1").await;
    assert_eq!(next(&mut shop).await, "w1");
    let identity = Identity::new("cluster.local", "shop", "app").unwrap();
    fixture.registry.deregister(&identity, &lease).await.unwrap();
    assert_eq!(next(&mut shop).await, "");
}

#[tokio::test]
async fn what_a_proxy_would_reject_is_refused_and_changes_nothing() {
    let fixture = fixture().await;
    let _shop = fixture.publisher.connect(node("shop-1", "shop"), "outrigger").unwrap();
    fixture.apply("shop/a/1").await.unwrap();
    let refused = fixture.apply("shop/b/1 shop/a/poison").await.unwrap_err();
    let ApplyError::Invalid(problems) = refused else { panic!("{refused}") };
    assert_eq!(
        (problems[0].proxy.as_str(), problems[0].reason.as_str()),
        ("shop/app/shop-1", "would be rejected")
    );
    assert!(matches!(fixture.apply("shop/a/senseless").await, Err(ApplyError::Invalid(_))));
    assert!(matches!(fixture.apply("nonsense").await, Err(ApplyError::Invalid(_))));
    assert!(
        matches!(fixture.apply("shop/a/1 shop/a/2").await, Err(ApplyError::Invalid(_))),
        "twice the same"
    );
    let held = fixture.publisher.store.list(None, None).await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!(held[0].value["value"], "1");
    // The same is fine for a namespace without a proxy that would be hurt.
    fixture.apply("other/a/poison").await.unwrap();
}

#[tokio::test]
async fn stale_version_is_a_conflict_and_dry_run_stores_nothing() {
    let fixture = fixture().await;
    let first = fixture.apply("shop/a/1").await.unwrap();
    assert_eq!(first.resources[0].action, "created");
    let version = first.resources[0].resource_version.clone().unwrap();
    let tried = fixture.publisher.apply("shop/a/2".to_owned(), true).await.unwrap();
    assert_eq!((tried.resources[0].action, tried.revision), ("configured", first.revision));
    assert_eq!(fixture.apply("shop/a/1").await.unwrap().resources[0].action, "unchanged");
    let changed = fixture.apply(&format!("shop/a/2/{version}")).await.unwrap();
    assert!(changed.revision > first.revision);
    let stale = fixture.apply(&format!("shop/a/3/{version}")).await.unwrap_err();
    assert!(matches!(stale, ApplyError::Store(StoreError::Conflict { .. })));
    let key = Key::new("Thing", "shop", "a");
    let gone = fixture.publisher.delete(key.clone(), None, false).await.unwrap();
    assert_eq!(gone.resources[0].action, "deleted");
    let again = fixture.publisher.delete(key, None, false).await;
    assert!(matches!(again, Err(ApplyError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn wait_ends_when_every_connected_proxy_has_acknowledged() {
    let fixture = fixture().await;
    let publisher = &fixture.publisher;
    let mut one = publisher.connect(node("one", "shop"), "outrigger").unwrap();
    let mut two = publisher.connect(node("two", "shop"), "outrigger").unwrap();
    for proxy in [&mut one, &mut two] {
        let version = next(proxy).await;
        proxy.acknowledged(&version);
    }
    let revision = fixture.apply("shop/a/1").await.unwrap().revision;
    let version = next(&mut one).await;
    one.acknowledged(&version);
    let waited = publisher.wait(revision, Duration::from_secs(5)).await;
    assert_eq!((waited.done, waited.pending), (false, vec!["shop/app/two".to_owned()]));

    let waiting = tokio::spawn({
        let publisher = Arc::clone(publisher);
        async move { publisher.wait(revision, Duration::from_secs(60)).await }
    });
    next(&mut two).await;
    two.acknowledged(&version);
    assert!(waiting.await.unwrap().done);

    let revision = fixture.apply("shop/a/2").await.unwrap().revision;
    let version = next(&mut two).await;
    two.rejected(&version, "type", "no");
    let waited = publisher.wait(revision, Duration::from_secs(60)).await;
    assert_eq!((waited.done, waited.rejected), (false, vec!["shop/app/two".to_owned()]));
    drop(two);
    // Plans are published one proxy after another: what one holds, the other may not have been sent yet.
    assert_eq!(next(&mut one).await, version);
    one.acknowledged(&version);
    assert!(publisher.wait(revision, Duration::from_secs(5)).await.done, "who left is not waited for");
}

#[tokio::test]
async fn node_id_in_use_by_one_identity_keeps_no_other_out() {
    let fixture = fixture().await;
    fixture.apply("shop/a/1 zoo/a/2").await.unwrap();
    let mut held = fixture.publisher.connect(node("x", "shop"), "outrigger").unwrap();
    let again = fixture.publisher.connect(node("x", "shop"), "outrigger").unwrap();
    let mut foreign = fixture.publisher.connect(node("x", "zoo"), "outrigger").unwrap();
    while next(&mut held).await != "a=\"1\"" {}
    while next(&mut foreign).await != "a=\"2\"" {}
    foreign.acknowledged("a=\"2\"");
    let state = |name: &str| {
        let found = fixture.publisher.proxies().into_iter().find(|proxy| proxy.name == name).unwrap();
        (found.id, found.state)
    };
    assert_eq!(state("shop/app/x"), ("x".to_owned(), "PENDING"), "the other's answer is not its own");
    assert_eq!(state("zoo/app/x"), ("x".to_owned(), "SYNCED"));
    drop(held);
    assert_eq!(fixture.publisher.connected_count(), 2, "a reconnect overlaps with the old stream");
    drop(again);
    assert_eq!(state("shop/app/x").1, "DISCONNECTED");
    assert_eq!(state("zoo/app/x").1, "SYNCED");
}

#[tokio::test]
async fn proxies_that_left_are_forgotten_when_room_is_needed() {
    use crate::publish::table::PROXIES_MAX;
    let fixture = fixture().await;
    for i in 0..PROXIES_MAX {
        drop(
            fixture.publisher.connect(node(&i.to_string(), &format!("n{}", i / 1_000)), "outrigger").unwrap(),
        );
    }
    assert_eq!(fixture.publisher.proxies().len(), PROXIES_MAX);
    let _held = fixture.publisher.connect(node("one more", "shop"), "outrigger").unwrap();
    assert_eq!(fixture.publisher.proxies().len(), PROXIES_MAX, "nobody makes us remember any number of them");
    assert_eq!(fixture.publisher.connected_count(), 1);
}
