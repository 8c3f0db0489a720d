//! `outrigger-agent`: the command line.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum};
use outrigger_agent::agent::Agent;
use outrigger_agent::capture::enter::{Enter, enter};
use outrigger_agent::capture::netns::{RuleWriter, SystemWriter};
use outrigger_agent::config::AgentConfig;
use outrigger_agent::docker::Docker;
use outrigger_agent::identity::Identities;
use outrigger_agent::{address, admin};
use outrigger_member::folder::make_private;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Outrigger's host agent: finds the tasks of this host, gives each its proxy, redirects its traffic.
#[derive(Debug, Parser)]
#[command(name = "outrigger-agent", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Care for the tasks of this host until SIGTERM. What runs goes on without the agent.
    Run(Run),
    /// Give all tasks back: out of the registry, redirection away, sidecars drained and removed. The agent must not run.
    Offboard(Settings),
    /// Look whether this host has what the agent needs: docker, a program to redirect with, identities, the control
    /// service. Starts nothing; exit code 0 or 1.
    Check(Settings),
    /// Print what a running agent knows of this host's containers, as JSON.
    Containers(Health),
    /// Ask a running agent whether it is ready; exit code 0 or 1.
    Health(Health),
    /// Run a program in a network namespace; used by the agent itself.
    #[command(hide = true)]
    Enter(Enter),
}

#[derive(Debug, Args)]
struct Run {
    #[command(flatten)]
    settings: Settings,
    /// Print what would be done for every container, once, and do nothing.
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Args)]
struct Settings {
    /// The agent's settings.
    #[arg(long, env = "OUTRIGGER_AGENT_CONFIG", default_value = "/etc/outrigger/agent.yaml")]
    config: PathBuf,
    /// What is logged, e.g. info, debug, or outrigger_agent=debug,info.
    #[arg(long, env = "OUTRIGGER_LOG", default_value = "info")]
    log_level: String,
    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

#[derive(Debug, Args)]
struct Health {
    /// Admin address of the running agent.
    #[arg(long, default_value = "127.0.0.1:15090")]
    admin_address: SocketAddr,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<ExitCode> {
    let verb = Cli::parse().verb;
    // Before there is any thread.
    if let Verb::Enter(flags) = &verb {
        let code = enter(flags)?;
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    // A thread is plenty for what an agent does, and little memory.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match verb {
            Verb::Run(run) => serve(&run).await,
            Verb::Offboard(settings) => offboard(&settings).await,
            Verb::Check(settings) => check(&settings).await,
            Verb::Containers(flags) => containers(&flags).await,
            Verb::Health(flags) => health(&flags).await,
            Verb::Enter(_) => Ok(ExitCode::FAILURE),
        }
    })
}

async fn serve(flags: &Run) -> anyhow::Result<ExitCode> {
    start_log(&flags.settings)?;
    let config = Arc::new(AgentConfig::load(&flags.settings.config)?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    if flags.dry_run {
        let agent = agent(&config).await?;
        agent.rehearse().await?;
        return Ok(ExitCode::SUCCESS);
    }
    let _only = only_one(&config.state_dir)?;
    let listener = tokio::net::TcpListener::bind(config.admin_address)
        .await
        .with_context(|| format!("adminAddress {}", config.admin_address))?;
    let agent = tokio::select! {
        agent = agent(&config) => agent?,
        _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
        _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
    };
    tracing::info!(address = %agent.address, docker = %config.docker.display(), "agent starts");
    tokio::select! {
        () = agent.clone().run() => {}
        () = admin::serve(listener, agent.clone()) => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("agent ends; sidecars and redirection stay");
    Ok(ExitCode::SUCCESS)
}

async fn offboard(settings: &Settings) -> anyhow::Result<ExitCode> {
    start_log(settings)?;
    let config = Arc::new(AgentConfig::load(&settings.config)?);
    let _only = only_one(&config.state_dir)?;
    agent(&config).await?.offboard().await?;
    Ok(ExitCode::SUCCESS)
}

async fn check(settings: &Settings) -> anyhow::Result<ExitCode> {
    start_log(settings)?;
    let config = Arc::new(AgentConfig::load(&settings.config)?);
    let mut code = ExitCode::SUCCESS;
    for finding in outrigger_agent::check::check(&config).await {
        match finding.outcome {
            Ok(seen) => println!("ok      {}: {seen}", finding.what),
            Err(error) => {
                println!("FAILED  {}: {error:#}", finding.what);
                code = ExitCode::FAILURE;
            }
        }
    }
    Ok(code)
}

async fn containers(flags: &Health) -> anyhow::Result<ExitCode> {
    println!("{}", admin::ask(flags.admin_address, "/containers").await?);
    Ok(ExitCode::SUCCESS)
}

async fn health(flags: &Health) -> anyhow::Result<ExitCode> {
    match admin::ask(flags.admin_address, "/ready").await {
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            eprintln!("{error:#}");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Waits for docker to be there: at a host's start the agent may come first.
async fn agent(config: &Arc<AgentConfig>) -> anyhow::Result<Arc<Agent>> {
    let address = config
        .address
        .or_else(address::of_default_route)
        .context("address: this host has no default route; give it")?;
    if !address::is_ours(address) {
        tracing::warn!(%address, "no interface of this host has it; others must be led here by translation");
    }
    let identities = Identities::open(config.clone())?;
    let writer = match SystemWriter::find(config.capture.tool) {
        _ if !config.capture.enabled => None,
        Ok(writer) => {
            tracing::info!(program = writer.name(), "traffic can be redirected");
            Some(Box::new(writer) as Box<dyn RuleWriter>)
        }
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "traffic cannot be redirected");
            None
        }
    };
    let mut said = false;
    let docker = loop {
        match Docker::connect(&config.docker).await {
            Ok(docker) => break docker,
            Err(error) if !said => {
                tracing::warn!(%error, "waiting for docker");
                said = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    };
    Ok(Arc::new(Agent::new(config.clone(), address, docker, Box::new(identities), writer)))
}

/// Two agents on one host would undo each other's work.
fn only_one(state_dir: &Path) -> anyhow::Result<File> {
    make_private(state_dir, rustix::process::geteuid().as_raw())?;
    let file = File::create(state_dir.join("lock"))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)
        .with_context(|| format!("another agent uses {}", state_dir.display()))?;
    Ok(file)
}

fn start_log(settings: &Settings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log_level).context("--log-level")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
