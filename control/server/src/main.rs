//! `outrigger-control`: the control service's command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use outrigger_control::health;
use outrigger_control::identity::{AuthoritySettings, ServerNames};
use outrigger_control::observing::{Observing, collector, json_access_log, sampling};
use outrigger_control::service::{Service, ServiceSettings};
use outrigger_control::source::Reach;
use outrigger_control::source::register::RegistrySettings;
use outrigger_control::source::settings::SourcesFile;
use outrigger_plan::MeshTracing;
use outrigger_traffic::config::{AccessLog, EndpointAddress, Fraction};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Outrigger's control service: registry, policy, certificate authority, xDS server, operator API.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the service until SIGTERM or SIGINT.
    Run(Box<Run>),
    /// Ask the service that keeps its data in the directory whether it is ready; exits 0 or 1. For health checks of
    /// containers whose image has no shell.
    Health(HealthCheck),
}

#[derive(clap::Args)]
struct HealthCheck {
    /// Directory of the service: there it says where it listens.
    #[arg(long, env = "OUTRIGGER_DATA_DIR")]
    data_dir: PathBuf,
    /// How long to wait for an answer.
    #[arg(long, default_value = "3s", value_parser = duration)]
    timeout: Duration,
}

#[derive(clap::Args)]
struct Run {
    /// Directory for everything that must survive a restart. Made on first start.
    #[arg(long, env = "OUTRIGGER_DATA_DIR")]
    data_dir: PathBuf,
    /// Where members of the mesh call: xDS, registration, certificates. Always TLS.
    #[arg(long, default_value = "0.0.0.0:15012")]
    xds_address: SocketAddr,
    /// Where operators call. Plaintext on a loopback address, TLS on any other.
    #[arg(long, default_value = "127.0.0.1:15080")]
    api_address: SocketAddr,
    /// TLS for operators on a loopback address too.
    #[arg(long)]
    api_tls: bool,
    /// SPIFFE trust domain of all identities. Cannot be changed later.
    #[arg(long, default_value = "cluster.local")]
    trust_domain: String,
    /// Last part of the mesh's own host names: SERVICE.NAMESPACE.MESH_DOMAIN.
    #[arg(long, default_value = "mesh")]
    mesh_domain: String,
    /// Life of a workload certificate, e.g. 24h, 90m, 20s.
    #[arg(long, default_value = "24h", value_parser = duration)]
    svid_ttl: Duration,
    /// How far the clocks of the mesh may be apart.
    #[arg(long, default_value = "60s", value_parser = duration)]
    clock_skew: Duration,
    /// How long a workload stays without a heartbeat.
    #[arg(long, default_value = "30s", value_parser = duration)]
    lease_ttl: Duration,
    /// How long workloads stay without a heartbeat after this service has restarted.
    #[arg(long, default_value = "120s", value_parser = duration)]
    lease_grace: Duration,
    /// Let workloads register loopback addresses: for a mesh whose members are all on this host, like the demo.
    #[arg(long)]
    allow_loopback_workloads: bool,
    /// DNS name by which hosts call this service, for its certificate. May be repeated.
    #[arg(long = "server-name", default_value = "localhost")]
    server_names: Vec<String>,
    /// IP address by which hosts call this service, for its certificate. May be repeated.
    #[arg(long = "server-ip", default_values_t = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])])]
    server_ips: Vec<IpAddr>,
    /// File that names the discovery sources: ECS, Kubernetes, DNS, files (docs/sources.md). Read at the start.
    #[arg(long, env = "OUTRIGGER_SOURCES")]
    sources: Option<PathBuf>,
    /// Region of the STS that is asked about proofs by roles of AWS. Without it roles prove nothing.
    #[arg(long, env = "OUTRIGGER_AWS_STS_REGION")]
    aws_sts_region: Option<String>,
    /// URL of that STS, where it is not AWS's own.
    #[arg(long, env = "OUTRIGGER_AWS_STS_ENDPOINT", requires = "aws_sts_region")]
    aws_sts_endpoint: Option<String>,
    /// Access log of the mesh's proxies, in JSON lines: stdout, stderr or a path. Without it they keep none.
    #[arg(long, env = "OUTRIGGER_ACCESS_LOG", value_parser = json_access_log)]
    access_log: Option<AccessLog>,
    /// Collector of the traces of the mesh's proxies: HOST:PORT, OTLP over gRPC in plaintext. Without it they make none.
    #[arg(long, env = "OUTRIGGER_TRACE_COLLECTOR", value_parser = collector)]
    trace_collector: Option<EndpointAddress>,
    /// Percentage of the requests that are traced when their callers have not decided it.
    #[arg(long, env = "OUTRIGGER_TRACE_SAMPLING", default_value = "1", value_parser = sampling)]
    trace_sampling: Fraction,
    /// What is logged, e.g. info, debug, or outrigger_control=debug,info.
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info")]
    log_level: String,
    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().verb {
        Verb::Run(run) => run_service(*run),
        Verb::Health(check) => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(health::check(&check.data_dir, check.timeout))?;
            println!("ready");
            Ok(())
        }
    }
}

fn run_service(run: Run) -> anyhow::Result<()> {
    start_log(&run)?;
    // One thread for I/O is plenty for what a control service does; planning, signing and disk writes
    // run on threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(run))
}

async fn serve(run: Run) -> anyhow::Result<()> {
    anyhow::ensure!(run.svid_ttl >= Duration::from_secs(5), "--svid-ttl must be at least 5s");
    anyhow::ensure!(run.lease_ttl >= Duration::from_secs(1), "--lease-ttl must be at least 1s");
    let sources = run.sources.as_deref().map(SourcesFile::load).transpose().context("--sources")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let service = Service::start(ServiceSettings {
        data_dir: run.data_dir.clone(),
        xds_address: run.xds_address,
        api_address: run.api_address,
        api_tls: run.api_tls,
        mesh_domain: run.mesh_domain,
        observing: Observing {
            access_log: run.access_log.into_iter().collect(),
            tracing: run
                .trace_collector
                .map(|collector| MeshTracing { collector, sampling: run.trace_sampling }),
        },
        authority: AuthoritySettings {
            trust_domain: run.trust_domain,
            svid_ttl: run.svid_ttl,
            clock_skew: run.clock_skew,
        },
        registry: RegistrySettings {
            ttl: run.lease_ttl,
            grace: run.lease_grace,
            reach: if run.allow_loopback_workloads { Reach::Host } else { Reach::Network },
        },
        sources: sources.unwrap_or_default(),
        sts: run.aws_sts_region.map(|region| (region, run.aws_sts_endpoint)),
        names: ServerNames { dns: run.server_names, ip: run.server_ips },
    })
    .await
    .context("the control service did not start")?;
    if let Some(token) = &service.first_token {
        println!(
            "First operator token (shown once, also in {}):",
            run.data_dir.join("admin.token").display()
        );
        println!("{token}");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    service.stop().await;
    Ok(())
}

fn start_log(run: &Run) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&run.log_level).context("--log-level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match run.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// Reads a number with a unit: `ms`, `s`, `m`, `h` or `d`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a number and a unit, e.g. 90m".to_owned())?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("the unit must be ms, s, m, h or d".to_owned()),
    };
    number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(|| "too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "s", "20", "1.5h", "-1s", "20 s", "99999999999999999999d", "9999999999999999d"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
