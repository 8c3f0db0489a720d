//! The agent: follows docker, hands every container to a worker, looks at everything from time to time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;

use crate::capture::netns::RuleWriter;
use crate::config::AgentConfig;
use crate::docker::event::What;
use crate::docker::{Docker, DockerError};
use crate::identity::{IdentityKey, Mesh};
use crate::mailbox::Mailbox;
use crate::member::{Verdict, label};
use crate::metrics::Metrics;
use crate::sidecar::image::Image;
use crate::worker::{Worker, care};

/// Most containers cared for. ECS itself allows far fewer on a host.
pub const CONTAINERS_MAX: usize = 1024;

/// Sidecars made at a time, so that a host that starts does not start all of them at once.
const CREATING_MAX: usize = 4;

/// Bounds of the wait for docker.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How long what docker says of the image counts.
const IMAGE_FRESH: Duration = Duration::from_secs(5);

/// How often an image that is missing is fetched.
const PULL_PAUSE: Duration = Duration::from_secs(30);

/// Between two looks at the certificates.
const REFRESH: Duration = Duration::from_secs(60);

/// Longest time for giving one container back.
const OFFBOARD_MAX: Duration = Duration::from_secs(120);

/// See the module.
pub struct Agent {
    /// The settings.
    pub config: Arc<AgentConfig>,
    /// Where other hosts reach this one.
    pub address: IpAddr,
    /// Certificates and the registry.
    pub mesh: Box<dyn Mesh>,
    /// Writes rules; `None` where there is no program to do it with.
    pub writer: Option<Box<dyn RuleWriter>>,
    /// Counters.
    pub metrics: Metrics,
    /// Held while ports of the host are chosen and taken.
    pub ports: Arc<tokio::sync::Mutex<()>>,
    /// Places for making sidecars.
    pub creating: Semaphore,
    docker: Mutex<Docker>,
    image: tokio::sync::Mutex<ImageSeen>,
    workers: Mutex<HashMap<String, Arc<Mailbox>>>,
    seen: Mutex<BTreeMap<String, Verdict>>,
    reconciled: std::sync::atomic::AtomicBool,
}

#[derive(Default)]
struct ImageSeen {
    image: Option<Image>,
    looked: Option<Instant>,
    pulled: Option<Instant>,
}

impl Agent {
    /// An agent that does nothing yet.
    pub fn new(
        config: Arc<AgentConfig>,
        address: IpAddr,
        docker: Docker,
        mesh: Box<dyn Mesh>,
        writer: Option<Box<dyn RuleWriter>>,
    ) -> Self {
        Self {
            config,
            address,
            mesh,
            writer,
            metrics: Metrics::default(),
            ports: Arc::default(),
            creating: Semaphore::new(CREATING_MAX),
            docker: Mutex::new(docker),
            image: tokio::sync::Mutex::default(),
            workers: Mutex::default(),
            seen: Mutex::default(),
            reconciled: false.into(),
        }
    }

    /// Runs for ever; every task of its own ends with the runtime.
    pub async fn run(self: Arc<Self>) {
        let refreshed = self.clone();
        let refresh = tokio::spawn(async move { refreshed.keep_certificates().await });
        let mut wait = RETRY_FIRST;
        loop {
            let began = Instant::now();
            match self.follow().await {
                Ok(()) => tracing::warn!("docker's events ended"),
                Err(error) => tracing::warn!(%error, "docker cannot be followed"),
            }
            Metrics::set(&self.metrics.docker_connected, 0);
            Metrics::count(&self.metrics.docker_reconnects);
            if began.elapsed() > RETRY_MAX {
                wait = RETRY_FIRST;
            }
            tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            wait = (wait * 2).min(RETRY_MAX);
            if refresh.is_finished() {
                tracing::error!("certificates are not kept any more");
            }
        }
    }

