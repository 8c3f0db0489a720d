//! From a member to the container of its sidecar. Pure.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ResourcesUlimits, RestartPolicy,
    RestartPolicyNameEnum,
};
use sha2::{Digest as _, Sha256};

use super::image::Image;
use super::layout::Layout;
use crate::capture::{Rules, is_captured};
use crate::config::AgentConfig;
use crate::member::label::sidecar as labels;
use crate::member::{Member, Network};

/// Where the sidecar finds its state, in its container.
pub const STATE: &str = "/var/lib/outrigger-proxy";

/// File of the mesh's trust roots, below the state folder.
pub const TRUST_BUNDLE: &str = "trust-bundle.pem";

/// How long requests are still taken after the registry was left, which the drain time does not count.
const LEAVE_GRACE_SECONDS: i64 = 1;

/// Beyond the drain time until docker kills it.
const STOP_SLACK_SECONDS: i64 = 10;

const SECOND_NS: i64 = 1_000_000_000;

/// How often its health is looked at. Each time a small process is started.
const HEALTH_INTERVAL_NS: i64 = 2 * SECOND_NS;

/// Processes and threads in the container.
const PIDS_MAX: i64 = 256;

/// A sidecar as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// Name of the container.
    pub name: String,
    /// Digest of everything below that matters.
    pub digest: String,
    /// Name under which it registers: the task, the container and this generation.
    pub instance: String,
    /// Its two possible admin ports.
    pub admin: [u16; 2],
    env: Vec<(String, String)>,
    args: Vec<String>,
    labels: HashMap<String, String>,
    image: String,
    user: String,
    network: String,
    memory: i64,
    nano_cpus: i64,
    files: Option<i64>,
    stop_seconds: i64,
}

/// Puts a sidecar together.
pub fn spec(member: &Member, config: &AgentConfig, address: IpAddr, image: &Image, layout: &Layout) -> Spec {
    let sidecar = &config.sidecar;
    // Where nothing is redirected in bridge mode, peers would end at the application itself, in plaintext.
    let served = member.network == Network::Host || is_captured(member, &config.capture);
    let ports = if served { ports(member, layout) } else { String::new() };
    let mut env: Vec<(String, String)> = vec![
        ("OUTRIGGER_ADDRESS".into(), address.to_string()),
        ("OUTRIGGER_CONTROL".into(), config.control.join(",")),
        ("OUTRIGGER_DRAIN_TIME_S".into(), sidecar.drain_seconds.to_string()),
        ("OUTRIGGER_INBOUND_PORT".into(), layout.reached.first().copied().unwrap_or(15_006).to_string()),
        ("OUTRIGGER_LOCALITY".into(), config.locality.clone()),
        ("OUTRIGGER_LOG_LEVEL".into(), sidecar.log_level.clone()),
        ("OUTRIGGER_NAMESPACE".into(), member.namespace.clone()),
        ("OUTRIGGER_OUTBOUND_ADDRESS".into(), "127.0.0.1".into()),
        ("OUTRIGGER_OUTBOUND_PORT".into(), layout.outbound.to_string()),
        ("OUTRIGGER_PORTS".into(), ports),
        ("OUTRIGGER_SERVICE".into(), member.service.clone()),
        ("OUTRIGGER_SERVICE_ACCOUNT".into(), member.service_account.clone()),
        // During an upgrade two of them live in one namespace.
        ("OUTRIGGER_SHARE_PORTS".into(), "true".into()),
        ("OUTRIGGER_STATE_DIR".into(), STATE.into()),
        ("OUTRIGGER_TRUST_BUNDLE".into(), format!("{STATE}/{TRUST_BUNDLE}")),
        ("OUTRIGGER_VERSION".into(), member.version.clone()),
    ];
    if !member.group.is_empty() {
        env.push(("OUTRIGGER_WORKLOAD_GROUP".into(), member.group.clone()));
    }
    env.extend(sidecar.env.iter().map(|(name, value)| (name.clone(), value.clone())));
    let network = match member.network {
        Network::Bridge => format!("container:{}", member.container_id),
        Network::Host => "host".into(),
    };
    let mut spec = Spec {
        name: String::new(),
        digest: String::new(),
        instance: String::new(),
        admin: layout.admin,
        args: vec!["--config-yaml".into(), node(member, config, image, layout)],
        env,
        labels: HashMap::new(),
        image: image.id.clone(),
        user: format!("{uid}:{uid}", uid = sidecar.uid),
        network,
        memory: i64::from(sidecar.memory_mib) << 20,
        // Checked to be at most 64.
        nano_cpus: (sidecar.cpus * 1e9) as i64,
        files: sidecar.open_files.map(i64::from),
        stop_seconds: i64::from(sidecar.drain_seconds) + LEAVE_GRACE_SECONDS + STOP_SLACK_SECONDS,
    };
    let short = member.container_id.get(..12).unwrap_or(&member.container_id);
    spec.digest = digest(&spec);
    let generation = spec.digest.get(..6).unwrap_or_default().to_owned();
    spec.name = format!("outrigger-{short}-{generation}");
    spec.instance = format!("{}-{short}-{generation}", member.task.id);
    spec.labels = container_labels(member, &spec, layout);
    spec.env.push(("OUTRIGGER_INSTANCE_ID".into(), spec.instance.clone()));
    spec
}

