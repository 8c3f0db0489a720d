//! From flags and bootstrap file to what the proxy starts with.

use crate::cli::{Role, Run};
use crate::links;
use crate::mesh::settings::Settings;
use anyhow::{Context, bail};
use outrigger_api::envoy::config::core::v3::Node;
use outrigger_channel::ControlAddress;
use outrigger_engine::identity::{ClientTls, Secrets};
use outrigger_engine::proxy::ProxyHandle;
use outrigger_engine::telemetry::{NodeIdentity, WorkloadLabels};
use outrigger_traffic::config::{
    Cluster, ClusterDiscovery, Config, ConfigError, EndpointAddress, Endpoints, HttpConnectionManager,
    OverloadManager, Terminal,
};
use outrigger_xds::ads::Kind;
use outrigger_xds::ads::session::Variant;
use outrigger_xds::ads::stream::{Service, StreamOptions};
use outrigger_xds::bootstrap::{Bootstrap, Dynamic, DynamicSource, Format, GrpcSource, load_bootstrap_with};
use outrigger_xds::feed::Remake;
use outrigger_xds::feed::links::{LinkId, LinkPlan, unreachable};
use outrigger_xds::runtime::Runtime;
use outrigger_xds::source::{FileSource, Source, Wanted};
use outrigger_xds::translate::CameFrom;
use outrigger_xds::translate::files::Disk;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

/// What the proxy starts with.
pub struct Plan {
    /// Static resources.
    pub config: Config,
    /// Who this proxy is, on the wire.
    pub node: Node,
    /// Who this proxy is, in metrics.
    pub identity: NodeIdentity,
    /// Admin interface.
    pub admin: Option<SocketAddr>,
    /// The streams that the bootstrap file asks for; [`LinkId`] is the position among them.
    pub dynamic: Vec<Control>,
    /// What the static resources name, with the source.
    pub wanted: Vec<Wanted>,
    /// Runtime values.
    pub runtime: Runtime,
    /// Makes the static resources anew when runtime values change.
    pub remake: Remake,
    /// What is refused when memory runs out.
    pub overload: OverloadManager,
}

/// A source of configuration that a bootstrap file names.
pub struct Control {
    /// What it carries.
    pub link: LinkPlan,
    /// How it is followed.
    pub way: Way,
}

/// How a source is followed.
pub enum Way {
    /// A stream from a control service: where it is, and how to speak with it.
    Stream(Box<(ControlAddress, StreamOptions)>),
    /// A file.
    File(Kind, FileSource),
}

/// Reads the bootstrap file and checks it together with the flags.
///
/// # Errors
/// With every problem of the file, one a line.
pub fn plan(flags: &Run) -> anyhow::Result<Plan> {
    let mut bootstrap = read(flags).map_err(|errors| refused(&errors))?;
    for notice in &bootstrap.notices {
        tracing::info!(field = notice.path, reason = notice.reason, "field has no effect");
    }
    let mesh = !flags.mesh.control.is_empty();
    if mesh && bootstrap.dynamic != Dynamic::default() {
        bail!("--control and dynamic_resources of the bootstrap file exclude each other");
    }
    if !mesh && flags.config_path.is_none() && flags.config_yaml.is_none() {
        bail!("give --config-path, --config-yaml or --control");
    }
    fill_node(&mut bootstrap.node, flags);
    bootstrap.locate();
    // In a mesh everything comes from `--control`.
    let dynamic = if mesh { Vec::new() } else { controls(&bootstrap).map_err(|errors| refused(&errors))? };
    let identity = identity(&bootstrap.node, flags);
    let admin = bootstrap.admin.or(mesh.then_some(flags.mesh.admin_address));
    Ok(Plan {
        remake: bootstrap.remake(),
        runtime: bootstrap.runtime,
        config: bootstrap.config,
        node: bootstrap.node,
        identity,
        admin,
        dynamic,
        wanted: bootstrap.wanted,
        overload: bootstrap.overload,
    })
}