    /// Events first and the look at everything after, so that nothing falls between the two.
    async fn follow(self: &Arc<Self>) -> Result<(), DockerError> {
        let docker = Docker::connect(&self.config.docker).await?;
        *lock(&self.docker) = docker.clone();
        let mut events = std::pin::pin!(docker.events());
        let mut tick = tokio::time::interval(Duration::from_secs(self.config.reconcile_seconds));
        Metrics::set(&self.metrics.docker_connected, 1);
        loop {
            // Both are cancel-safe: a stream's next item, a timer's tick. The look is not interrupted.
            let event = tokio::select! {
                event = events.next() => Some(event),
                _ = tick.tick() => None,
            };
            match event {
                Some(None) => return Ok(()),
                Some(Some(event)) => {
                    let event = event?;
                    Metrics::count(&self.metrics.events);
                    self.tell(&event.app, event.what);
                }
                None => self.reconcile(&docker).await?,
            }
        }
    }

    /// Has every container looked at that is a task's or has a sidecar, and clears away what belongs to none.
    async fn reconcile(self: &Arc<Self>, docker: &Docker) -> Result<(), DockerError> {
        Metrics::count(&self.metrics.reconciles);
        let mut apps = self.everything(docker).await?;
        lock(&self.seen).retain(|app, _| apps.contains(app));
        apps.extend(lock(&self.workers).keys().cloned());
        for app in apps {
            self.tell(&app, What::Changed);
        }
        self.sweep_state(docker).await?;
        self.reconciled.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    async fn everything(&self, docker: &Docker) -> Result<BTreeSet<String>, DockerError> {
        let mut apps: BTreeSet<String> = docker.tasks().await?.into_iter().collect();
        let sidecars = docker.sidecars().await?;
        // A sidecar of ours carries the task's ARN under another name, so it is not among the tasks.
        apps.extend(sidecars.iter().filter_map(|labels| labels.get(label::sidecar::FOR).cloned()));
        Ok(apps)
    }

    /// Tells the worker of a container, or starts one.
    fn tell(self: &Arc<Self>, app: &str, what: What) {
        let mut workers = lock(&self.workers);
        if let Some(mailbox) = workers.get(app)
            && mailbox.put(what)
        {
            return;
        }
        if workers.len() >= CONTAINERS_MAX && !workers.contains_key(app) {
            Metrics::count(&self.metrics.containers_over_limit);
            tracing::error!(limit = CONTAINERS_MAX, container = app, "too many containers; not cared for");
            return;
        }
        let mailbox = Arc::new(Mailbox::default());
        mailbox.put(what);
        workers.insert(app.to_owned(), mailbox.clone());
        Metrics::set(&self.metrics.containers, workers.len());
        let (agent, app) = (self.clone(), app.to_owned());
        tokio::spawn(async move {
            care(agent.clone(), app.clone(), mailbox.clone()).await;
            agent.forget(&app, &mailbox);
        });
    }

    fn forget(&self, app: &str, mailbox: &Arc<Mailbox>) {
        let mut workers = lock(&self.workers);
        // Another may have taken its place already.
        if workers.get(app).is_some_and(|other| Arc::ptr_eq(other, mailbox)) {
            workers.remove(app);
            Metrics::set(&self.metrics.containers, workers.len());
        }
    }

    async fn keep_certificates(&self) {
        loop {
            let counted = self.mesh.refresh().await;
            let (held, missing) = counted.unwrap_or((0, self.config.identities.len()));
            Metrics::set(&self.metrics.identities_held, held);
            Metrics::set(&self.metrics.identities_missing, missing);
            tokio::time::sleep(REFRESH.mul_f64(0.9 + fastrand::f64() / 5.0)).await;
        }
    }

    /// Prints what would be done, and does nothing.
    ///
    /// # Errors
    /// Docker's.
    pub async fn rehearse(self: &Arc<Self>) -> anyhow::Result<()> {
        let docker = self.docker();
        for app in self.everything(&docker).await? {
            let actions = Worker::new(self.clone(), app.clone()).rehearse().await?;
            let (short, verdict) = (app.get(..12).unwrap_or(&app), self.verdict(&app));
            match &verdict {
                Some(Verdict::Member(m)) => {
                    println!(
                        "{short} {}: {}.{} as {}",
                        m.container_name, m.service, m.namespace, m.service_account
                    );
                    m.notices.iter().for_each(|notice| println!("  note: {notice}"));
                }
                Some(Verdict::Refused(reasons)) => {
                    println!("{short}: cannot be a member: {}", reasons.join("; "))
                }
                Some(Verdict::NotOurs) if actions.is_empty() => println!("{short}: left alone"),
                _ => println!("{short}:"),
            }
            for action in actions {
                println!("  would {}", action.replace('\n', "\n    "));
            }
        }
        Ok(())
    }

    /// Gives every container back: out of the registry, rules away, sidecars drained and removed.
    ///
    /// # Errors
    /// Names what could not be given back.
    pub async fn offboard(self: &Arc<Self>) -> anyhow::Result<()> {
        let docker = self.docker();
        let mut failed = Vec::new();
        for app in self.everything(&docker).await? {
            let mut worker = Worker::offboarding(self.clone(), app.clone());
            let end = Instant::now() + OFFBOARD_MAX + self.drain();
            let mut last = None;
            loop {
                match worker.round().await {
                    Ok(made) if made.finished => break,
                    Ok(_) => {}
                    // The registry may be away; leases end by themselves.
                    Err(error) => last = Some(error),
                }
                if Instant::now() > end {
                    let reason = last.map_or_else(|| "not in time".to_owned(), |error| format!("{error:#}"));
                    failed.push(format!("{app}: {reason}"));
                    break;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        }
        anyhow::ensure!(failed.is_empty(), "not given back:\n  {}", failed.join("\n  "));
        Ok(())
    }

    /// The way to docker.
    pub fn docker(&self) -> Docker {
        lock(&self.docker).clone()
    }

    /// How long a sidecar may take from SIGTERM to its end.
    pub fn drain(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.sidecar.drain_seconds) + 10)
    }

    /// The sidecars' image, fetched where that is allowed; `None` when the host does not have it.
    ///
    /// # Errors
    /// Docker's.
    pub async fn image(&self, docker: &Docker) -> anyhow::Result<Option<Image>> {
        let name = &self.config.sidecar.image;
        let mut seen = self.image.lock().await;
        if seen.looked.is_some_and(|at| at.elapsed() < IMAGE_FRESH) && seen.image.is_some() {
            return Ok(seen.image.clone());
        }
        let mut image = docker.image(name).await.context("sidecar.image")?;
        let may = self.config.sidecar.pull && seen.pulled.is_none_or(|at| at.elapsed() > PULL_PAUSE);
        if image.is_none() && may {
            seen.pulled = Some(Instant::now());
            tracing::info!(image = name, "image is fetched");
            match docker.pull(name).await {
                Ok(()) => image = docker.image(name).await?,
                Err(error) => tracing::warn!(image = name, %error, "image cannot be fetched"),
            }
        }
        if image.is_none() {
            tracing::warn!(image = name, "the sidecars' image is not on this host: none can be made");
        }
        seen.looked = Some(Instant::now());
        seen.image.clone_from(&image);
        Ok(image)
    }

    /// The folder of a sidecar's state.
    pub fn state_of(&self, name: &str) -> PathBuf {
        self.config.state_dir.join("sidecar").join(name)
    }

    /// See [`crate::sidecar::state::inherit`].
    pub fn inherit_state(&self, name: &str, present: &[&str]) {
        let folder = self.config.state_dir.join("sidecar");
        match crate::sidecar::state::inherit(&folder, name, present, self.config.sidecar.uid) {
            Ok(true) => tracing::info!(sidecar = name, "goes on with what the one before it left"),
            Ok(false) => {}
            // The first sidecar of this host.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                tracing::warn!(sidecar = name, %error, "nothing is taken over from the one before it")
            }
        }
    }

