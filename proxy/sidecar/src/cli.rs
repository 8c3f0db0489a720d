//! The command line. Flags that Envoy has mean what they mean there; those of the mesh have an environment variable
//! each, because a container's task definition is the usual place to set them.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Outrigger's proxy: sidecar and edge gateway.
#[derive(Debug, Parser)]
#[command(name = "outrigger-proxy", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do; without a verb the proxy runs.
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// Flags of a run.
    #[command(flatten)]
    pub run: Run,
}

/// Verbs beside running.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Ask a running proxy's admin interface whether it is ready; exit code 0 or 1. For container health checks.
    Health(Health),
}

/// Flags of `health`.
#[derive(Debug, Args)]
pub struct Health {
    /// Admin address of the running proxy.
    #[arg(long, env = "OUTRIGGER_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    pub admin_address: SocketAddr,
    /// Give up after so many milliseconds.
    #[arg(long, default_value_t = 2000)]
    pub timeout_ms: u64,
}

/// What `--mode` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve traffic.
    Serve,
    /// Check the configuration, print every problem and exit.
    Validate,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Flags of a run.
#[derive(Debug, Args)]
pub struct Run {
    /// Bootstrap file: Envoy's Bootstrap as YAML or JSON.
    #[arg(short = 'c', long)]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as YAML text, merged over the file.
    #[arg(long)]
    pub config_yaml: Option<String>,
    /// Serve, or only validate the configuration.
    #[arg(long, value_enum, default_value = "serve")]
    pub mode: Mode,
    /// Worker threads. Default: the CPU quota of the control group, at least 1.
    #[arg(long, env = "OUTRIGGER_CONCURRENCY")]
    pub concurrency: Option<usize>,
    /// `node.id`, where the bootstrap has none.
    #[arg(long, env = "OUTRIGGER_NODE_ID")]
    pub service_node: Option<String>,
    /// `node.cluster`, where the bootstrap has none.
    #[arg(long)]
    pub service_cluster: Option<String>,
    /// Zone of the node, where the bootstrap has none.
    #[arg(long)]
    pub service_zone: Option<String>,
    /// Longest time that requests may take to finish after SIGTERM.
    #[arg(long, env = "OUTRIGGER_DRAIN_TIME_S", default_value_t = 600)]
    pub drain_time_s: u64,
    /// Share listening addresses with another proxy of the same user, to relieve it without a gap.
    #[arg(long, env = "OUTRIGGER_SHARE_PORTS")]
    pub share_ports: bool,
    /// trace, debug, info, warning, error, critical or off; may be followed by `,target=level`.
    #[arg(short = 'l', long, env = "OUTRIGGER_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How log lines look.
    #[arg(long, env = "OUTRIGGER_LOG_FORMAT", value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Write the bound admin address into this file.
    #[arg(long)]
    pub admin_address_path: Option<PathBuf>,
    /// Accepted for compatibility: Outrigger has no hot restart to disable.
    #[arg(long, hide = true)]
    pub disable_hot_restart: bool,
    /// Accepted for compatibility: there is no shared memory to tell apart.
    #[arg(long, hide = true)]
    pub base_id: Option<u32>,
    /// Membership in a mesh.
    #[command(flatten)]
    pub mesh: Mesh,
}

impl Run {
    /// The folder for state, where one was given.
    pub fn state_dir(&self) -> Option<&PathBuf> {
        self.mesh.state_dir.as_ref()
    }
}

/// What kind of proxy this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Beside one application.
    Sidecar,
    /// At the edge of the mesh.
    Gateway,
}

/// What proves who this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attest {
    /// The role of its ECS task.
    Aws,
    /// The service account of its pod.
    Kubernetes,
}

