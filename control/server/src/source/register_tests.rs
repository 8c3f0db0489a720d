//! Leases over time (paused clock) and over restarts.

use std::net::IpAddr;

use outrigger_api::outrigger::v1;

use super::*;
use crate::store::memory::MemoryStore;

fn identity(account: &str) -> Identity {
    Identity::new("cluster.local", "shop", account).unwrap()
}

fn workload(instance: &str, account: &str) -> Workload {
    let wire = v1::Workload {
        instance_id: instance.to_owned(),
        namespace: "shop".to_owned(),
        service_account: account.to_owned(),
        service: account.to_owned(),
        ..Default::default()
    };
    Workload::from_wire(wire, IpAddr::from([192, 0, 2, 1]), Reach::Network).unwrap()
}

async fn open(store: &SharedStore) -> Arc<Registry> {
    Arc::new(Registry::open(store.clone(), RegistrySettings::default()).await.unwrap())
}

fn names(registry: &Registry) -> Vec<String> {
    registry.workloads().borrow().iter().map(|workload| workload.instance_id.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn lease_lives_on_heartbeats_and_ends_without() {
    let store = SharedStore::new(MemoryStore::default());
    let registry = open(&store).await;
    let job = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.expire().await }
    });
    let cart = identity("cart");
    let id = registry.register(&cart, workload("one", "cart")).await.unwrap();
    registry.register(&cart, workload("two", "cart")).await.unwrap();
    assert_eq!(names(&registry), ["one", "two"]);
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(20)).await;
        registry.heartbeat(&cart, &id, None).await.unwrap();
    }
    assert_eq!(names(&registry), ["one"]);
    let mut watch = registry.workloads();
    let start = Instant::now();
    watch.mark_unchanged();
    watch.changed().await.unwrap();
    assert!(names(&registry).is_empty());
    assert_eq!(start.elapsed().as_secs(), 30);
    assert!(matches!(
        registry.heartbeat(&cart, &id, None).await,
        Err(RegistryError::Lease(LeaseError::Unknown))
    ));
    job.abort();
}

#[tokio::test(start_paused = true)]
async fn restart_removes_nobody_until_the_grace_period_is_over() {
    let store = SharedStore::new(MemoryStore::default());
    let cart = identity("cart");
    let id = {
        let registry = open(&store).await;
        registry.register(&cart, workload("silent", "cart")).await.unwrap();
        let id = registry.register(&cart, workload("alive", "cart")).await.unwrap();
        registry.heartbeat(&cart, &id, Some(Health::Draining)).await.unwrap();
        id
    };
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let registry = open(&store).await;
    assert_eq!(names(&registry), ["alive", "silent"]);
    assert_eq!(registry.workloads().borrow()[0].health, Health::Draining, "health is kept too");
    let job = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.expire().await }
    });
    tokio::time::advance(Duration::from_secs(100)).await;
    registry.heartbeat(&cart, &id, Some(Health::Healthy)).await.expect("the lease of before is good");
    let mut watch = registry.workloads();
    watch.mark_unchanged();
    let start = Instant::now();
    watch.changed().await.unwrap();
    assert_eq!((names(&registry), start.elapsed().as_secs()), (vec!["alive".to_owned()], 20));
    job.abort();
}

#[tokio::test]
async fn instance_registered_again_replaces_itself() {
    let store = SharedStore::new(MemoryStore::default());
    let registry = open(&store).await;
    let cart = identity("cart");
    let old = registry.register(&cart, workload("one", "cart")).await.unwrap();
    let new = registry.register(&cart, workload("one", "cart")).await.unwrap();
    assert_eq!(names(&registry), ["one"]);
    assert!(registry.heartbeat(&cart, &old, None).await.is_err());
    // The old process's farewell must not take the new one with it.
    registry.deregister(&cart, &old).await.unwrap();
    assert_eq!(names(&registry), ["one"]);
    registry.deregister(&cart, &new).await.unwrap();
    registry.deregister(&cart, &new).await.expect("twice is no error");
    assert!(names(&registry).is_empty());
    assert!(open(&store).await.workloads().borrow().is_empty(), "and gone from the store");
}

#[tokio::test]
async fn others_can_neither_claim_nor_touch_a_workload() {
    let store = SharedStore::new(MemoryStore::default());
    let registry = open(&store).await;
    let (cart, evil) = (identity("cart"), identity("evil"));
    let claimed = registry.register(&evil, workload("one", "cart")).await;
    assert!(matches!(claimed, Err(RegistryError::ForeignWorkload { .. })));
    let id = registry.register(&cart, workload("one", "cart")).await.unwrap();
    let taken = registry.register(&evil, workload("one", "evil")).await;
    assert!(matches!(taken, Err(RegistryError::Lease(LeaseError::NotYours))));
    let drained = registry.heartbeat(&evil, &id, Some(Health::Draining)).await;
    assert!(matches!(drained, Err(RegistryError::Lease(LeaseError::NotYours))));
    let ended = registry.deregister(&evil, &id).await;
    assert!(matches!(ended, Err(RegistryError::Lease(LeaseError::NotYours))));
    assert_eq!(registry.workloads().borrow()[0].health, Health::Healthy);
}

