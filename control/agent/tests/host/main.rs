//! The agent against a docker that only remembers, with rules and the mesh that are only noted.

mod docker;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use docker::Docker;
use outrigger_agent::agent::{Agent, CONTAINERS_MAX};
use outrigger_agent::capture::Rules;
use outrigger_agent::capture::netns::{Namespace, RuleWriter, Written};
use outrigger_agent::config::AgentConfig;
use outrigger_agent::identity::{Answer, IdentityKey, Mesh};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

const APP: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";

struct Noted(Arc<Docker>);

impl RuleWriter for Noted {
    fn install<'a>(&'a self, namespace: &'a Namespace, rules: &'a Rules) -> Written<'a> {
        let call = format!("install {} {:?}", namespace.sandbox_key, rules.inbound);
        Box::pin(async move {
            self.0.note(call);
            Ok(())
        })
    }

    fn remove<'a>(&'a self, namespace: &'a Namespace) -> Written<'a> {
        Box::pin(async move {
            self.0.note(format!("release {}", namespace.sandbox_key));
            Ok(())
        })
    }
}

struct NotedMesh {
    docker: Arc<Docker>,
    away: Arc<AtomicBool>,
    /// Never answers when it is asked to take something out.
    hangs: bool,
}

impl Mesh for NotedMesh {
    fn equip<'a>(&'a self, identity: &'a IdentityKey, folder: &'a Path, owner: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            if self.away.load(Ordering::Relaxed) {
                self.docker.note("refused".to_owned());
                anyhow::bail!("away");
            }
            std::fs::create_dir_all(folder)?;
            self.docker.note(format!("equip {}/{} {owner}", identity.0, identity.1));
            Ok(())
        })
    }

    fn withdraw<'a>(&'a self, _: &'a IdentityKey, instance: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            self.docker.note(format!("withdraw {instance}"));
            if self.hangs {
                std::future::pending::<()>().await;
            }
            Ok(())
        })
    }

    fn report<'a>(&'a self, _: &'a IdentityKey, instance: &'a str, healthy: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let generation = instance.rsplit('-').next().unwrap_or_default().len();
            self.docker.note(format!("report {generation} {healthy}"));
            Ok(())
        })
    }

    fn refresh(&self) -> Answer<'_, (usize, usize)> {
        Box::pin(async { Ok((1, 0)) })
    }
}

struct Bed {
    docker: Arc<Docker>,
    agent: Arc<Agent>,
    away: Arc<AtomicBool>,
    running: JoinHandle<()>,
    _folder: Arc<tempfile::TempDir>,
}

impl Bed {
    async fn new() -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let docker = Docker::new(folder.path());
        docker.start();
        Self::on(docker, folder, "", false).await
    }

    async fn on(docker: Arc<Docker>, folder: Arc<tempfile::TempDir>, more: &str, hangs: bool) -> Self {
        let text = format!(
            "control: [\"127.0.0.1:1\"]\ntrustBundle: /x\nstateDir: {0}/state\ndocker: {0}/docker.sock\nidentities: [{{namespace: shop, serviceAccount: b}}]\n{more}",
            folder.path().display()
        );
        let config = Arc::new(AgentConfig::parse(&text).unwrap());
        let client = outrigger_agent::docker::Docker::connect(&config.docker).await.unwrap();
        let away = Arc::new(AtomicBool::new(false));
        let mesh = NotedMesh { docker: docker.clone(), away: away.clone(), hangs };
        let writer: Box<dyn RuleWriter> = Box::new(Noted(docker.clone()));
        let address = IpAddr::from([10, 0, 0, 7]);
        let agent = Arc::new(Agent::new(config, address, client, Box::new(mesh), Some(writer)));
        let running = tokio::spawn(agent.clone().run());
        Self { docker, agent, away, running, _folder: folder }
    }

    /// Another agent in place of this one, on the same docker.
    async fn again(self, more: &str) -> Self {
        self.running.abort();
        let _ = self.running.await;
        Self::on(self.docker, self._folder, more, false).await
    }

    fn calls(&self) -> Vec<String> {
        self.docker.state().calls.clone()
    }

    async fn until_called(&self, start: &str) {
        self.docker.until(start, |state| state.calls.iter().any(|call| call.starts_with(start))).await;
    }
}