/// `--mode validate`: every problem, one a line, exit code 1; or a line that says all is well.
///
/// # Errors
/// When the file cannot be read at all.
pub fn validate(flags: &Run) -> anyhow::Result<ExitCode> {
    let source =
        flags.config_path.as_ref().map_or_else(|| "--config-yaml".to_owned(), |p| p.display().to_string());
    let errors = match read(flags) {
        Err(errors) => errors,
        Ok(bootstrap) => {
            for notice in &bootstrap.notices {
                println!("{source}: note: {notice}");
            }
            problems(&bootstrap, !flags.mesh.control.is_empty())
        }
    };
    for error in &errors {
        println!("{source}: {error}");
    }
    if errors.is_empty() {
        println!("configuration '{source}' OK");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} problems", errors.len());
    Ok(ExitCode::FAILURE)
}

/// What the engine would refuse.
fn problems(bootstrap: &Bootstrap, mesh: bool) -> Vec<ConfigError> {
    let mut errors = outrigger_traffic::compile(&bootstrap.config, None).err().unwrap_or_default();
    errors.extend(outrigger_engine::config::check(&bootstrap.config));
    if !mesh {
        match controls(bootstrap) {
            Ok(controls) => errors.extend(links::problems(bootstrap, controls)),
            Err(more) => errors.extend(more),
        }
    }
    let mut seen = std::collections::HashSet::new();
    errors.retain(|e| seen.insert(e.clone()));
    errors
}

fn read(flags: &Run) -> Result<Bootstrap, Vec<ConfigError>> {
    let Some(path) = &flags.config_path else {
        return match &flags.config_yaml {
            None => Ok(Bootstrap::default()),
            Some(text) => load_bootstrap_with(Some((text, Format::Yaml)), None, &Disk),
        };
    };
    let text = std::fs::read_to_string(path).map_err(|e| {
        vec![ConfigError::new("", path.display().to_string(), format!("cannot be read: {e}"))]
    })?;
    let format = match path.extension().and_then(|e| e.to_str()) {
        Some("json") => Format::Json,
        _ => Format::Yaml,
    };
    load_bootstrap_with(Some((&text, format)), flags.config_yaml.as_deref(), &Disk)
}

fn fill_node(node: &mut Node, flags: &Run) {
    if let Some(id) = flags.service_node.as_ref().filter(|_| node.id.is_empty()) {
        node.id.clone_from(id);
    }
    if let Some(cluster) = flags.service_cluster.as_ref().filter(|_| node.cluster.is_empty()) {
        node.cluster.clone_from(cluster);
    }
    if let Some(zone) = &flags.service_zone {
        let locality = node.locality.get_or_insert_default();
        if locality.zone.is_empty() {
            locality.zone.clone_from(zone);
        }
    }
    node.user_agent_name = "outrigger".into();
    node.user_agent_version_type =
        Some(outrigger_api::envoy::config::core::v3::node::UserAgentVersionType::UserAgentVersion(
            env!("CARGO_PKG_VERSION").into(),
        ));
}

/// In a mesh the node is the registered workload.
pub fn mesh_node(node: &mut Node, settings: &Settings) {
    node.id.clone_from(&settings.workload.node_id);
    let service = &settings.workload.service;
    node.cluster =
        if service.is_empty() { settings.workload.service_account.clone() } else { service.clone() };
}

fn identity(node: &Node, flags: &Run) -> NodeIdentity {
    let mesh = &flags.mesh;
    let mut identity =
        NodeIdentity { id: node.id.clone(), cluster: node.cluster.clone(), ..NodeIdentity::default() };
    if mesh.control.is_empty() {
        return identity;
    }
    let name = if mesh.service.is_empty() { &mesh.service_account } else { &mesh.service };
    let label =
        |key: &str| mesh.label.iter().find_map(|l| l.strip_prefix(key)?.strip_prefix('=')).map(str::to_owned);
    identity.cluster.clone_from(name);
    identity.workload = WorkloadLabels {
        workload: mesh
            .instance_id
            .clone()
            .filter(|_| mesh.role == Role::Gateway)
            .unwrap_or_else(|| name.clone()),
        namespace: mesh.namespace.clone(),
        app: label("app").unwrap_or_else(|| name.clone()),
        version: mesh.service_version.clone(),
        canonical_service: name.clone(),
        ..WorkloadLabels::default()
    };
    identity
}

