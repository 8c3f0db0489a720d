//! From flags to a running proxy, and to its end.

use crate::bootstrap::{self, Plan, refused};
use crate::cli::Run;
use crate::concurrency::default_concurrency;
use crate::feed::{EngineSink, FeedView};
use crate::footprint;
use crate::links::{self, Ground};
use crate::logging::{self, LevelHandle};
use crate::logs;
use crate::mesh::client::ControlClient;
use crate::mesh::enrol;
use crate::mesh::own::OwnSvid;
use crate::mesh::register::Registration;
use crate::mesh::svid::{self, Svid};
use crate::otlp::{self, ExportStatus};
use crate::runtime::{self, RuntimeView};
use anyhow::Context;
use outrigger_engine::admin::{LogLevel, Sources};
use outrigger_engine::proxy::{Proxy, ProxyHandle, ProxyOptions};
use outrigger_engine::telemetry::access_log::log_outlet;
use outrigger_engine::telemetry::trace::span_queue;
use outrigger_xds::ads::session::Variant;
use outrigger_xds::ads::stream::{self, StreamOptions};
use outrigger_xds::feed::Feed;
use outrigger_xds::ingredients::Ingredients;
use outrigger_xds::last_good::LastGood;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Spans waiting for the exporter.
const SPANS_MAX: usize = 4096;

/// Serves until SIGTERM, SIGINT or `/quitquitquit`.
///
/// # Errors
/// When the flags or the configuration cannot be used.
pub fn serve(flags: &Run) -> anyhow::Result<ExitCode> {
    let level = logging::start(&flags.log_level, flags.log_format)?;
    let plan = bootstrap::plan(flags)?;
    // What was needed to read the file is not needed to serve.
    outrigger_api::forget_pool();
    // The control thread: everything that is not a request.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(flags, plan, level))
}