fn task(id: &str) -> Value {
    json!({
        "Id": id, "Name": "/ecs-shop-b-1-app-00",
        "State": {"Status": "running", "Running": true, "Pid": 4711, "StartedAt": "2026-11-23T05:00:00Z"},
        "HostConfig": {"NetworkMode": "default"},
        "Config": {"Labels": {
            "com.amazonaws.ecs.cluster": "prod",
            "com.amazonaws.ecs.container-name": "app",
            "com.amazonaws.ecs.task-arn": format!("arn:aws:ecs:eu-west-1:1:task/prod/{}", &id[..32]),
            "com.amazonaws.ecs.task-definition-family": "shop-b",
            "com.amazonaws.ecs.task-definition-version": "1",
            "outrigger.io/service": "b.shop",
            "outrigger.io/port.http": "80:8080/http"
        }},
        "NetworkSettings": {
            "SandboxID": format!("sandbox-{}", &id[..4]), "SandboxKey": format!("/netns/{}", &id[..4]),
            "Ports": {"8080/tcp": [{"HostIp": "0.0.0.0", "HostPort": "32768"}]}
        }
    })
}

fn sidecars(calls: &[String]) -> Vec<&str> {
    calls.iter().filter_map(|call| call.strip_prefix("create ")).collect()
}

#[tokio::test]
async fn task_that_starts_is_captured_then_equipped_then_given_its_sidecar() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    let calls = bed.calls();
    let name = sidecars(&calls)[0];
    let expected = [
        "install /netns/0123 [(8080, 15006)]",
        "equip shop/b 1337",
        &format!("create {name}"),
        &format!("start {name}"),
    ];
    assert_eq!(calls, expected);
    let made = bed.docker.state().containers[name].clone();
    assert_eq!(made["HostConfig"]["NetworkMode"], format!("container:{APP}"));
    assert_eq!(made["HostConfig"]["ReadonlyRootfs"], true);
}

#[tokio::test]
async fn task_that_is_stopped_is_withdrawn_at_the_signal_and_cleared_away_at_its_end() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    // What applications are sent in their lives does not end them.
    bed.docker.say(APP, "kill", &[("signal", "1")]);
    bed.docker.say(APP, "kill", &[("signal", "15")]);
    bed.until_called("kill").await;
    let calls = bed.calls();
    let name = sidecars(&calls)[0].to_owned();
    let withdrawn = calls.iter().position(|call| call.starts_with("withdraw ")).expect("withdrawn");
    let told = calls.iter().position(|call| *call == format!("kill {name}")).expect("told");
    assert!(withdrawn < told, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| call.starts_with("withdraw ")).count(), 1, "{calls:?}");
    bed.docker.end(APP);
    bed.until_called("remove").await;
    assert!(!bed.docker.state().containers.contains_key(&name));
}

#[tokio::test]
async fn registry_that_does_not_answer_keeps_no_sidecar_from_draining() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let docker = Docker::new(folder.path());
    docker.start();
    let bed = Bed::on(docker, folder, "", true).await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    bed.docker.say(APP, "kill", &[("signal", "15")]);
    bed.until_called("kill").await;
}

#[tokio::test]
async fn storm_of_events_makes_one_sidecar() {
    let bed = Bed::new().await;
    bed.docker.state().containers.insert(APP.to_owned(), task(APP));
    for _ in 0..50 {
        bed.docker.say(APP, "start", &[]);
        bed.docker.say(APP, "health_status: healthy", &[]);
    }
    bed.until_called("start").await;
    bed.docker.run(OTHER, task(OTHER));
    bed.docker
        .until("the other's", |state| state.calls.iter().filter(|c| c.starts_with("start")).count() == 2)
        .await;
    let calls = bed.calls();
    assert_eq!(sidecars(&calls).len(), 2, "{calls:?}");
}

#[tokio::test]
async fn new_agent_adopts_what_runs_and_upgrades_what_is_to_be_another() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    bed.docker.state().calls.clear();
    let bed = bed.again("").await;
    bed.until_called("install").await;
    bed.docker.run(OTHER, task(OTHER));
    bed.until_called("start").await;
    let calls = bed.calls();
    assert_eq!(sidecars(&calls).len(), 1, "only the other's: {calls:?}");
    bed.docker.end(OTHER);
    bed.until_called("remove").await;

    bed.docker.state().calls.clear();
    bed.docker.state().healthy = false;
    let bed = bed.again("sidecar: {drainSeconds: 7}\n").await;
    bed.until_called("start").await;
    let calls = bed.calls();
    assert!(!calls.iter().any(|call| call.starts_with("kill")), "the old one serves: {calls:?}");
    let fresh = sidecars(&calls)[0].to_owned();
    bed.docker.state().containers.get_mut(&fresh).unwrap()["State"]["Health"]["Status"] = "healthy".into();
    bed.docker.say(&fresh, "health_status: healthy", &[]);
    bed.until_called("remove").await;
    let calls = bed.calls();
    let at = |start: &str| calls.iter().position(|call| call.starts_with(start)).unwrap();
    assert!(
        at("create") < at("withdraw") && at("withdraw") < at("kill") && at("kill") < at("remove"),
        "{calls:?}"
    );
    assert!(bed.docker.state().containers.contains_key(&fresh));
}

