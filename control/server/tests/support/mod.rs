//! A service on loopback with a directory of its own, and clients for both of its ports.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::certificate_service_client::CertificateServiceClient;
use outrigger_api::outrigger::v1::registration_service_client::RegistrationServiceClient;
use outrigger_control::identity::{AuthoritySettings, ServerNames};
use outrigger_control::service::{Service, ServiceSettings};
use outrigger_control::source::Reach;
use outrigger_control::source::register::RegistrySettings;
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

/// Starts a service that keeps everything in `dir`.
pub async fn start(dir: &Path) -> Service {
    start_with(dir, Duration::from_secs(3_600)).await
}

/// As [`start`], with a rule for the addresses of workloads.
pub async fn start_for(dir: &Path, reach: Reach) -> Service {
    let mut settings = settings(dir);
    settings.registry.reach = reach;
    Service::start(settings).await.unwrap()
}

/// As [`start`], with a life of certificates.
pub async fn start_with(dir: &Path, svid_ttl: Duration) -> Service {
    let mut settings = settings(dir);
    settings.authority.svid_ttl = svid_ttl;
    Service::start(settings).await.unwrap()
}

/// Of a service on loopback, whose workloads may be there too.
pub fn settings(dir: &Path) -> ServiceSettings {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    ServiceSettings {
        data_dir: dir.to_owned(),
        xds_address: any,
        api_address: any,
        api_tls: false,
        mesh_domain: "mesh".to_owned(),
        observing: outrigger_control::observing::Observing::default(),
        authority: AuthoritySettings { svid_ttl: Duration::from_secs(3_600), ..AuthoritySettings::default() },
        registry: RegistrySettings { reach: Reach::Host, ..RegistrySettings::default() },
        sources: Default::default(),
        sts: None,
        names: ServerNames { dns: vec!["localhost".to_owned()], ip: vec![any.ip()] },
    }
}

/// The operator API of a service.
pub struct Operator {
    url: String,
    token: String,
}

impl Operator {
    /// With the token the first start left in its file.
    pub fn of(service: &Service, dir: &Path) -> Self {
        let token = std::fs::read_to_string(dir.join("admin.token")).unwrap().trim().to_owned();
        Self { url: service.addresses.api.clone(), token }
    }

    /// With another token.
    pub fn with_token(&self, token: &str) -> Self {
        Self { url: self.url.clone(), token: token.to_owned() }
    }

    /// One request; the answer's status and JSON (or text as a JSON string).
    pub async fn call(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {}", self.token))
            .header(
                "content-type",
                if body.starts_with('{') { "application/json" } else { "application/yaml" },
            )
            .body(Full::from(body.to_owned()))
            .unwrap();
        let response = client.request(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// A join token for `shop/ACCOUNT`.
    pub async fn join_token(&self, account: &str, uses: u32) -> String {
        let body = format!(r#"{{"namespace": "shop", "serviceAccount": "{account}", "uses": {uses}}}"#);
        let (status, answer) = self.call("POST", "/api/v1/tokens", &body).await;
        assert_eq!(status, 200, "{answer}");
        answer["token"].as_str().unwrap().to_owned()
    }
}

/// A key and what was signed for it.
pub struct Member {
    pub key: KeyPair,
    pub signed: v1::SignResponse,
}

/// How a client that trusts the certificates in `trust_pem` speaks TLS, as `member` or as nobody.
pub fn tls(trust_pem: &str, member: Option<&Member>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(trust_pem.as_bytes()) {
        roots.add(der.unwrap()).unwrap();
    }
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
    match member {
        None => builder.with_no_client_auth(),
        Some(member) => {
            let chain = CertificateDer::pem_slice_iter(member.signed.certificate_chain_pem.as_bytes());
            let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(member.key.serialize_der()));
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    }
}

/// A channel to the mesh port, trusting the certificates in `trust_pem`, as `member` or as nobody.
pub async fn channel(
    address: SocketAddr,
    trust_pem: &str,
    member: Option<&Member>,
) -> Result<Channel, String> {
    let mut config = tls(trust_pem, member);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = Connector { address, tls: TlsConnector::from(Arc::new(config)) };
    let endpoint = Endpoint::from_static("http://control.invalid");
    endpoint.connect_with_connector(connector).await.map_err(|error| format!("{error:?}"))
}

/// A TLS connection to a port on loopback, as `member` or as nobody.
pub async fn connect(
    address: SocketAddr,
    trust_pem: &str,
    member: Option<&Member>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(tls(trust_pem, member)));
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

struct Connector {
    address: SocketAddr,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (address, tls) = (self.address, self.tls.clone());
        Box::pin(async move {
            let stream = TcpStream::connect(address).await?;
            let name = ServerName::try_from("localhost").unwrap();
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        })
    }
}

/// The root certificate of a service, PEM.
pub fn root_of(service: &Service) -> String {
    std::fs::read_to_string(&service.addresses.root_certificate).unwrap()
}

/// Asks for a certificate on this channel, with a new key.
pub async fn sign(channel: Channel, join_token: &str) -> Result<Member, tonic::Status> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let request =
        v1::SignRequest { csr_der: csr.der().to_vec(), join_token: join_token.to_owned(), proof: None };
    let signed = CertificateServiceClient::new(channel).sign(request).await?.into_inner();
    Ok(Member { key, signed })
}

/// Joins as `shop/ACCOUNT`.
pub async fn join(service: &Service, operator: &Operator, account: &str) -> Member {
    let token = operator.join_token(account, 1).await;
    let nobody = channel(service.addresses.xds, &root_of(service), None).await.unwrap();
    sign(nobody, &token).await.unwrap()
}

/// A channel as this member, trusting what it was told to trust.
pub async fn channel_as(service: &Service, member: &Member) -> Channel {
    let bundle = member.signed.trust_bundle.as_ref().unwrap();
    channel(service.addresses.xds, &bundle.pem, Some(member)).await.unwrap()
}

/// Registration on a channel.
pub fn registration(channel: Channel) -> RegistrationServiceClient<Channel> {
    RegistrationServiceClient::new(channel)
}

/// An announcement of `shop/ACCOUNT`.
pub fn workload(instance: &str, account: &str) -> v1::Workload {
    v1::Workload {
        instance_id: instance.to_owned(),
        namespace: "shop".to_owned(),
        service_account: account.to_owned(),
        service: account.to_owned(),
        version: "v1".to_owned(),
        node_id: format!("{instance}-proxy"),
        inbound_port: 15_006,
        ports: vec![v1::WorkloadPort {
            name: "http".to_owned(),
            number: 8_080,
            protocol: "HTTP".to_owned(),
            ..v1::WorkloadPort::default()
        }],
        ..v1::Workload::default()
    }
}