/// The streams of `dynamic_resources`: the aggregated one, and one for each kind with a server of its own. A kind that
/// the file gives no source for is not asked for, as in Envoy.
fn controls(bootstrap: &Bootstrap) -> Result<Vec<Control>, Vec<ConfigError>> {
    let dynamic = &bootstrap.dynamic;
    let mut controls = Vec::new();
    let mut errors = Vec::new();
    let mut add = |field: &str, source: &DynamicSource, service: Service, kinds: BTreeSet<Kind>| match control(
        bootstrap,
        source,
        service,
        kinds,
        LinkId(controls.len()),
    ) {
        Ok(one) => controls.extend(one),
        Err(more) => errors.extend(more.into_iter().map(|mut error| {
            if error.resource.is_empty() {
                error.path = format!("dynamic_resources.{field}");
            }
            error
        })),
    };
    if let Some(ads) = &dynamic.ads {
        let wildcard = |kind: &Kind| kind.is_wildcard();
        let mut kinds: BTreeSet<Kind> = Kind::ALL.into_iter().filter(|kind| !wildcard(kind)).collect();
        let from_ads = |source: &Option<DynamicSource>| *source == Some(DynamicSource::Ads);
        kinds.extend(from_ads(&dynamic.clusters).then_some(Kind::Cluster));
        kinds.extend(from_ads(&dynamic.listeners).then_some(Kind::Listener));
        add("ads_config", &DynamicSource::Own(ads.clone()), Service::Aggregated, kinds);
    }
    for (field, kind, source) in
        [("cds_config", Kind::Cluster, &dynamic.clusters), ("lds_config", Kind::Listener, &dynamic.listeners)]
    {
        if let Some(source) = source {
            add(field, source, Service::Own(kind), [kind].into());
        }
    }
    let plans: Vec<LinkPlan> = controls.iter().map(|control| control.link.clone()).collect();
    errors.extend(unreachable(&bootstrap.config, &bootstrap.wanted, &plans));
    if errors.is_empty() { Ok(controls) } else { Err(errors) }
}

fn control(
    bootstrap: &Bootstrap,
    source: &DynamicSource,
    service: Service,
    kinds: BTreeSet<Kind>,
    link: LinkId,
) -> Result<Option<Control>, Vec<ConfigError>> {
    Ok(Some(match (source, service) {
        (DynamicSource::File(file), Service::Own(kind)) => Control {
            link: LinkPlan::own(kind, Source::File(file.clone())),
            way: Way::File(kind, file.clone()),
        },
        (DynamicSource::Own(server), Service::Own(kind)) => Control {
            link: LinkPlan::own(kind, Source::Own(server.clone())),
            way: stream(&bootstrap.config, &bootstrap.node, server, service, link)?,
        },
        (DynamicSource::Own(server), Service::Aggregated) => {
            let variant = if server.delta { Variant::Delta } else { Variant::StateOfTheWorld };
            let (came_from, source) = (CameFrom::Aggregated, Source::Aggregated);
            Control {
                link: LinkPlan { variant, kinds, came_from, source },
                way: stream(&bootstrap.config, &bootstrap.node, server, service, link)?,
            }
        }
        // Part of the aggregated stream.
        (DynamicSource::Ads, _) | (DynamicSource::File(_), Service::Aggregated) => return Ok(None),
    }))
}

/// A stream to a server that one of the static clusters reaches.
///
/// # Errors
/// Every reason why it cannot be opened.
pub fn stream(
    config: &Config,
    node: &Node,
    server: &GrpcSource,
    service: Service,
    link: LinkId,
) -> Result<Way, Vec<ConfigError>> {
    let cluster = config.clusters.iter().find(|c| c.name == server.cluster);
    let Some(cluster) = cluster else {
        let reason = format!("there is no static cluster `{}`", server.cluster);
        return Err(vec![ConfigError::new("", "", reason)]);
    };
    let variant = if server.delta { Variant::Delta } else { Variant::StateOfTheWorld };
    let options = StreamOptions {
        link,
        service,
        variant,
        node: node.clone(),
        metadata: server.metadata.clone(),
        backoff: server.backoff,
        node_once: server.node_once,
    };
    Ok(Way::Stream(Box::new((control_address(cluster, config, &server.authority)?, options))))
}

