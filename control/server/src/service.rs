//! The whole service, put together: opened, started, stopped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::ads::Ads;
use crate::api::auth::Role;
use crate::api::{self, Api};
use crate::clock;
use crate::grpc::certificate::Certificates;
use crate::grpc::registration::Registrations;
use crate::identity::attest::Attestor;
use crate::identity::attest::aws::AwsVerifier;
use crate::identity::attest::kubernetes::Clusters;
use crate::identity::server_tls::{ServerTls, ServerTlsError};
use crate::identity::svid::SvidSource;
use crate::identity::{
    Authority, AuthorityError, AuthoritySettings, Hosts, Identity, JoinTokens, ServerNames, keys, spiffe,
};
use crate::observing::Observing;
use crate::outward::CallError;
use crate::publish::publisher::StartError as PublisherError;
use crate::publish::{IstioPlanner, Publisher};
use crate::serve::{Limits, Port};
use crate::source::register::RegistrySettings;
use crate::source::settings::SourcesFile;
use crate::source::{self, Catalog, Registry, SourceError};
use crate::store::redb::RedbStore;
use crate::store::{SharedStore, StoreError};
use crate::telemetry::Metrics;
use outrigger_api::outrigger::v1::certificate_service_server::CertificateServiceServer;
use outrigger_api::outrigger::v1::registration_service_server::RegistrationServiceServer;

/// Namespace of this service's own identity, and of policies that hold for the whole mesh.
pub const SYSTEM_NAMESPACE: &str = "outrigger-system";

/// Service account of this service.
pub const SERVICE_ACCOUNT: &str = "outrigger-control";

/// How often the authority is looked at when nothing is pending.
const AUTHORITY_INTERVAL: Duration = Duration::from_secs(60);

/// How often join tokens that are no good any more are removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3_600);

/// How long a store that is still open elsewhere is waited for, and between looks.
const STORE_WAIT: Duration = Duration::from_secs(5);
const STORE_POLL: Duration = Duration::from_millis(50);

/// What an operator chooses.
#[derive(Clone, Debug)]
pub struct ServiceSettings {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where members of the mesh call. Port 0: any.
    pub xds_address: SocketAddr,
    /// Where operators call. Port 0: any. Plaintext on loopback, TLS elsewhere.
    pub api_address: SocketAddr,
    /// TLS for operators on loopback too.
    pub api_tls: bool,
    /// Last part of the mesh's own host names.
    pub mesh_domain: String,
    /// Access logs and traces of the mesh's proxies.
    pub observing: Observing,
    /// Certificates.
    pub authority: AuthoritySettings,
    /// Leases.
    pub registry: RegistrySettings,
    /// Where else workloads are found.
    pub sources: SourcesFile,
    /// The STS that is asked about roles of AWS: region, and endpoint where it is not AWS's own. `None`: roles prove
    /// nothing.
    pub sts: Option<(String, Option<String>)>,
    /// Names by which hosts call this service, for its certificate.
    pub names: ServerNames,
}

/// File in the data directory that says where the service listens.
pub const ADDRESSES_FILE: &str = "addresses.json";

