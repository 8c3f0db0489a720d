//! Who the tasks of this host are, towards the control service.
//!
//! ```text
//! join token ──► certificate of an identity (kept, renewed) ──► certificate of each sidecar's own, signed for it
//!                                                          └──► withdrawal of an instance from the registry
//! ```
//! Reading order: [`outrigger_member::svid`] · [`client`] · here.

pub mod client;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use outrigger_api::outrigger::v1::certificate_service_client::CertificateServiceClient;
use outrigger_api::outrigger::v1::registration_service_client::RegistrationServiceClient;
use outrigger_api::outrigger::v1::{DeregisterRequest, Health, ReportHealthRequest, SignRequest};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::Mutex;
use tonic::transport::Channel;

use crate::config::AgentConfig;
use crate::sidecar::spec::TRUST_BUNDLE;
use client::CALL_TIMEOUT;
use outrigger_member::folder::{make_private, own_user, write_private};
use outrigger_member::svid::{Bundle, Svid, anonymous_client_config};

/// Namespace and service account.
pub type IdentityKey = (String, String);

/// A future of the mesh.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// What the agent asks of the mesh. A seam for tests: the real one is [`Identities`].
pub trait Mesh: Send + Sync {
    /// Makes a key and a certificate for one sidecar, and leaves them with the trust roots in `folder`, which belongs to
    /// `owner` from then on. A folder that has a certificate that is still good is left as it is.
    ///
    /// *Errors*: the control service cannot be reached or refuses; the file system's.
    fn equip<'a>(&'a self, identity: &'a IdentityKey, folder: &'a Path, owner: u32) -> Answer<'a, ()>;

    /// Takes an instance out of the registry. One that is not there is no error.
    ///
    /// *Errors*: the control service cannot be reached or refuses.
    fn withdraw<'a>(&'a self, identity: &'a IdentityKey, instance: &'a str) -> Answer<'a, ()>;

    /// Tells the registry whether the application of an instance is well.
    ///
    /// *Errors*: the instance is not registered; the control service cannot be reached or refuses.
    fn report<'a>(&'a self, identity: &'a IdentityKey, instance: &'a str, healthy: bool) -> Answer<'a, ()>;

    /// Obtains the certificates there are tokens for and renews those whose time has come; returns how many are held and
    /// how many are missing.
    fn refresh(&self) -> Answer<'_, (usize, usize)>;
}

/// See the module.
pub struct Identities {
    config: Arc<AgentConfig>,
    roots_pem: String,
    server_name: String,
    /// The outer lock is held for no wait; an inner one for the length of a call, of which one at a time is enough.
    held: std::sync::Mutex<BTreeMap<IdentityKey, Arc<Mutex<Held>>>>,
}

#[derive(Default)]
struct Held {
    svid: Option<Svid>,
    channel: Option<Channel>,
}

impl Identities {
    /// Reads the trust bundle. No connection is made yet.
    ///
    /// *Errors*: the trust bundle cannot be read.
    pub fn open(config: Arc<AgentConfig>) -> anyhow::Result<Self> {
        let path = &config.trust_bundle;
        let roots_pem =
            std::fs::read_to_string(path).with_context(|| format!("trustBundle {}", path.display()))?;
        anonymous_client_config(&roots_pem).with_context(|| format!("trustBundle {}", path.display()))?;
        Ok(Self { server_name: config.control_name(), roots_pem, config, held: std::sync::Mutex::default() })
    }

    fn of(&self, identity: &IdentityKey) -> Arc<Mutex<Held>> {
        let mut all = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        all.entry(identity.clone()).or_default().clone()
    }

    fn folder(&self, identity: &IdentityKey) -> PathBuf {
        // Both parts are DNS labels, so the dot separates them.
        self.config.state_dir.join("identity").join(format!("{}.{}", identity.0, identity.1))
    }

