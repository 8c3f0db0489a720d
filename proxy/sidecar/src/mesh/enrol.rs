//! Getting a certificate and keeping it fresh.

use super::client::{CALL_TIMEOUT, ControlClient};
use super::own::OwnSvid;
use super::proof::Source;
use super::settings::Settings;
use super::svid::{self, Svid};
use anyhow::Context;
use outrigger_api::outrigger::v1::certificate_service_client::CertificateServiceClient;
use outrigger_api::outrigger::v1::{SignRequest, WatchTrustBundleRequest, Workload};
use rcgen::{CertificateParams, KeyPair};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Bounds of the wait after a failure.
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Shortest time between renewals, whatever lives the authority gives.
const RENEWAL_GAP: Duration = Duration::from_secs(1);

/// By what a certificate is asked for.
#[derive(Clone, Copy)]
pub enum Right<'a> {
    /// The certificate held.
    Held,
    /// A join token.
    Token(&'a str),
    /// A proof, of the workload that is to be registered.
    Proof(&'a Source, &'a Workload),
}

impl<'a> Right<'a> {
    /// To the first certificate; `None`: none was given.
    fn to_first(settings: &'a Settings) -> Option<Self> {
        match (&settings.join_token, &settings.proof) {
            (Some(token), _) => Some(Self::Token(token)),
            (None, Some(proof)) => Some(Self::Proof(proof, &settings.workload)),
            (None, None) => None,
        }
    }
}

/// Asks for a certificate over a new key. With a token or a proof the caller needs no certificate yet.
///
/// # Errors
/// When the control service cannot be reached or refuses.
pub async fn sign(client: &ControlClient, right: Right<'_>) -> anyhow::Result<Svid> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let csr = CertificateParams::new(Vec::<String>::new())?.serialize_request(&key)?;
    let mut request = SignRequest { csr_der: csr.der().to_vec(), ..SignRequest::default() };
    match right {
        Right::Held => {}
        Right::Token(token) => token.clone_into(&mut request.join_token),
        Right::Proof(source, workload) => {
            let proof =
                source.prove(&workload.namespace, &workload.service_account, &request.csr_der).await?;
            request.proof = Some(proof);
        }
    }
    let mut request = tonic::Request::new(request);
    request.set_timeout(CALL_TIMEOUT);
    let answer = CertificateServiceClient::new(client.channel().await?).sign(request).await;
    let answer = answer.inspect_err(|_| client.forget()).context("certificate was not signed")?.into_inner();
    let bundle = answer.trust_bundle.context("answer holds no trust bundle")?;
    Ok(Svid {
        chain_pem: answer.certificate_chain_pem,
        key_pem: key.serialize_pem(),
        bundle: svid::bundle(bundle),
        received: SystemTime::now(),
    })
}

/// The first certificate: from disk, or by the join token or proof, tried until it is there.
pub async fn first(client: &ControlClient, settings: &Settings) -> anyhow::Result<Svid> {
    if let Some(svid) = Svid::load(&settings.state_dir) {
        client.use_svid(&svid)?;
        return Ok(svid);
    }
    let right = Right::to_first(settings);
    let right = right.context("no certificate on disk, and neither a join token nor --attest given")?;
    let mut wait = RETRY_FIRST;
    loop {
        match sign(client, right).await {
            Ok(svid) => {
                client.use_svid(&svid)?;
                svid.save(&settings.state_dir)?;
                return Ok(svid);
            }
            Err(error) => tracing::warn!(error = format!("{error:#}"), "enrolment failed"),
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}

/// Renews at half life, for ever. When the certificate has expired meanwhile, the join
/// token is tried, if it still counts, or a new proof.
pub async fn keep_fresh(client: Arc<ControlClient>, settings: Arc<Settings>, own: Arc<OwnSvid>) {
    let mut wait = RETRY_FIRST;
    loop {
        let now = SystemTime::now();
        let svid = own.current();
        let (half, end) = (svid.half_life(), svid.end().unwrap_or(now));
        if let Ok(left) = half.duration_since(now) {
            // Spread the renewals of a fleet that was enrolled together.
            tokio::time::sleep(left.mul_f64(0.95 + fastrand::f64() / 20.0)).await;
            wait = RETRY_FIRST;
        }
        let expired = end <= SystemTime::now();
        let first = if expired { Right::to_first(&settings) } else { None };
        match sign(&client, first.unwrap_or(Right::Held)).await.and_then(|svid| own.renewed(svid)) {
            Ok(()) => {
                tracing::info!("certificate renewed");
                wait = RETRY_FIRST;
                tokio::time::sleep(RENEWAL_GAP).await;
            }
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), expired, "certificate renewal failed");
                tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
}

/// Follows the trust bundle: a rotated authority is trusted before it signs anything.
pub async fn follow_roots(client: Arc<ControlClient>, own: Arc<OwnSvid>) {
    let mut wait = RETRY_FIRST;
    loop {
        let watched: anyhow::Result<()> = async {
            let mut service = CertificateServiceClient::new(client.channel().await?);
            let mut bundles = service.watch_trust_bundle(WatchTrustBundleRequest {}).await?.into_inner();
            while let Some(bundle) = bundles.message().await? {
                wait = RETRY_FIRST;
                let version = bundle.version;
                if own.trust(svid::bundle(bundle))? {
                    tracing::info!(version, "trust bundle changed");
                }
            }
            Ok(())
        }
        .await;
        if let Err(error) = watched {
            client.forget();
            tracing::debug!(error = format!("{error:#}"), "trust bundle stream ended");
        }
        tokio::time::sleep(wait.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
}