/// Where the service really listens; also in [`ADDRESSES_FILE`].
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Addresses {
    /// gRPC: xDS, registration, certificates.
    pub xds: SocketAddr,
    /// Operator API, as a URL.
    pub api: String,
    /// PEM file with the root certificate: what a host needs to trust this service before it joins.
    pub root_certificate: PathBuf,
    /// A name that is in the service's own certificate.
    pub server_name: String,
    /// Process id.
    pub pid: u32,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// A file or directory.
    #[error("{path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A port.
    #[error("listening on {address}")]
    Bind {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Our own certificate.
    #[error(transparent)]
    Tls(#[from] ServerTlsError),
    /// A name.
    #[error("trust domain")]
    Identity(#[from] spiffe::IdentityError),
    /// A discovery source.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The STS endpoint.
    #[error("STS endpoint")]
    Sts(#[source] CallError),
    /// What is stored.
    #[error(transparent)]
    Publisher(#[from] PublisherError),
}

/// The running service.
pub struct Service {
    /// Where it listens.
    pub addresses: Addresses,
    /// The first operator token, when this was the first start.
    pub first_token: Option<String>,
    /// Plans and knows the proxies.
    pub publisher: Arc<Publisher>,
    shutdown: watch::Sender<bool>,
    ports: JoinSet<()>,
    jobs: JoinSet<()>,
}

impl Service {
    /// Opens what is stored, binds the ports, starts everything, and only then writes `addresses.json`.
    ///
    /// *Errors*: [`ServiceError`].
    pub async fn start(settings: ServiceSettings) -> Result<Self, ServiceError> {
        let now = clock::unix_ms();
        let dir = &settings.data_dir;
        keys::create_private_dir(dir).map_err(|source| file(dir, source))?;
        let addresses_path = dir.join(ADDRESSES_FILE);
        if let Err(source) = std::fs::remove_file(&addresses_path)
            && source.kind() != std::io::ErrorKind::NotFound
        {
            return Err(file(&addresses_path, source));
        }
        let metrics = Arc::new(Metrics::default());
        let store = SharedStore::new(open_store(&dir.join("control.redb")).await?);
        let authority = Arc::new(Authority::open(&dir.join("identity"), settings.authority.clone(), now)?);
        authority.advance(now)?;
        let own = Identity::new(&settings.authority.trust_domain, SYSTEM_NAMESPACE, SERVICE_ACCOUNT)?;
        let tls = Arc::new(ServerTls::new(Arc::clone(&authority), own, settings.names.clone(), now)?);
        let registry = Arc::new(Registry::open(store.clone(), settings.registry).await?);
        let catalog = Catalog::new(registry.workloads(), Some(dir.join("sources")));
        let mut jobs = JoinSet::new();
        source::start(&settings.sources, &catalog, settings.registry.reach, &mut jobs).await?;
        let settings_of_plans = outrigger_plan::Settings {
            trust_domain: settings.authority.trust_domain.clone(),
            mesh_domain: settings.mesh_domain.clone(),
            root_namespace: SYSTEM_NAMESPACE.to_owned(),
            access_log: settings.observing.access_log,
            tracing: settings.observing.tracing,
        };
        let planner = IstioPlanner::remembering(settings_of_plans, store.clone()).await?;
        let publisher =
            Publisher::start(Arc::new(planner), store.clone(), catalog.workloads(), Arc::clone(&metrics))
                .await?;
        let first_token = first_token(&store, dir, now).await?;

        let xds_listener = bind(settings.xds_address).await?;
        let api_listener = bind(settings.api_address).await?;
        let api_tls = settings.api_tls || !settings.api_address.ip().is_loopback();
        let addresses = Addresses {
            xds: local(&xds_listener, settings.xds_address)?,
            api: format!(
                "{}://{}",
                if api_tls { "https" } else { "http" },
                local(&api_listener, settings.api_address)?
            ),
            root_certificate: dir.join("identity").join("root.crt"),
            server_name: server_name(&settings.names),
            pid: std::process::id(),
        };

        let tokens = JoinTokens::new(store.clone());
        let hosts = Hosts::open(store.clone()).await?;
        let sts = settings.sts.as_ref();
        let aws = sts.map(|(region, endpoint)| AwsVerifier::new(region, endpoint.as_deref())).transpose();
        let clusters = Clusters::of(&settings.sources);
        let domain = &settings.authority.trust_domain;
        let attestor = Attestor::new(store.clone(), domain, aws.map_err(ServiceError::Sts)?, clusters);
        let attestor = Arc::new(attestor);
        let parts =
            Parts { store, tokens, hosts, attestor, authority, registry, catalog, publisher, metrics, tls };
        let shutdown = watch::Sender::new(false);
        let mut ports = JoinSet::new();
        ports.spawn(parts.mesh_port(xds_listener).serve(shutdown.subscribe()));
        ports.spawn(parts.operator_port(api_listener, api_tls).serve(shutdown.subscribe()));
        parts.start_jobs(&mut jobs);
        let text = serde_json::to_vec_pretty(&addresses).unwrap_or_default();
        keys::write_atomic(&addresses_path, &text, keys::PUBLIC_MODE)
            .map_err(|source| file(&addresses_path, source))?;
        tracing::info!(xds = %addresses.xds, api = addresses.api, "control service ready");
        Ok(Self { addresses, first_token, publisher: parts.publisher, shutdown, ports, jobs })
    }

    /// Stops accepting, lets requests finish for a few seconds, ends.
    pub async fn stop(mut self) {
        self.shutdown.send_replace(true);
        while self.ports.join_next().await.is_some() {}
        self.jobs.shutdown().await;
        tracing::info!("control service stopped");
    }
}

/// Opens the store; one that a service which is just ending still holds is waited for, for a moment.
async fn open_store(path: &Path) -> Result<RedbStore, StoreError> {
    let end = tokio::time::Instant::now() + STORE_WAIT;
    loop {
        match RedbStore::open(path) {
            Err(StoreError::InUse) if tokio::time::Instant::now() < end => {
                tokio::time::sleep(STORE_POLL).await
            }
            other => return other,
        }
    }
}

/// What the ports and jobs share.
struct Parts {
    store: SharedStore,
    tokens: JoinTokens,
    hosts: Hosts,
    attestor: Arc<Attestor>,
    authority: Arc<Authority>,
    registry: Arc<Registry>,
    catalog: Arc<Catalog>,
    publisher: Arc<Publisher>,
    metrics: Arc<Metrics>,
    tls: Arc<ServerTls>,
}

impl Parts {
    fn mesh_port(&self, listener: TcpListener) -> Port {
        let certificates = Certificates {
            authority: Arc::clone(&self.authority),
            tokens: self.tokens.clone(),
            hosts: self.hosts.clone(),
            attestor: Arc::clone(&self.attestor),
            metrics: Arc::clone(&self.metrics),
        };
        let registrations = Registrations {
            registry: Arc::clone(&self.registry),
            store: self.store.clone(),
            publisher: Arc::clone(&self.publisher),
            authority: Arc::clone(&self.authority),
            metrics: Arc::clone(&self.metrics),
        };
        let svids = Arc::new(SvidSource::new(Arc::clone(&self.authority)));
        let ads = Ads::service(Arc::clone(&self.publisher), svids, self.authority.trust_bundle());
        let routes = tonic::service::Routes::new(CertificateServiceServer::new(certificates))
            .add_service(RegistrationServiceServer::new(registrations))
            .add_service(ads);
        let tls = Arc::clone(&self.tls);
        Port {
            listener,
            tls: Some(Arc::new(move || tls.mesh())),
            router: routes.into_axum_router(),
            limits: Limits::mesh(),
            metrics: Arc::clone(&self.metrics),
            hosts: self.hosts.clone(),
        }
    }

    fn operator_port(&self, listener: TcpListener, with_tls: bool) -> Port {
        let api = Api {
            store: self.store.clone(),
            tokens: self.tokens.clone(),
            hosts: self.hosts.clone(),
            changing_operators: tokio::sync::Mutex::default(),
            publisher: Arc::clone(&self.publisher),
            registry: Arc::clone(&self.registry),
            catalog: Arc::clone(&self.catalog),
            authority: Arc::clone(&self.authority),
            metrics: Arc::clone(&self.metrics),
        };
        let tls = Arc::clone(&self.tls);
        let current: crate::serve::CurrentTls = Arc::new(move || tls.operator());
        Port {
            listener,
            tls: with_tls.then_some(current),
            router: api::route::router(Arc::new(api)),
            limits: Limits { connections_max: 1_000, ..Limits::default() },
            metrics: Arc::clone(&self.metrics),
            hosts: self.hosts.clone(),
        }
    }

    fn start_jobs(&self, jobs: &mut JoinSet<()>) {
        jobs.spawn(Arc::clone(&self.catalog).follow());
        jobs.spawn(Arc::clone(&self.publisher).follow());
        let registry = Arc::clone(&self.registry);
        jobs.spawn(async move { registry.expire().await });
        let tls = Arc::clone(&self.tls);
        jobs.spawn(async move { tls.follow().await });
        jobs.spawn(follow_authority(Arc::clone(&self.authority)));
        jobs.spawn(sweep_tokens(self.tokens.clone()));
    }
}

/// Lets rotations proceed as their times come.
async fn follow_authority(authority: Arc<Authority>) {
    let mut bundle = authority.trust_bundle();
    loop {
        let step = Arc::clone(&authority);
        let due = tokio::task::spawn_blocking(move || step.advance(clock::unix_ms())).await;
        let wait = match due {
            Ok(Ok(Some(at))) => {
                let left = u64::try_from(at.saturating_sub(clock::unix_ms())).unwrap_or(0);
                // A little late rather than a little early, which would be for nothing.
                Duration::from_millis(left.saturating_add(5)).min(AUTHORITY_INTERVAL)
            }
            Ok(Ok(None)) => AUTHORITY_INTERVAL,
            Ok(Err(error)) => {
                tracing::error!(%error, "rotation does not proceed");
                Duration::from_secs(1)
            }
            Err(error) => {
                tracing::error!(%error, "rotation does not proceed");
                Duration::from_secs(1)
            }
        };
        // A rotation that begins changes the bundle.
        let _ = tokio::time::timeout(wait, bundle.changed()).await;
    }
}

async fn sweep_tokens(tokens: JoinTokens) {
    loop {
        match tokens.sweep(clock::unix_ms()).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "dead join tokens removed"),
            Err(error) => tracing::warn!(%error, "join tokens not swept"),
        }
        tokio::time::sleep(SWEEP_INTERVAL).await;
    }
}

/// Makes the first operator token on the first start and leaves it in a file only the owner can read.
///
/// The file comes first: a token that was good but lost, to a full disk or a crash, would lock everybody out for ever.
async fn first_token(store: &SharedStore, dir: &Path, now: i64) -> Result<Option<String>, ServiceError> {
    if !api::auth::is_none_yet(store).await? {
        return Ok(None);
    }
    let (token, _, change) = api::auth::make("first start", Role::Admin, now)?;
    let path = dir.join("admin.token");
    keys::write_atomic(&path, format!("{token}\n").as_bytes(), keys::SECRET_MODE)
        .map_err(|source| file(&path, source))?;
    store.commit(vec![change], now).await?;
    Ok(Some(token))
}

/// One of the names in the service's own certificate.
fn server_name(names: &ServerNames) -> String {
    let address = names.ip.first().map(ToString::to_string);
    names.dns.first().cloned().or(address).unwrap_or_default()
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ServiceError> {
    TcpListener::bind(address).await.map_err(|source| ServiceError::Bind { address, source })
}

fn local(listener: &TcpListener, address: SocketAddr) -> Result<SocketAddr, ServiceError> {
    listener.local_addr().map_err(|source| ServiceError::Bind { address, source })
}

fn file(path: &Path, source: std::io::Error) -> ServiceError {
    ServiceError::File { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn first_token_that_cannot_be_written_down_is_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        std::fs::create_dir(&path).unwrap();
        let store = SharedStore::new(MemoryStore::default());
        assert!(first_token(&store, dir.path(), 0).await.is_err());
        std::fs::remove_dir(&path).unwrap();
        let token = first_token(&store, dir.path(), 0).await.unwrap().expect("nobody has one yet");
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), token);
        assert_eq!(api::auth::verify(&store, &token).await.unwrap(), Some(Role::Admin));
        assert!(first_token(&store, dir.path(), 0).await.unwrap().is_none(), "shown once");
    }
}