    /// Removes a sidecar's key and state.
    pub fn forget_state(&self, name: &str) {
        if let Err(error) = std::fs::remove_dir_all(self.state_of(name))
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(sidecar = name, %error, "its state was not removed");
        }
    }

    /// Keys and state of sidecars whose application's container is no more. While that exists it can be started again.
    async fn sweep_state(&self, docker: &Docker) -> Result<(), DockerError> {
        let Ok(folders) = std::fs::read_dir(self.config.state_dir.join("sidecar")) else { return Ok(()) };
        for folder in folders.flatten() {
            let Ok(name) = folder.file_name().into_string() else { continue };
            // `outrigger-CONTAINER-GENERATION`; docker finds a container by the beginning of its id.
            let Some(app) = name.split('-').nth(1).filter(|app| app.len() == 12) else { continue };
            if docker.inspect(app).await?.is_none() && docker.inspect(&name).await?.is_none() {
                self.forget_state(&name);
            }
        }
        Ok(())
    }

    /// Keeps what a container is, for `/containers` and for whoever makes its sidecar; says what is new.
    pub fn note_verdict(&self, app: &str, name: &str, verdict: &Verdict) {
        let before = lock(&self.seen).insert(app.to_owned(), verdict.clone());
        if before.as_ref() == Some(verdict) {
            return;
        }
        match verdict {
            Verdict::Member(member) => {
                let service = format!("{}.{}", member.service, member.namespace);
                tracing::info!(name, service, account = member.service_account, "member");
                for notice in &member.notices {
                    tracing::warn!(name, notice, "member");
                }
            }
            Verdict::Refused(reasons) => {
                Metrics::count(&self.metrics.members_refused);
                tracing::warn!(name, reasons = reasons.join("; "), "cannot be a member");
            }
            Verdict::NotOurs | Verdict::NotRunning => {}
        }
    }

    fn verdict(&self, app: &str) -> Option<Verdict> {
        lock(&self.seen).get(app).cloned()
    }

    /// Who a container is.
    pub fn identity_of(&self, app: &str) -> Option<IdentityKey> {
        match lock(&self.seen).get(app)? {
            Verdict::Member(member) => Some((member.namespace.clone(), member.service_account.clone())),
            Verdict::NotOurs | Verdict::Refused(_) | Verdict::NotRunning => None,
        }
    }

    /// Why the agent is not ready, if it is not.
    pub fn not_ready(&self) -> Option<&'static str> {
        let load = std::sync::atomic::Ordering::Relaxed;
        if self.metrics.docker_connected.load(load) == 0 {
            return Some("docker is not followed");
        }
        (!self.reconciled.load(load)).then_some("docker was not looked at yet")
    }

    /// What every container is, for people and scripts.
    pub fn containers_json(&self) -> String {
        let seen = lock(&self.seen);
        let items: Vec<serde_json::Value> = seen
            .iter()
            .map(|(id, verdict)| match verdict {
                Verdict::Member(m) => json!({
                    "id": id, "state": "member", "name": m.container_name, "task": m.task.arn,
                    "service": format!("{}.{}", m.service, m.namespace), "serviceAccount": m.service_account,
                    "ports": m.ports.iter().map(|p| json!({
                        "name": p.declared.name, "number": p.declared.number, "target": p.declared.target,
                        "protocol": p.declared.protocol.flag(), "published": p.published,
                    })).collect::<Vec<_>>(),
                    "notices": m.notices,
                }),
                Verdict::Refused(reasons) => json!({"id": id, "state": "refused", "reasons": reasons}),
                Verdict::NotOurs => json!({"id": id, "state": "left alone"}),
                Verdict::NotRunning => json!({"id": id, "state": "not running"}),
            })
            .collect();
        json!({ "items": items }).to_string()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