#[test]
fn table_is_full_at_its_limit() {
    let mut table = LeaseTable::default();
    let cart = identity("cart");
    let template = workload("x", "cart");
    for n in 0..lease::LEASES_MAX {
        let workload = Workload { instance_id: n.to_string(), ..template.clone() };
        assert!(table.check(&cart, &workload).is_ok());
        let (id, expires) = (n.to_string(), Instant::now());
        table.insert(
            Lease { id, identity: cart.clone(), said: workload.health, seen: None, workload, expires },
            expires,
        );
    }
    assert_eq!(table.check(&cart, &template), Err(LeaseError::Full));
    let known = Workload { instance_id: "7".to_owned(), ..template };
    assert_eq!(table.check(&cart, &known), Ok(()), "who is in may register again");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_removed_while_everybody_is_silent() {
    let store = SharedStore::new(MemoryStore::default());
    let registry = open(&store).await;
    let job = tokio::spawn({
        let registry = Arc::clone(&registry);
        async move { registry.expire().await }
    });
    let cart = identity("cart");
    let one = registry.register(&cart, workload("one", "cart")).await.unwrap();
    registry.register(&cart, workload("two", "cart")).await.unwrap();
    let mut watch = registry.workloads();
    watch.mark_unchanged();
    let start = Instant::now();
    let quiet = tokio::time::timeout(Duration::from_secs(3_600), watch.changed()).await;
    assert!(quiet.is_err(), "an hour of silence removes nobody");
    assert_eq!(names(&registry), ["one", "two"]);

    // The network is back: who is heard stays, who is not leaves after the grace period.
    for _ in 0..7 {
        registry.heartbeat(&cart, &one, None).await.unwrap();
        assert_eq!(names(&registry), ["one", "two"]);
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    registry.heartbeat(&cart, &one, None).await.unwrap();
    watch.changed().await.unwrap();
    assert_eq!(names(&registry), ["one"]);
    assert_eq!(start.elapsed().as_secs(), 3_600 + 120);

    // Silence for a day is the end of it.
    registry.register(&cart, workload("two", "cart")).await.unwrap();
    registry.heartbeat(&cart, &one, None).await.unwrap();
    watch.mark_unchanged();
    let start = Instant::now();
    watch.changed().await.unwrap();
    assert!(names(&registry).is_empty());
    assert!(start.elapsed() >= SILENCE_MAX);
    job.abort();
}

#[tokio::test]
async fn workload_that_says_more_than_was_granted_is_refused_with_every_reason() {
    let store = SharedStore::new(MemoryStore::default());
    let registry = open(&store).await;
    let with = |service: &str, label: Option<(&str, &str)>, gateway: bool| {
        let labels = label.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let wire = v1::Workload {
            instance_id: "one".to_owned(),
            namespace: "shop".to_owned(),
            service_account: "cart".to_owned(),
            service: service.to_owned(),
            labels: labels.into_iter().collect(),
            gateway,
            ..Default::default()
        };
        Workload::from_wire(wire, IpAddr::from([192, 0, 2, 1]), Reach::Network).unwrap()
    };
    let cart = identity("cart");
    let claims =
        || [with("payment", None, false), with("cart", Some(("tier", "db")), false), with("", None, true)];
    for claim in claims() {
        let refused = registry.register(&cart, claim).await.unwrap_err();
        assert!(matches!(refused, RegistryError::NotGranted { .. }), "{refused}");
    }
    let all =
        registry.register(&cart, with("payment", Some(("tier", "db")), true)).await.unwrap_err().to_string();
    for word in
        ["service \"payment\"", "granted: cart", "label \"tier\"", "gateway", "outrigger token create"]
    {
        assert!(all.contains(word), "{word}: {all}");
    }
    assert!(names(&registry).is_empty());

    let granted = crate::identity::Grant {
        services: ["payment".to_owned(), "cart".to_owned()].into(),
        labels: [("tier".to_owned(), ["db".to_owned()].into())].into(),
        gateway: true,
    };
    store.commit(vec![grant::change("shop", "cart", &granted).unwrap()], 0).await.unwrap();
    for claim in claims() {
        registry.register(&cart, claim).await.unwrap();
    }
    let other = registry.register(&identity("basket"), workload("two", "basket")).await;
    assert!(other.is_ok(), "another account's grant is its own");
}