/// Flags of membership. With `--control` the proxy enrols, registers and takes its configuration from the mesh.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Mesh")]
pub struct Mesh {
    /// Control service, `host:port`; several are tried in order.
    #[arg(long, env = "OUTRIGGER_CONTROL", value_delimiter = ',')]
    pub control: Vec<String>,
    /// Trust roots of the mesh (PEM), for the first contact.
    #[arg(long, env = "OUTRIGGER_TRUST_BUNDLE")]
    pub trust_bundle: Option<PathBuf>,
    /// Join token for the first certificate.
    #[arg(long, env = "OUTRIGGER_JOIN_TOKEN", hide_env_values = true)]
    pub join_token: Option<String>,
    /// File holding the join token.
    #[arg(long, env = "OUTRIGGER_JOIN_TOKEN_FILE", conflicts_with = "join_token")]
    pub join_token_file: Option<PathBuf>,
    /// Prove who this is by the role of its ECS task, or by the service account of its pod, instead of a join token.
    #[arg(long, env = "OUTRIGGER_ATTEST", value_enum, conflicts_with_all = ["join_token", "join_token_file"])]
    pub attest: Option<Attest>,
    /// Region of the STS the control service asks; with --attest=aws.
    #[arg(long, env = "OUTRIGGER_ATTEST_REGION")]
    pub attest_region: Option<String>,
    /// Host of that STS. Default: sts.REGION.amazonaws.com.
    #[arg(long, env = "OUTRIGGER_ATTEST_HOST")]
    pub attest_host: Option<String>,
    /// Trust domain of the mesh the proof is for; with --attest=aws.
    #[arg(long, env = "OUTRIGGER_ATTEST_AUDIENCE", default_value = "cluster.local")]
    pub attest_audience: String,
    /// Name of the cluster's discovery source; with --attest=kubernetes.
    #[arg(long, env = "OUTRIGGER_ATTEST_CLUSTER")]
    pub attest_cluster: Option<String>,
    /// File with the projected token, whose audience is the mesh's trust domain; with --attest=kubernetes.
    #[arg(long, env = "OUTRIGGER_ATTEST_TOKEN_FILE", default_value = "/var/run/secrets/tokens/outrigger")]
    pub attest_token_file: PathBuf,
    /// Folder for key, certificate and last good configuration; made if absent.
    /// In a mesh the default is /var/lib/outrigger-proxy; outside it, nothing is kept unless it is given.
    #[arg(long, env = "OUTRIGGER_STATE_DIR")]
    pub state_dir: Option<PathBuf>,
    /// Sidecar or gateway.
    #[arg(long, env = "OUTRIGGER_ROLE", value_enum, default_value = "sidecar")]
    pub role: Role,
    /// Namespace of the workload.
    #[arg(long, env = "OUTRIGGER_NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Service account of the workload; its identity ends in it.
    #[arg(long, env = "OUTRIGGER_SERVICE_ACCOUNT", default_value = "default")]
    pub service_account: String,
    /// Service the workload is an instance of.
    #[arg(long, env = "OUTRIGGER_SERVICE", default_value = "")]
    pub service: String,
    /// Version of the application.
    #[arg(long, env = "OUTRIGGER_VERSION", default_value = "")]
    pub service_version: String,
    /// WorkloadGroup of the namespace that the workload belongs to: it has from there what is not said here, and a probe.
    #[arg(long, env = "OUTRIGGER_WORKLOAD_GROUP", default_value = "")]
    pub workload_group: String,
    /// Labels, `key=value`.
    #[arg(long, env = "OUTRIGGER_LABELS", value_delimiter = ',')]
    pub label: Vec<String>,
    /// Name of this instance, unique in the namespace. Default: from the state folder's, made once.
    #[arg(long, env = "OUTRIGGER_INSTANCE_ID")]
    pub instance_id: Option<String>,
    /// Address at which other hosts reach this proxy. Default: that of the route to the control service.
    #[arg(long, env = "OUTRIGGER_ADDRESS")]
    pub address: Option<IpAddr>,
    /// Application ports, `name:protocol:number[:target-port[:inbound-port]]`.
    #[arg(long, env = "OUTRIGGER_PORTS", value_delimiter = ',')]
    pub port: Vec<String>,
    /// Address at which this proxy reaches the application; another than loopback where the application has a network
    /// namespace of its own. What passes there is not encrypted.
    #[arg(long, env = "OUTRIGGER_APP_ADDRESS", default_value = "127.0.0.1")]
    pub app_address: IpAddr,
    /// Port at which the mesh reaches this proxy.
    #[arg(long, env = "OUTRIGGER_INBOUND_PORT", default_value_t = 15006)]
    pub inbound_port: u16,
    /// Port at which the application reaches the mesh; 0: none.
    #[arg(long, env = "OUTRIGGER_OUTBOUND_PORT", default_value_t = 15001)]
    pub outbound_port: u16,
    /// Address to bind that port on. Whoever reaches it calls with this workload's identity: choose another than
    /// loopback only where the application has a network namespace of its own.
    #[arg(long, env = "OUTRIGGER_OUTBOUND_ADDRESS", default_value = "127.0.0.1")]
    pub outbound_address: IpAddr,
    /// region/zone/sub_zone.
    #[arg(long, env = "OUTRIGGER_LOCALITY", default_value = "")]
    pub locality: String,
    /// Admin interface.
    #[arg(long, env = "OUTRIGGER_ADMIN_ADDRESS", default_value = "127.0.0.1:15000")]
    pub admin_address: SocketAddr,
    /// After leaving the registry, go on accepting for so long, until every peer knows.
    #[arg(long, env = "OUTRIGGER_LEAVE_GRACE_MS", default_value_t = 1000)]
    pub leave_grace_ms: u64,
}