#[tokio::test]
async fn docker_that_went_away_is_followed_again_and_nothing_is_missed() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    bed.docker.stop();
    // Meanwhile one ends and another starts, and nobody says so.
    bed.docker.state().containers.get_mut(APP).unwrap()["State"] =
        json!({"Status": "exited", "Running": false});
    bed.docker.state().containers.insert(OTHER.to_owned(), task(OTHER));
    bed.docker.start();
    bed.until_called("remove").await;
    bed.docker
        .until("the other's", |state| state.calls.iter().filter(|c| c.starts_with("start")).count() == 2)
        .await;
    assert_eq!(bed.agent.metrics.docker_reconnects.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn signal_of_an_earlier_life_does_not_end_a_task_that_came_back() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    let before = bed.calls().len();
    // Docker tells its containers to end, goes away, and comes back with them.
    bed.docker.state().failing = true;
    bed.docker.say(APP, "kill", &[("signal", "15")]);
    let failed = &bed.agent.metrics.rounds_failed;
    bed.docker
        .until("looked at in vain", |state| state.refused > 0 && failed.load(Ordering::Relaxed) > 0)
        .await;
    let mut back = task(APP);
    back["NetworkSettings"]["SandboxID"] = "another".into();
    bed.docker.state().failing = false;
    bed.docker.run(APP, back);
    bed.docker
        .until("a new sidecar", |state| state.calls[before..].iter().any(|c| c.starts_with("start")))
        .await;
    let calls = bed.calls()[before..].to_vec();
    assert!(!calls.iter().any(|call| call.starts_with("kill")), "{calls:?}");
}

#[tokio::test]
async fn without_the_control_service_a_task_is_closed_until_it_is_back() {
    let bed = Bed::new().await;
    bed.away.store(true, Ordering::Relaxed);
    bed.docker.run(APP, task(APP));
    bed.until_called("refused").await;
    let calls = bed.calls();
    assert!(calls[0].starts_with("install") && sidecars(&calls).is_empty(), "{calls:?}");
    bed.away.store(false, Ordering::Relaxed);
    bed.until_called("start").await;
}

#[tokio::test]
async fn state_is_kept_for_a_task_that_can_come_back_and_not_beyond() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    let state = bed.agent.state_of(sidecars(&bed.calls())[0]);
    bed.docker.end(APP);
    bed.until_called("remove").await;
    assert!(state.exists(), "it is only stopped");
    bed.docker.state().containers.clear();
    let bed = bed.again("").await;
    // The look at everything ends with clearing away; whoever is ready has had it.
    while bed.agent.not_ready().is_some() {
        tokio::task::yield_now().await;
    }
    assert!(!state.exists(), "it is gone for good");
}

#[tokio::test]
async fn number_of_containers_cared_for_has_a_limit() {
    for (count, beyond) in [(CONTAINERS_MAX, 0), (CONTAINERS_MAX + 1, 1)] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let docker = Docker::new(folder.path());
        // Nothing can be found out about them, so that none is done with.
        docker.state().failing = true;
        for number in 0..count {
            let id = format!("{number:064x}");
            docker.state().containers.insert(id.clone(), task(&id));
        }
        docker.start();
        let bed = Bed::on(docker, folder, "", false).await;
        let looked = count - beyond;
        bed.docker.until("all looked at", |state| usize::try_from(state.refused).unwrap() >= looked).await;
        let metrics = &bed.agent.metrics;
        assert_eq!(metrics.containers.load(Ordering::Relaxed), 1024);
        assert_eq!(metrics.containers_over_limit.load(Ordering::Relaxed), u64::try_from(beyond).unwrap());
        bed.running.abort();
    }
}

#[tokio::test]
async fn everything_is_given_back_when_the_host_leaves() {
    let bed = Bed::new().await;
    bed.docker.run(APP, task(APP));
    bed.until_called("start").await;
    bed.docker.state().calls.clear();
    bed.running.abort();
    bed.agent.offboard().await.unwrap();
    let calls = bed.calls();
    for start in ["withdraw", "kill", "release /netns/0123", "remove"] {
        assert!(calls.iter().any(|call| call.starts_with(start)), "{start}: {calls:?}");
    }
    assert_eq!(bed.docker.state().containers.len(), 1, "the application");
}
