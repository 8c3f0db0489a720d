//! Keeps every connected proxy's plan up to date.
//!
//! A change of workloads is planned at once: an instance that is gone must not be sent requests a moment
//! longer than needed. A change of resources waits [`DEBOUNCE`], so that ten resources applied one by one
//! are one plan. A proxy that connects is planned for at once. Whatever fails, a proxy keeps what it has.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use outrigger_plan::{NodeConfig, NodeKind, ProxyNode};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::planner::{Plan, Planner, Problem};
use super::proxy::{Proxy, ProxyStatus};
use super::table::{ConnectError, Found, ProxyKey, ProxyTable};
use super::world::World;
use crate::clock;
use crate::identity::{Claim, grant};
use crate::source::register::Workloads;
use crate::store::{SharedStore, StoreError};
use crate::telemetry::Metrics;

/// How long a change of resources waits for others, counted from the first one.
pub const DEBOUNCE: Duration = Duration::from_millis(50);

/// How long a proxy that left is still shown.
const FORGET_AFTER_MS: i64 = 15 * 60 * 1_000;

/// How long to wait after the store could not be read.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// See the module.
pub struct Publisher {
    pub(super) planner: Arc<dyn Planner>,
    pub(super) store: SharedStore,
    workloads: watch::Receiver<Workloads>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) prepared: ArcSwap<Prepared>,
    proxies: Mutex<ProxyTable>,
    /// Applies one after another, so that each is checked against what the one before left.
    pub(super) applying: tokio::sync::Mutex<()>,
    /// Grows with every acknowledgement, rejection, plan and departure: what `wait` waits for.
    pub(super) progress: watch::Sender<u64>,
    connected: Notify,
}

/// A world and how to plan for it.
pub(super) struct Prepared {
    pub(super) world: World,
    pub(super) plan: Arc<dyn Plan>,
}