/// `name:protocol:number:target:inbound`, separated by commas.
fn ports(member: &Member, layout: &Layout) -> String {
    let ports = member.ports.iter().zip(&layout.reached).map(|(port, reached)| {
        let at = &port.declared;
        format!("{}:{}:{}:{}:{reached}", at.name, at.protocol.flag(), at.number, at.target)
    });
    ports.collect::<Vec<_>>().join(",")
}

/// What the planner is told beside the registration: which ports to bind instead of those of the host, what is redirected,
/// and whose sidecar it is. JSON is YAML.
fn node(member: &Member, config: &AgentConfig, image: &Image, layout: &Layout) -> String {
    let bind: serde_json::Map<String, serde_json::Value> = layout
        .reached
        .iter()
        .zip(&layout.inbound)
        .filter(|(reached, bound)| reached != bound)
        .map(|(reached, bound)| (reached.to_string(), (*bound).into()))
        .collect();
    let rules = Rules::of(member, &layout.inbound, &config.capture, image.captures, config.sidecar.uid);
    let captured = rules.map(|rules| [("outbound", rules.outbound), ("dns", rules.dns)]);
    let captured: serde_json::Map<String, serde_json::Value> = captured
        .into_iter()
        .flatten()
        .filter_map(|(what, port)| Some((what.to_owned(), port?.into())))
        .collect();
    let metadata = serde_json::json!({
        "BIND_PORTS": bind,
        "CAPTURE": captured,
        "CONTAINER_ID": member.container_id,
        "TASK_ARN": member.task.arn,
    });
    serde_json::json!({ "node": { "metadata": metadata } }).to_string()
}

fn digest(spec: &Spec) -> String {
    let text = format!(
        "{:?}|{:?}|{}|{}|{}|{}|{}|{:?}|{}",
        spec.env,
        spec.args,
        spec.image,
        spec.user,
        spec.network,
        spec.memory,
        spec.nano_cpus,
        spec.files,
        spec.stop_seconds
    );
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn container_labels(member: &Member, spec: &Spec, layout: &Layout) -> HashMap<String, String> {
    let mut all = HashMap::from([
        (labels::ROLE, labels::ROLE_SIDECAR.to_owned()),
        (labels::FOR, member.container_id.clone()),
        (labels::FOR_NAME, member.container_name.clone()),
        (labels::TASK_ARN, member.task.arn.clone()),
        (labels::SPEC, spec.digest.clone()),
        (labels::SANDBOX, member.sandbox.clone()),
        (labels::INSTANCE, spec.instance.clone()),
        (labels::IDENTITY, format!("{}/{}", member.namespace, member.service_account)),
    ]);
    if let Some(first) = layout.host.first() {
        all.insert(labels::HOST_PORT, format!("{first}+{}", layout.host.len()));
    }
    all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

impl Spec {
    /// What docker is asked to make. `state` is the sidecar's folder on the host.
    pub fn body(&self, admin_port: u16, state: &Path) -> ContainerCreateBody {
        let admin = SocketAddr::from(([127, 0, 0, 1], admin_port));
        let mut env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        env.push(format!("OUTRIGGER_ADMIN_ADDRESS={admin}"));
        let mut labels = self.labels.clone();
        labels.insert(labels::ADMIN_PORT.to_owned(), admin_port.to_string());
        let host = HostConfig {
            network_mode: Some(self.network.clone()),
            binds: Some(vec![format!("{}:{STATE}", state.display())]),
            readonly_rootfs: Some(true),
            cap_drop: Some(vec!["ALL".into()]),
            security_opt: Some(vec!["no-new-privileges:true".into()]),
            memory: Some(self.memory),
            memory_swap: Some(self.memory),
            nano_cpus: Some(self.nano_cpus),
            pids_limit: Some(PIDS_MAX),
            // Without a wish docker's own limit holds; more than that docker may not be able to give.
            ulimits: self.files.map(|files| {
                let (soft, hard) = (Some(files), Some(files));
                vec![ResourcesUlimits { name: Some("nofile".into()), soft, hard }]
            }),
            // Not after a stop that was asked for, and not after docker's own restart: then its task is gone.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::ON_FAILURE),
                maximum_retry_count: None,
            }),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".into()),
                config: Some(HashMap::from([
                    ("max-size".into(), "10m".into()),
                    ("max-file".into(), "2".into()),
                ])),
            }),
            ..HostConfig::default()
        };
        ContainerCreateBody {
            image: Some(self.image.clone()),
            user: Some(self.user.clone()),
            env: Some(env),
            cmd: Some(self.args.clone()),
            labels: Some(labels),
            stop_timeout: Some(self.stop_seconds),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["CMD".into(), "/outrigger-proxy".into(), "health".into()]),
                interval: Some(HEALTH_INTERVAL_NS),
                timeout: Some(3 * SECOND_NS),
                retries: Some(2),
                start_period: Some(10 * SECOND_NS),
                start_interval: None,
            }),
            host_config: Some(host),
            ..ContainerCreateBody::default()
        }
    }
}