    /// After this a certificate is held that is not expired.
    async fn ensure(&self, identity: &IdentityKey, held: &mut Held) -> anyhow::Result<()> {
        let folder = self.folder(identity);
        if held.svid.is_none() {
            held.svid = Svid::load(&folder);
        }
        let now = SystemTime::now();
        let fresh = match held.svid.clone() {
            Some(svid) if svid.half_life() > now => return Ok(()),
            Some(svid) if svid.end().is_ok_and(|end| end > now) => {
                let renewed = match self.channel(held).await {
                    Ok(channel) => sign(channel, "").await,
                    Err(error) => Err(error),
                };
                match renewed {
                    Ok(fresh) => fresh,
                    Err(error) => {
                        held.channel = None;
                        tracing::warn!(
                            error = format!("{error:#}"),
                            "certificate not renewed; the old one still counts"
                        );
                        return Ok(());
                    }
                }
            }
            _ => self.join(identity).await?,
        };
        make_private(&folder, own_user())?;
        fresh.save(&folder)?;
        tracing::info!(namespace = identity.0, service_account = identity.1, "certificate received");
        *held = Held { svid: Some(fresh), channel: None };
        Ok(())
    }

    /// The first certificate of an identity, by its join token.
    async fn join(&self, identity: &IdentityKey) -> anyhow::Result<Svid> {
        let rule = self.config.identity(&identity.0, &identity.1).context("identity is not this host's")?;
        let path = rule.join_token_file.as_ref().context("no certificate on disk and no joinTokenFile")?;
        let token =
            std::fs::read_to_string(path).with_context(|| format!("joinTokenFile {}", path.display()))?;
        let tls = anonymous_client_config(&self.roots_pem)?;
        let channel = client::connect(&self.config.control, &self.server_name, &tls).await?;
        let svid = sign(channel, token.trim()).await?;
        check_identity(&svid, identity)?;
        Ok(svid)
    }

    /// A certificate over a key of its own, of an identity held here.
    async fn sign_another(&self, identity: &IdentityKey) -> anyhow::Result<Svid> {
        let held = self.of(identity);
        let mut held = held.lock().await;
        self.ensure(identity, &mut held).await?;
        let channel = self.channel(&mut held).await?;
        let signed = sign(channel, "").await;
        if signed.is_err() {
            held.channel = None;
        }
        signed
    }

    async fn channel_of(&self, identity: &IdentityKey) -> anyhow::Result<Channel> {
        let held = self.of(identity);
        let mut held = held.lock().await;
        self.ensure(identity, &mut held).await?;
        self.channel(&mut held).await
    }

    /// After a call that failed for another reason than what was asked for.
    async fn drop_channel<T>(&self, identity: &IdentityKey, answer: &Result<T, tonic::Status>) {
        if answer.as_ref().is_err_and(|status| status.code() != tonic::Code::NotFound) {
            self.of(identity).lock().await.channel = None;
        }
    }

    async fn channel(&self, held: &mut Held) -> anyhow::Result<Channel> {
        if let Some(channel) = &held.channel {
            return Ok(channel.clone());
        }
        let svid = held.svid.as_ref().context("no certificate")?;
        let tls = svid.client_config(&self.roots_pem)?;
        let channel = client::connect(&self.config.control, &self.server_name, &tls).await?;
        held.channel = Some(channel.clone());
        Ok(channel)
    }
}