impl Publisher {
    /// Reads what is stored and gets ready to plan for it.
    ///
    /// Resources that were accepted by an earlier version and are not understood any more stop the
    /// start: going on without them could open what they closed.
    ///
    /// *Errors*: the store's; the planner's problems as [`StartError::Resources`].
    pub async fn start(
        planner: Arc<dyn Planner>,
        store: SharedStore,
        workloads: watch::Receiver<Workloads>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StartError> {
        let known = workloads.borrow().clone();
        let world = World { workloads: known, ..read_resources(&store).await? };
        let plan = planner.prepare(&world).map_err(StartError::Resources)?;
        Ok(Arc::new(Self {
            planner,
            store,
            workloads,
            metrics,
            prepared: ArcSwap::from_pointee(Prepared { world, plan }),
            proxies: Mutex::default(),
            applying: tokio::sync::Mutex::default(),
            progress: watch::Sender::new(0),
            connected: Notify::new(),
        }))
    }

    /// The world of the newest plan.
    pub fn world(&self) -> World {
        self.prepared.load().world.clone()
    }

    /// Announces a proxy: `node` as it introduced itself, its namespace and service account those of its
    /// certificate; its workload is found here, and again whenever workloads change. Its first configuration
    /// follows as soon as it is planned; the channel holds `None` until then.
    ///
    /// *Errors*: [`ConnectError`].
    pub fn connect(
        self: &Arc<Self>,
        node: ProxyNode,
        user_agent: &str,
    ) -> Result<Subscription, ConnectError> {
        let now = clock::unix_ms();
        let key = ProxyKey::of(&node);
        let configs = {
            let mut proxies = self.lock();
            let proxy = proxies.admit(&node, now).inspect_err(|_| {
                self.metrics.proxies_refused.fetch_add(1, Ordering::Relaxed);
            })?;
            proxy.node = node;
            user_agent.clone_into(&mut proxy.user_agent);
            proxy.streams += 1;
            proxy.connected_at = now;
            proxy.disconnected_at = None;
            proxy.config.subscribe()
        };
        self.connected.notify_one();
        Ok(Subscription { key, configs, publisher: Arc::clone(self) })
    }

    /// Every proxy that is or was connected lately, by node id and identity.
    pub fn proxies(&self) -> Vec<ProxyStatus> {
        let now = clock::unix_ms();
        let mut lines: Vec<ProxyStatus> = self.lock().values().map(|proxy| proxy.status(now)).collect();
        lines.sort_by(|a, b| (&a.id, &a.name).cmp(&(&b.id, &b.name)));
        lines
    }

    /// Which proxy an operator means: by its node id while one identity uses it, or by the whole name.
    pub fn resolve(&self, text: &str) -> Found {
        self.lock().resolve(text)
    }

    /// What a proxy is to hold.
    pub fn config_of(&self, key: &ProxyKey) -> Option<Arc<NodeConfig>> {
        self.lock().find(key).and_then(|proxy| proxy.config.borrow().clone())
    }

    /// What of what this node says of itself goes beyond what its service account was granted, in words.
    ///
    /// *Errors*: the store's.
    pub async fn excess_of(&self, node: &ProxyNode) -> Result<Vec<String>, StoreError> {
        let grant = grant::read(&self.store, &node.namespace, &node.service_account).await?;
        let gateway = node.kind == NodeKind::Gateway;
        Ok(grant.excess(Claim { service: "", labels: &node.labels, gateway }))
    }

    /// How many are connected.
    pub fn connected_count(&self) -> usize {
        self.lock().connected().count()
    }

    /// Follows resources, workloads and proxies, for ever.
    pub async fn follow(self: Arc<Self>) {
        let mut revisions = self.store.watch();
        let mut workloads = self.workloads.clone();
        revisions.mark_changed();
        workloads.mark_changed();
        let mut policy_due: Option<Instant> = None;
        loop {
            let debounce = async {
                match policy_due {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() { return }
                    revisions.mark_unchanged();
                    policy_due = policy_due.or_else(|| Instant::now().checked_add(DEBOUNCE));
                }
                changed = workloads.changed() => {
                    if changed.is_err() { return }
                    let current = workloads.borrow_and_update().clone();
                    let world = World { workloads: current, ..self.world() };
                    self.replan(world).await;
                }
                () = debounce => {
                    policy_due = None;
                    match read_resources(&self.store).await {
                        Ok(mut read) => {
                            let held = self.world();
                            if *read.resources == *held.resources {
                                // Only our own records changed: what was made of the resources stays good.
                                read.resources = held.resources;
                            }
                            let world = World { workloads: workloads.borrow_and_update().clone(), ..read };
                            self.replan(world).await;
                        }
                        Err(error) => {
                            tracing::error!(%error, "resources not read");
                            policy_due = Instant::now().checked_add(RETRY_AFTER);
                        }
                    }
                }
                () = self.connected.notified() => self.plan_all().await,
            }
        }
    }

    /// Gets ready for a new world and plans for everybody.
    async fn replan(self: &Arc<Self>, world: World) {
        let planner = Arc::clone(&self.planner);
        let prepared = tokio::task::spawn_blocking(move || {
            let plan = planner.prepare(&world)?;
            Ok::<_, Vec<Problem>>(Prepared { world, plan })
        })
        .await;
        match prepared {
            Ok(Ok(prepared)) => self.prepared.store(Arc::new(prepared)),
            Ok(Err(problems)) => {
                self.metrics.plans_failed.fetch_add(1, Ordering::Relaxed);
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::error!(
                    problems = problems.len(),
                    first,
                    "no plan for the present world; proxies keep theirs"
                );
                return;
            }
            Err(error) => {
                tracing::error!(%error, "planning ended early; proxies keep what they have");
                return;
            }
        }
        self.plan_all().await;
    }

    /// Plans for every connected proxy with what is prepared.
    async fn plan_all(self: &Arc<Self>) {
        let nodes: Vec<ProxyNode> = {
            let now = clock::unix_ms();
            let mut proxies = self.lock();
            let keep = |proxy: &Proxy| {
                proxy.disconnected_at.is_none_or(|at| now.saturating_sub(at) < FORGET_AFTER_MS)
            };
            proxies.retain(keep);
            proxies.connected().map(|proxy| proxy.node.clone()).collect()
        };
        let publisher = Arc::clone(self);
        let planned = tokio::task::spawn_blocking(move || {
            let prepared = publisher.prepared.load_full();
            for node in nodes {
                let config = prepared.plan.assemble(&node);
                // What it holds already was compiled when it was new.
                let held = publisher.config_of(&ProxyKey::of(&node));
                let held = held.is_some_and(|held| held.version == config.version);
                let outcome = if held { Ok(config) } else { prepared.plan.check(&config).map(|()| config) };
                publisher.publish(&node, outcome, prepared.world.revision);
            }
        });
        if let Err(error) = planned.await {
            tracing::error!(%error, "planning ended early; proxies keep what they have");
        }
        self.progress.send_modify(|count| *count += 1);
    }

    fn publish(&self, node: &ProxyNode, outcome: Result<NodeConfig, Vec<Problem>>, revision: u64) {
        let mut proxies = self.lock();
        let Some(proxy) = proxies.find_mut(&ProxyKey::of(node)) else { return };
        self.metrics.plans.fetch_add(1, Ordering::Relaxed);
        match outcome {
            Ok(config) => {
                let version = config.version.clone();
                if proxy.publish(config, revision, clock::unix_ms()) {
                    tracing::debug!(
                        node = node.id,
                        config_version = version,
                        revision,
                        "configuration published"
                    );
                }
            }
            Err(problems) => {
                self.metrics.plans_failed.fetch_add(1, Ordering::Relaxed);
                let first = problems.first().map(ToString::to_string).unwrap_or_default();
                tracing::error!(node = node.id, first, "no plan; the proxy keeps what it has");
                proxy.plan_failed(problems);
            }
        }
    }

    /// The nodes a change must be checked for: those connected, and stand-ins.
    pub(super) fn nodes(&self, world: &World) -> BTreeMap<ProxyKey, ProxyNode> {
        let stand_ins = self.planner.stand_ins(world).into_iter();
        let mut nodes: BTreeMap<ProxyKey, ProxyNode> =
            stand_ins.map(|node| (ProxyKey::of(&node), node)).collect();
        let proxies = self.lock();
        nodes.extend(proxies.connected().map(|proxy| (ProxyKey::of(&proxy.node), proxy.node.clone())));
        nodes
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, ProxyTable> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_proxy(&self, key: &ProxyKey, act: impl FnOnce(&mut Proxy)) {
        if let Some(proxy) = self.lock().find_mut(key) {
            act(proxy);
        }
        self.progress.send_modify(|count| *count += 1);
    }
}

/// Why the publisher could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Stored resources are not understood.
    #[error("stored resources cannot be used: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Resources(Vec<Problem>),
}

/// The resources and the revision they are of. Read in one go: a revision that is a little too old only
/// means that the next reading follows soon.
async fn read_resources(store: &SharedStore) -> Result<World, StoreError> {
    let store = store.clone();
    let read = tokio::task::spawn_blocking(move || {
        let revision = store.blocking().revision()?;
        let resources = World::resources_of(store.blocking().list(None, None)?);
        Ok(World { revision, resources: Arc::new(resources), ..World::default() })
    });
    read.await.unwrap_or_else(|error| Err(StoreError::Backend(Box::new(error))))
}

/// A connected proxy, from the xDS server's side. Dropping it says that the stream has ended.
pub struct Subscription {
    key: ProxyKey,
    configs: watch::Receiver<Option<Arc<NodeConfig>>>,
    publisher: Arc<Publisher>,
}

impl Subscription {
    /// What the proxy is to hold, and its changes. `None` until the first plan is made.
    pub fn configs(&mut self) -> &mut watch::Receiver<Option<Arc<NodeConfig>>> {
        &mut self.configs
    }

    /// The proxy holds everything it subscribed to of this [`NodeConfig::version`].
    pub fn acknowledged(&self, version: &str) {
        self.publisher.metrics.acks.fetch_add(1, Ordering::Relaxed);
        self.publisher.with_proxy(&self.key, |proxy| proxy.acknowledged(version, clock::unix_ms()));
    }

    /// The proxy rejected resources of this [`NodeConfig::version`].
    pub fn rejected(&self, version: &str, type_url: &str, error: &str) {
        self.publisher.metrics.nacks.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(node = %self.key, config_version = version, type_url, error, "configuration rejected");
        self.publisher
            .with_proxy(&self.key, |proxy| proxy.rejected(version, type_url, error, clock::unix_ms()));
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.publisher.with_proxy(&self.key, |proxy| {
            proxy.streams = proxy.streams.saturating_sub(1);
            if proxy.streams == 0 {
                proxy.disconnected_at = Some(clock::unix_ms());
            }
        });
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
