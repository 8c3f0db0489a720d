//! One application's container, cared for by one task: look, plan, act, and again when something happens.
//!
//! Because there is one such task for each container and it does one thing at a time, there are never two sidecars where one is
//! meant, whatever order events come in.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bollard::models::ContainerInspectResponse;
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;

use crate::agent::Agent;
use crate::capture::netns::Namespace;
use crate::capture::{Rules, failure_mode};
use crate::docker::event::ends;
use crate::docker::{Docker, DockerError};
use crate::mailbox::{Mailbox, Post};
use crate::member::{Member, Network, Verdict, look};
use crate::metrics::Metrics;
use crate::plan::{Action, App, LEAVING_MAX, Memory, Plan, Wanted, plan};
use crate::sidecar::layout::layout;
use crate::sidecar::spec::{Spec, spec};
use crate::sidecar::{Sidecar, host_ports};

/// Bounds of the wait after a round that failed.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Longest wait for the registry when a task ends: its sidecar must be told as well, and its lease ends anyway.
const WITHDRAW_MAX: Duration = Duration::from_secs(3);

/// Cares for a container until nothing of it is left.
pub async fn care(agent: Arc<Agent>, app: String, mailbox: Arc<Mailbox>) {
    let mut worker = Worker::new(agent, app);
    let mut wait = RETRY_FIRST;
    loop {
        worker.note(mailbox.take());
        let again = match worker.round().await {
            Ok(made) => {
                wait = RETRY_FIRST;
                if made.finished && mailbox.close() {
                    return;
                }
                made.again
            }
            Err(error) => {
                Metrics::count(&worker.agent.metrics.rounds_failed);
                tracing::warn!(
                    container = worker.short(),
                    error = format!("{error:#}"),
                    "not done; tried again"
                );
                let pause = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
                wait = (wait * 2).min(RETRY_MAX);
                Some(pause)
            }
        };
        let sleep = async {
            match again {
                Some(after) => tokio::time::sleep(after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {}
            () = mailbox.arrived() => {}
        }
    }
}

/// What is known of one container.
pub struct Worker {
    agent: Arc<Agent>,
    app: String,
    memory: Memory,
    /// A signal that came and was not looked at yet, and the network namespace that was seen last then: docker may be away in
    /// between, and the application back in another life.
    signal: Option<(i32, Option<String>)>,
    /// The network namespace seen last.
    sandbox: Option<String>,
    /// The sidecars seen last.
    sidecars: Vec<Sidecar>,
    /// When the application of this network namespace was told to end.
    leaving: Option<(String, Instant)>,
    /// Give it back, whatever its labels say.
    offboard: bool,
}

/// What a round found.
struct Seen {
    app: App,
    spec: Option<Spec>,
    namespace: Namespace,
    sidecars: Vec<Sidecar>,
    /// There is a container, though it may not run.
    exists: bool,
    /// Host mode, without a sidecar yet: held until there is one. Ports are taken out of one range, so those who look for
    /// some wait for each other.
    _ports: Option<OwnedMutexGuard<()>>,
}

impl Worker {
    /// Knows nothing yet.
    pub fn new(agent: Arc<Agent>, app: String) -> Self {
        Self {
            agent,
            app,
            memory: Memory::default(),
            signal: None,
            sandbox: None,
            sidecars: Vec::new(),
            leaving: None,
            offboard: false,
        }
    }

    /// One that gives the container back.
    pub fn offboarding(agent: Arc<Agent>, app: String) -> Self {
        let mut worker = Self::new(agent, app);
        worker.offboard = true;
        worker
    }

    fn short(&self) -> &str {
        self.app.get(..12).unwrap_or(&self.app)
    }

    fn note(&mut self, post: Post) {
        if let Some(signal) = post.signal {
            self.signal = Some((signal, self.sandbox.clone()));
        }
        if post.ended {
            // Whatever starts under this id has a new namespace, without rules.
            self.memory.rules = None;
        }
    }

    /// Looks, plans and acts once.
    ///
    /// # Errors
    /// What could not be found out or done; the round is to be repeated.
    pub async fn round(&mut self) -> anyhow::Result<Plan> {
        let docker = self.agent.docker();
        self.say_farewell(&docker).await;
        let seen = self.look(&docker).await?;
        let made = plan(&seen.app, &seen.sidecars, &self.memory, self.agent.drain(), Instant::now());
        self.act(&docker, &seen, &made).await?;
        Ok(made)
    }

    /// A signal that ends every application is acted upon before anything is looked at: the application may be gone, and its
    /// network with it, before docker has answered. What goes wrong here is done again by the round.
    async fn say_farewell(&mut self, docker: &Docker) {
        let ending =
            |(signal, sandbox): &(i32, Option<String>)| ends(*signal, None) && *sandbox == self.sandbox;
        if !self.signal.as_ref().is_some_and(ending) {
            return;
        }
        let (withdrawn, told) = (&self.memory.withdrawn, &self.memory.signalled);
        let here =
            self.sidecars.iter().filter(|s| s.state.runs() && Some(&s.sandbox) == self.sandbox.as_ref());
        let here: Vec<&Sidecar> =
            here.filter(|s| !withdrawn.contains(&s.instance) && !told.contains_key(&s.id)).collect();
        let (withdrawn, told) = tokio::join!(self.withdraw(&here), terminate(docker, &here));
        self.memory.withdrawn.extend(withdrawn.into_iter().flatten());
        self.memory.signalled.extend(told.into_iter().flatten().map(|id| (id, Instant::now())));
    }

    /// The actions of the next round, in words.
    ///
    /// # Errors
    /// What could not be found out.
    pub async fn rehearse(&mut self) -> anyhow::Result<Vec<String>> {
        let docker = self.agent.docker();
        let seen = self.look(&docker).await?;
        let made = plan(&seen.app, &seen.sidecars, &self.memory, self.agent.drain(), Instant::now());
        Ok(made.actions.iter().map(|action| words(action, &seen)).collect())
    }

    async fn look(&mut self, docker: &Docker) -> anyhow::Result<Seen> {
        let container = docker.inspect(&self.app).await?;
        let mut sidecars = Vec::new();
        for id in docker.sidecars_of(&self.app).await? {
            sidecars.extend(docker.inspect(&id).await?.as_ref().and_then(Sidecar::of));
        }
        let mut seen = Seen {
            app: App::Gone,
            spec: None,
            namespace: namespace(container.as_ref()),
            sidecars,
            exists: container.is_some(),
            _ports: None,
        };
        self.sidecars.clone_from(&seen.sidecars);
        let Some(container) = container else { return Ok(seen) };
        let verdict = look(&container, &self.agent.config);
        let name = container.name.as_deref().unwrap_or_default().trim_start_matches('/');
        self.agent.note_verdict(&self.app, name, &verdict);
        seen.app = match verdict {
            Verdict::NotRunning => {
                (self.signal, self.sandbox, self.leaving) = (None, None, None);
                App::Gone
            }
            _ if self.offboard => {
                self.memory.was_member |= matches!(verdict, Verdict::Member(_));
                App::Foreign
            }
            // What runs and was never looked at as a task of ours may still have a sidecar that outlived its label.
            Verdict::NotOurs if !runs(&container) => App::Gone,
            Verdict::NotOurs | Verdict::Refused(_) => App::Foreign,
            Verdict::Member(member) if self.is_leaving(&container, &member) => App::Leaving,
            Verdict::Member(member) => {
                self.memory.was_member = true;
                if member.network == Network::Host && seen.sidecars.is_empty() {
                    seen._ports = Some(self.agent.ports.clone().lock_owned().await);
                }
                let (wanted, spec) = self.wanted(docker, &member, &seen.sidecars).await?;
                seen.spec = spec;
                App::Member(Box::new(wanted))
            }
        };
        Ok(seen)
    }

    /// Whether it was told to end, in this life of it and not too long ago.
    fn is_leaving(&mut self, container: &ContainerInspectResponse, member: &Member) -> bool {
        let stop_signal = container.config.as_ref().and_then(|c| c.stop_signal.as_deref());
        let meant = |(signal, sandbox): (i32, Option<String>)| {
            sandbox.is_none_or(|sandbox| sandbox == member.sandbox) && ends(signal, stop_signal)
        };
        let told = self.signal.take().is_some_and(meant);
        self.sandbox = Some(member.sandbox.clone());
        if told {
            let now = Instant::now();
            let known = self.leaving.take().filter(|(sandbox, _)| *sandbox == member.sandbox);
            self.leaving = Some(known.unwrap_or_else(|| {
                tracing::info!(container = self.short(), service = member.service, "told to end");
                (member.sandbox.clone(), now)
            }));
        }
        match &self.leaving {
            Some((sandbox, since)) if *sandbox == member.sandbox && since.elapsed() < LEAVING_MAX => true,
            Some(_) => {
                self.leaving = None;
                self.memory.withdrawn.clear();
                self.memory.signalled.clear();
                false
            }
            None => false,
        }
    }

    async fn wanted(
        &self,
        docker: &Docker,
        member: &Member,
        sidecars: &[Sidecar],
    ) -> anyhow::Result<(Wanted, Option<Spec>)> {
        let agent = &self.agent;
        let config = &agent.config;
        let mut taken = std::collections::BTreeSet::new();
        if member.network == Network::Host {
            for labels in docker.sidecars().await? {
                let other = labels.get(crate::member::label::sidecar::FOR) != Some(&self.app);
                if let Some((first, count)) = host_ports(&labels).filter(|_| other) {
                    taken.extend(first..first.saturating_add(count));
                }
            }
        }
        let first = sidecars.iter().find_map(|sidecar| sidecar.host_ports).map(|(first, _)| first);
        let layout = layout(member, config, first, &taken)?;
        let image = agent.image(docker).await?;
        let captures = image.as_ref().map(|image| image.captures).unwrap_or_default();
        let rules = Rules::of(member, &layout.inbound, &config.capture, captures, config.sidecar.uid);
        let spec = image.map(|image| spec(member, config, agent.address, &image, &layout));
        let wanted = Wanted {
            spec: spec.as_ref().map(|spec| spec.digest.clone()).unwrap_or_default(),
            sandbox: member.sandbox.clone(),
            admin: layout.admin,
            // What the image can serve is not known without it; what is in place stays.
            rules: if spec.is_some() { rules } else { self.memory.rules.clone().flatten().or(rules) },
            on_failure: failure_mode(member, &config.capture),
            healthy: member.healthy.filter(|_| config.container_health),
            cannot_create: spec.is_none(),
        };
        Ok((wanted, spec))
    }

    /// All that is to be done. What goes wrong with one thing does not keep the others from being done, but for rules: without
    /// them an application must not be given a sidecar that peers are sent to.
    async fn act(&mut self, docker: &Docker, seen: &Seen, made: &Plan) -> anyhow::Result<()> {
        let mut failed = None;
        let (leave, tell): (Vec<&Sidecar>, Vec<&Sidecar>) = farewells(made);
        // At the same time: a registry that does not answer must not keep the sidecar from draining.
        let (withdrawn, told) = tokio::join!(self.withdraw(&leave), terminate(docker, &tell));
        for instance in withdrawn {
            match instance {
                Ok(instance) => drop(self.memory.withdrawn.insert(instance)),
                Err(error) => failed = Some(error),
            }
        }
        for id in told {
            match id {
                Ok(id) => drop(self.memory.signalled.insert(id, Instant::now())),
                Err(error) => failed = Some(error),
            }
        }
        for action in &made.actions {
            let done = match action {
                Action::Withdraw(_) | Action::Terminate(_) => Ok(()),
                Action::Report(sidecar, healthy) => self.report(sidecar, *healthy).await,
                Action::Remove(sidecar) => self.remove(docker, sidecar, comes_back(seen, sidecar)).await,
                Action::Start(sidecar) => self.start(docker, sidecar).await,
                Action::Create { admin_port } => self.create(docker, seen, *admin_port).await,
                Action::Install(rules) => {
                    self.install(seen, rules).await.context("rules cannot be written")?;
                    Ok(())
                }
                Action::Release => self.release(seen).await,
            };
            failed = done.err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    async fn withdraw(&self, sidecars: &[&Sidecar]) -> Vec<anyhow::Result<String>> {
        let mut done = Vec::new();
        for sidecar in sidecars {
            let asked = self.agent.mesh.withdraw(&sidecar.identity, &sidecar.instance);
            let answer = tokio::time::timeout(WITHDRAW_MAX, asked).await.context("no answer in time");
            done.push(match answer.and_then(|answer| answer) {
                Ok(()) => {
                    Metrics::count(&self.agent.metrics.withdrawals);
                    tracing::info!(instance = sidecar.instance, "out of the registry");
                    Ok(sidecar.instance.clone())
                }
                Err(error) => {
                    Metrics::count(&self.agent.metrics.withdrawals_failed);
                    Err(error.context("not withdrawn; its lease ends by itself"))
                }
            });
        }
        done
    }

    async fn report(&mut self, sidecar: &Sidecar, healthy: bool) -> anyhow::Result<()> {
        let asked = self.agent.mesh.report(&sidecar.identity, &sidecar.instance, healthy);
        tokio::time::timeout(WITHDRAW_MAX, asked).await.context("no answer in time")??;
        tracing::info!(instance = sidecar.instance, healthy, "health of the application told");
        self.memory.told.insert(sidecar.instance.clone(), healthy);
        Ok(())
    }

    async fn remove(&mut self, docker: &Docker, sidecar: &Sidecar, keep_state: bool) -> anyhow::Result<()> {
        docker.remove(&sidecar.id).await?;
        Metrics::count(&self.agent.metrics.sidecars_removed);
        tracing::info!(sidecar = sidecar.name, container = self.short(), "sidecar removed");
        self.memory.told.remove(&sidecar.instance);
        self.memory.signalled.remove(&sidecar.id);
        self.memory.withdrawn.remove(&sidecar.instance);
        if !keep_state {
            self.agent.forget_state(&sidecar.name);
        }
        Ok(())
    }

    async fn start(&mut self, docker: &Docker, sidecar: &Sidecar) -> anyhow::Result<()> {
        docker.start(&sidecar.id).await?;
        // Its lease may be another one.
        self.memory.told.remove(&sidecar.instance);
        self.memory.signalled.remove(&sidecar.id);
        self.memory.withdrawn.remove(&sidecar.instance);
        Metrics::count(&self.agent.metrics.sidecars_restarted);
        tracing::info!(sidecar = sidecar.name, container = self.short(), "sidecar started again");
        Ok(())
    }

    async fn create(&mut self, docker: &Docker, seen: &Seen, admin_port: u16) -> anyhow::Result<()> {
        let Some((spec, identity)) = seen.spec.as_ref().zip(self.agent.identity_of(&self.app)) else {
            return Ok(());
        };
        let _turn = self.agent.creating.acquire().await?;
        let state = self.agent.state_of(&spec.name);
        let owner = self.agent.config.sidecar.uid;
        let present: Vec<&str> = seen.sidecars.iter().map(|sidecar| sidecar.name.as_str()).collect();
        self.agent.inherit_state(&spec.name, &present);
        self.agent.mesh.equip(&identity, &state, owner).await.context("no certificate for the sidecar")?;
        let id = match docker.create(&spec.name, spec.body(admin_port, &state)).await {
            // Made by a round that was cut short: the next look finds it.
            Err(DockerError::Conflict(_)) => return Ok(()),
            other => other?,
        };
        docker.start(&id).await?;
        self.memory.withdrawn.remove(&spec.instance);
        Metrics::count(&self.agent.metrics.sidecars_created);
        tracing::info!(sidecar = spec.name, container = self.short(), "sidecar started");
        Ok(())
    }

    async fn install(&mut self, seen: &Seen, rules: &Rules) -> anyhow::Result<()> {
        let written = match &self.agent.writer {
            Some(writer) => writer.install(&seen.namespace, rules).await,
            None => Err(anyhow::anyhow!("neither nft nor iptables is on this host")),
        };
        if written.is_err() {
            Metrics::count(&self.agent.metrics.rules_failed);
            self.memory.rules = None;
        }
        written?;
        Metrics::count(&self.agent.metrics.rules_installed);
        tracing::info!(container = self.short(), "traffic is redirected");
        self.memory.rules = Some(Some(rules.clone()));
        Ok(())
    }

    async fn release(&mut self, seen: &Seen) -> anyhow::Result<()> {
        // Without a program to write rules with there are none.
        let removed = match &self.agent.writer {
            Some(writer) if seen.namespace != Namespace::none() => writer.remove(&seen.namespace).await,
            _ => Ok(()),
        };
        if removed.is_err() {
            Metrics::count(&self.agent.metrics.rules_failed);
        }
        removed.context("rules cannot be removed")?;
        Metrics::count(&self.agent.metrics.rules_removed);
        self.memory.rules = Some(None);
        Ok(())
    }
}

/// Whether what a removed sidecar leaves is of use: its application was started again, or can be. Then the next one finds a certificate
/// and the last good configuration, and needs no control service to serve.
fn comes_back(seen: &Seen, sidecar: &Sidecar) -> bool {
    match &seen.app {
        App::Gone => seen.exists,
        // In a namespace that is no more; in this one it was relieved by another, which has its own.
        App::Member(wanted) => wanted.spec == sidecar.spec || wanted.sandbox != sidecar.sandbox,
        App::Leaving | App::Foreign => false,
    }
}

/// Whom to take out of the registry, and whom to tell to end.
fn farewells(made: &Plan) -> (Vec<&Sidecar>, Vec<&Sidecar>) {
    let (mut leave, mut tell) = (Vec::new(), Vec::new());
    for action in &made.actions {
        match action {
            Action::Withdraw(sidecar) => leave.push(sidecar),
            Action::Terminate(sidecar) => tell.push(sidecar),
            Action::Remove(_)
            | Action::Start(_)
            | Action::Report(..)
            | Action::Create { .. }
            | Action::Install(_)
            | Action::Release => {}
        }
    }
    (leave, tell)
}

async fn terminate(docker: &Docker, sidecars: &[&Sidecar]) -> Vec<anyhow::Result<String>> {
    let mut done = Vec::new();
    for sidecar in sidecars {
        let told = docker.terminate(&sidecar.id).await;
        if told.is_ok() {
            tracing::info!(sidecar = sidecar.name, "sidecar told to end");
        }
        done.push(told.map(|()| sidecar.id.clone()).context("sidecar was not told"));
    }
    done
}

fn runs(container: &ContainerInspectResponse) -> bool {
    container.state.as_ref().is_some_and(|state| state.running == Some(true))
}

fn namespace(container: Option<&ContainerInspectResponse>) -> Namespace {
    let Some(container) = container else { return Namespace::none() };
    let host = container.host_config.as_ref().and_then(|host| host.network_mode.as_deref()) == Some("host");
    if host {
        return Namespace::none();
    }
    Namespace {
        sandbox_key: container
            .network_settings
            .as_ref()
            .and_then(|settings| settings.sandbox_key.clone())
            .unwrap_or_default(),
        pid: container
            .state
            .as_ref()
            .and_then(|s| s.pid)
            .and_then(|pid| i32::try_from(pid).ok())
            .unwrap_or(0),
    }
}

fn words(action: &Action, seen: &Seen) -> String {
    match action {
        Action::Withdraw(sidecar) => format!("take {} out of the registry", sidecar.instance),
        Action::Report(sidecar, healthy) => {
            format!(
                "tell the registry that {} is {}",
                sidecar.instance,
                if *healthy { "healthy" } else { "unhealthy" }
            )
        }
        Action::Terminate(sidecar) => format!("send SIGTERM to {}", sidecar.name),
        Action::Remove(sidecar) => format!("remove {}", sidecar.name),
        Action::Start(sidecar) => format!("start {} again", sidecar.name),
        Action::Create { admin_port } => {
            let name = seen.spec.as_ref().map_or("a sidecar", |spec| spec.name.as_str());
            format!("make and start {name} (admin port {admin_port})")
        }
        Action::Install(rules) => {
            format!("redirect traffic:\n{}", crate::capture::nft::text(rules).trim_end())
        }
        Action::Release => "take redirection away".to_owned(),
    }
}