/// The addresses and TLS settings of a cluster, for connections of a gRPC client.
fn control_address(
    cluster: &Cluster,
    config: &Config,
    authority: &str,
) -> Result<ControlAddress, Vec<ConfigError>> {
    let resource = format!("cluster/{}", cluster.name);
    let endpoints: &Endpoints = match &cluster.discovery {
        ClusterDiscovery::Static(e)
        | ClusterDiscovery::StrictDns { endpoints: e, .. }
        | ClusterDiscovery::LogicalDns { endpoints: e, .. } => e,
        ClusterDiscovery::Eds { .. } | ClusterDiscovery::OriginalDst(_) => {
            return Err(vec![ConfigError::new(
                resource,
                "type",
                "must not be EDS or ORIGINAL_DST for a cluster that configuration comes from",
            )]);
        }
    };
    let addresses = endpoints
        .localities
        .iter()
        .flat_map(|l| &l.endpoints)
        .map(|e| match &e.address {
            EndpointAddress::Socket(address) => address.to_string(),
            EndpointAddress::Name(name, port) => format!("{name}:{port}"),
        })
        .collect::<Vec<_>>();
    let first =
        addresses.first().and_then(|a| a.rsplit_once(':')).map_or(String::new(), |(host, _)| host.to_owned());
    let tls = match &cluster.tls {
        None => None,
        Some(from) => {
            let secrets = Secrets::parse(&config.secrets, None)?;
            let check_name = cluster.http.auto_san_validation;
            let built = ClientTls::build(
                &resource,
                "transport_socket.typed_config",
                from,
                check_name,
                &secrets,
                None,
            )?;
            let Some(client) = built.config() else {
                let reason = format!(
                    "secrets {:?} must be static for a cluster that configuration comes from",
                    built.missing()
                );
                return Err(vec![ConfigError::new(resource, "transport_socket", reason)]);
            };
            let mut client = (*client).clone();
            client.alpn_protocols = vec![b"h2".to_vec()];
            let client = Arc::new(client);
            Some(Arc::new(move || client.clone()) as outrigger_channel::TlsSource)
        }
    };
    let sni = cluster.tls.as_ref().map_or("", |t| t.sni.as_str());
    let server_name = [sni, authority, &first].into_iter().find(|n| !n.is_empty()).unwrap_or_default();
    Ok(ControlAddress {
        addresses,
        tls,
        server_name: server_name.trim_matches(['[', ']']).to_owned(),
        connect_timeout: cluster.connect_timeout,
    })
}

/// Where spans go: the collector cluster of the first connection manager that traces, as configured at the moment.
pub fn collector(proxy: ProxyHandle) -> crate::otlp::CollectorSource {
    Arc::new(move || {
        let config = proxy.config();
        let traced = connection_managers(&config).find_map(|h| h.tracing.as_ref())?;
        let cluster = config.clusters.iter().find(|c| c.name == traced.collector_cluster)?;
        let address = control_address(cluster, &config, "")
            .inspect_err(|errors| tracing::warn!(?errors, "collector cluster cannot be used"))
            .ok()?;
        Some(crate::otlp::Collector { address, export: traced.export.clone() })
    })
}

/// How services that take access logs are reached: through their clusters, as configured at the moment.
pub fn log_reach(proxy: ProxyHandle) -> crate::logs::Reach {
    Arc::new(move |service| {
        let config = proxy.config();
        let cluster = config.clusters.iter().find(|c| c.name == service.cluster)?;
        control_address(cluster, &config, &service.authority)
            .inspect_err(|errors| tracing::warn!(?errors, "cluster of an access log service cannot be used"))
            .ok()
    })
}

fn connection_managers(config: &Config) -> impl Iterator<Item = &HttpConnectionManager> {
    let chains = config.listeners.iter().flat_map(|l| l.filter_chains.iter().chain(&l.default_filter_chain));
    chains.filter_map(|chain| match &chain.terminal {
        Terminal::Http(http) => Some(http.as_ref()),
        Terminal::Tcp(_) => None,
    })
}

/// Every reason for a refusal, one a line.
pub fn refused(errors: &[ConfigError]) -> anyhow::Error {
    let lines: Vec<String> = errors.iter().map(|e| format!("  {e}")).collect();
    anyhow::anyhow!("configuration refused:\n{}", lines.join("\n"))
}

/// The mesh settings, when the flags ask for membership.
///
/// # Errors
/// Names the flag that is missing or wrong.
pub fn settings(flags: &Run) -> anyhow::Result<Arc<Settings>> {
    Ok(Arc::new(Settings::from_flags(&flags.mesh).context("mesh flags")?))
}

#[cfg(test)]
mod tests;