async fn run(flags: &Run, plan: Plan, level: LevelHandle) -> anyhow::Result<ExitCode> {
    let view = FeedView::default();
    let log_status = view.logs.clone();
    let runtime = RuntimeView::default();
    let (logs, log_lines) = log_outlet();
    let (spans, exported) = span_queue(SPANS_MAX);
    let mut options = ProxyOptions {
        concurrency: flags.concurrency.unwrap_or_else(default_concurrency),
        node: plan.identity.clone(),
        admin: plan.admin,
        drain_time: Duration::from_secs(flags.drain_time_s),
        share_ports: flags.share_ports,
        logs: Some(logs),
        spans: Some(Arc::new(spans)),
        overload: plan.overload.clone(),
        admin_sources: Sources {
            config_dump: Some(Arc::new(view.clone())),
            log_level: Some(Arc::new(Level { handle: level, text: Mutex::new(flags.log_level.clone()) })),
            runtime: Some(Arc::new(runtime.clone())),
            metrics: Some(Arc::new(view.clone())),
            command_line: command_line(flags),
        },
        ..ProxyOptions::default()
    };
    let connections = plan.runtime.whole(outrigger_xds::runtime::CONNECTIONS_MAX, u64::MAX);
    options.connections_max = options.connections_max.min(usize::try_from(connections).unwrap_or(usize::MAX));
    let proxy = Proxy::start(options).context("proxy cannot be started")?;
    if let (Some(path), Some(address)) = (&flags.admin_address_path, proxy.admin_addr()) {
        std::fs::write(path, address.to_string()).context("--admin-address-path")?;
    }
    let collector = bootstrap::collector(proxy.clone());
    tokio::spawn(otlp::export(
        exported,
        collector,
        plan.identity.id.as_str().into(),
        Arc::new(ExportStatus::default()),
    ));
    tokio::spawn(footprint::keep_small(proxy.clone()));
    tokio::spawn(logs::export(log_lines, bootstrap::log_reach(proxy.clone()), plan.node.clone(), log_status));
    let membership = configure(flags, plan, &proxy, view.clone(), &runtime).await?;
    wait_for_the_end(&proxy).await?;
    if let Some(membership) = &membership {
        membership.stream.abort();
    }
    view.flush();
    if let Some(membership) = membership {
        leave(&membership, Duration::from_millis(flags.mesh.leave_grace_ms)).await;
    }
    let cut = proxy.drain().await;
    if cut > 0 {
        tracing::warn!(connections = cut, "drain time was over before these had finished");
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the configuration in: static, from a foreign control service, or from the mesh.
async fn configure(
    flags: &Run,
    plan: Plan,
    proxy: &ProxyHandle,
    view: FeedView,
    runtime: &RuntimeView,
) -> anyhow::Result<Option<Membership>> {
    let sink = Arc::new(EngineSink(proxy.clone()));
    if !flags.mesh.control.is_empty() {
        return join_mesh(flags, plan, sink, view).await.map(Some);
    }
    if plan.dynamic.is_empty() && plan.wanted.is_empty() && plan.runtime.layers.is_empty() {
        proxy.apply(plan.config).map_err(|errors| refused(&errors))?;
        return Ok(None);
    }
    let last_good = flags.state_dir().map(|folder| LastGood::new(folder.join("last-good")));
    let links = plan.dynamic.iter().map(|control| control.link.clone()).collect();
    let ground = Ground { config: plan.config.clone(), node: plan.node };
    let ingredients = Ingredients { runtime: plan.runtime, ..Ingredients::default() };
    let feed = Feed::with_links(links, plan.config, sink, last_good).naming(plan.wanted);
    let mut feed = feed.remaking(plan.remake, ingredients);
    let restored = feed.start(Instant::now()).map_err(|errors| refused(&errors))?;
    tracing::info!(resources = restored, "started from disk");
    let feed = Arc::new(Mutex::new(feed));
    view.set(feed.clone());
    runtime.set(feed.clone());
    tokio::spawn(runtime::follow_disk(feed.clone()));
    links::follow(feed, plan.dynamic, ground, view);
    Ok(None)
}

/// Enrols, starts from what is on disk, follows the control service, registers.
async fn join_mesh(
    flags: &Run,
    plan: Plan,
    sink: Arc<EngineSink>,
    view: FeedView,
) -> anyhow::Result<Membership> {
    let settings = bootstrap::settings(flags)?;
    let client = Arc::new(ControlClient::new(settings.clone()));
    let first = enrol::first(&client, &settings).await?;
    if let Some(principal) = first.principal() {
        // It is set here and nowhere else: a renewed certificate names the same.
        let _ = plan.identity.principal.set(principal);
    }
    let (mut base, mut node) = (plan.config, plan.node);
    bootstrap::mesh_node(&mut node, &settings);
    base.secrets.extend(svid::secrets(&first));
    let last_good = LastGood::new(settings.state_dir.join("last-good"));
    let mut feed = Feed::new(Variant::Delta, base, sink, Some(last_good));
    let restored = feed.start(Instant::now()).map_err(|errors| refused(&errors))?;
    tracing::info!(resources = restored, role = ?settings.role, "started from disk");
    let feed = Arc::new(Mutex::new(feed));
    view.set(feed.clone());
    let own = Arc::new(OwnSvid::new(client.clone(), &settings.state_dir, first));
    tokio::spawn(use_renewed(own.watch(), feed.clone()));
    tokio::spawn(enrol::keep_fresh(client.clone(), settings.clone(), own.clone()));
    tokio::spawn(enrol::follow_roots(client.clone(), own));
    let registration = Arc::new(Registration::new(client.clone(), settings));
    let kept = registration.clone();
    tokio::spawn(async move { kept.keep().await });
    let transport = Arc::new(client.transport()?);
    let options = StreamOptions::aggregated(Variant::Delta, node);
    let stream = tokio::spawn(stream::run(feed, transport, options, view.add_stream())).abort_handle();
    Ok(Membership { registration, stream })
}

/// What a proxy of a mesh ends when it goes.
struct Membership {
    registration: Arc<Registration>,
    stream: AbortHandle,
}

/// Every renewed certificate and every changed trust bundle takes effect in the running proxy.
async fn use_renewed(mut renewed: watch::Receiver<Svid>, feed: Arc<Mutex<Feed>>) {
    while renewed.changed().await.is_ok() {
        let secrets = svid::secrets(&renewed.borrow_and_update());
        let result =
            feed.lock().unwrap_or_else(PoisonError::into_inner).set_local_secrets(secrets, Instant::now());
        if let Err(errors) = result {
            tracing::error!(?errors, "renewed certificate cannot be used");
        }
    }
}

/// Peers are told first; for a moment they may still come.
///
/// The configuration is not followed any more by now: that of a workload that has left is empty. It would take the
/// listeners away while requests still come, and the last good configuration from the disk, of which the next start is
/// to serve.
async fn leave(membership: &Membership, grace: Duration) {
    let registration = &membership.registration;
    if let Err(error) = registration.leave().await {
        tracing::warn!(error = format!("{error:#}"), "left without telling the control service");
    }
    tokio::time::sleep(grace).await;
}

async fn wait_for_the_end(proxy: &ProxyHandle) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reopen = signal(SignalKind::user_defined1())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = proxy.quit_requested() => return Ok(()),
            _ = reopen.recv() => { proxy.reopen_logs(); }
        }
    }
}

fn command_line(flags: &Run) -> serde_json::Map<String, serde_json::Value> {
    let mut map = serde_json::Map::new();
    let mut put = |name: &str, value: serde_json::Value| drop(map.insert(name.into(), value));
    put("config_path", flags.config_path.as_ref().map(|p| p.display().to_string()).into());
    put("concurrency", flags.concurrency.into());
    put("drain_time", format!("{}s", flags.drain_time_s).into());
    put("log_level", flags.log_level.clone().into());
    put("mode", "Serve".into());
    map
}

/// `/logging` of the admin interface.
#[derive(Debug)]
struct Level {
    handle: LevelHandle,
    text: Mutex<String>,
}

impl LogLevel for Level {
    fn level(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_level(&self, level: &str) -> Result<(), String> {
        let filter = logging::parse(level).map_err(|e| e.to_string())?;
        self.handle.reload(filter).map_err(|e| e.to_string())?;
        level.clone_into(&mut self.text.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}