impl Mesh for Identities {
    fn equip<'a>(&'a self, identity: &'a IdentityKey, folder: &'a Path, owner: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            make_private(folder, owner)?;
            write_private(folder, TRUST_BUNDLE, self.roots_pem.as_bytes(), owner)?;
            let kept = Svid::load(folder).filter(|svid| check_identity(svid, identity).is_ok());
            if kept.as_ref().is_some_and(|svid| svid.half_life() > SystemTime::now()) {
                return Ok(());
            }
            match self.sign_another(identity).await {
                Ok(signed) => signed.save_for(folder, owner),
                // It is good for a while, and its sidecar renews it.
                Err(error) if kept.is_some() => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        "certificate not renewed; the old one still counts"
                    );
                    Ok(())
                }
                Err(error) => Err(error),
            }
        })
    }

    fn withdraw<'a>(&'a self, identity: &'a IdentityKey, instance: &'a str) -> Answer<'a, ()> {
        Box::pin(async move {
            let channel = self.channel_of(identity).await?;
            let instance_id = instance.to_owned();
            let mut request =
                tonic::Request::new(DeregisterRequest { instance_id, ..DeregisterRequest::default() });
            request.set_timeout(CALL_TIMEOUT);
            let answer = RegistrationServiceClient::new(channel).deregister(request).await;
            self.drop_channel(identity, &answer).await;
            answer.map(drop).context("instance was not withdrawn")
        })
    }

    fn report<'a>(&'a self, identity: &'a IdentityKey, instance: &'a str, healthy: bool) -> Answer<'a, ()> {
        Box::pin(async move {
            let channel = self.channel_of(identity).await?;
            let health = if healthy { Health::Healthy } else { Health::Unhealthy };
            let asked = ReportHealthRequest { instance_id: instance.to_owned(), health: health.into() };
            let mut request = tonic::Request::new(asked);
            request.set_timeout(CALL_TIMEOUT);
            let answer = RegistrationServiceClient::new(channel).report_health(request).await;
            self.drop_channel(identity, &answer).await;
            answer.map(drop).context("health was not told")
        })
    }

    fn refresh(&self) -> Answer<'_, (usize, usize)> {
        Box::pin(async move {
            let (mut good, mut missing) = (0, 0);
            for rule in &self.config.identities {
                let identity = (rule.namespace.clone(), rule.service_account.clone());
                let held = self.of(&identity);
                let mut held = held.lock().await;
                match self.ensure(&identity, &mut held).await {
                    Ok(()) => good += 1,
                    Err(error) => {
                        missing += 1;
                        let error = format!("{error:#}");
                        let (namespace, service_account) = identity;
                        tracing::warn!(namespace, service_account, error, "no certificate");
                    }
                }
            }
            Ok((good, missing))
        })
    }
}

/// A certificate over a new key.
async fn sign(channel: Channel, join_token: &str) -> anyhow::Result<Svid> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr = CertificateParams::new(Vec::<String>::new())?.serialize_request(&key)?;
    let asked = SignRequest { csr_der: csr.der().to_vec(), join_token: join_token.to_owned(), proof: None };
    let mut request = tonic::Request::new(asked);
    request.set_timeout(CALL_TIMEOUT);
    let answer = CertificateServiceClient::new(channel).sign(request).await;
    let answer = answer.context("certificate was not signed")?.into_inner();
    let bundle = answer.trust_bundle.context("answer holds no trust bundle")?;
    Ok(Svid {
        chain_pem: answer.certificate_chain_pem,
        key_pem: key.serialize_pem(),
        bundle: Bundle { pem: bundle.pem, version: bundle.version, roots_pem: bundle.roots_pem },
        received: SystemTime::now(),
    })
}

/// A token for another identity than it is filed under must not be found out by its sidecars' peers.
fn check_identity(svid: &Svid, (namespace, account): &IdentityKey) -> anyhow::Result<()> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use x509_parser::extensions::GeneralName;
    let der = CertificateDer::from_pem_slice(svid.chain_pem.as_bytes())?;
    let (_, leaf) = x509_parser::parse_x509_certificate(&der)?;
    let ending = format!("/ns/{namespace}/sa/{account}");
    let names = leaf.subject_alternative_name()?.context("certificate without a name")?;
    let found = names.value.general_names.iter().any(|name| {
        matches!(name, GeneralName::URI(uri) if uri.starts_with("spiffe://") && uri.ends_with(&ending))
    });
    anyhow::ensure!(found, "the join token gives another identity than {namespace}/{account}");
    Ok(())
}
