//! `outrigger.v1.CertificateService`: enrolment by join token or proof, renewal by the certificate held.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::certificate_service_server::CertificateService;
use tokio_stream::wrappers::WatchStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use super::peer;
use crate::clock;
use crate::identity::attest::{AttestError, Attestor};
use crate::identity::join_token::JoinError;
use crate::identity::{Authority, Hosts, JoinTokens, TrustBundle, csr};
use crate::telemetry::Metrics;

/// See the module.
pub struct Certificates {
    /// Signs.
    pub authority: Arc<Authority>,
    /// Whose bearers may join.
    pub tokens: JoinTokens,
    /// Those that tokens are made for.
    pub hosts: Hosts,
    /// Verifies proofs.
    pub attestor: Arc<Attestor>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

#[tonic::async_trait]
impl CertificateService for Certificates {
    async fn sign(&self, request: Request<v1::SignRequest>) -> Result<Response<v1::SignResponse>, Status> {
        let outcome = self.sign_one(request).await;
        let counter = match &outcome {
            Ok(_) => &self.metrics.certificates_signed,
            Err(_) => &self.metrics.certificates_refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        outcome
    }

    type WatchTrustBundleStream = Pin<Box<dyn Stream<Item = Result<v1::TrustBundle, Status>> + Send>>;

    async fn watch_trust_bundle(
        &self,
        request: Request<v1::WatchTrustBundleRequest>,
    ) -> Result<Response<Self::WatchTrustBundleStream>, Status> {
        peer::member(&peer::of(&request)?, clock::unix_ms())?;
        let bundles = WatchStream::new(self.authority.trust_bundle()).map(|bundle| Ok(to_wire(&bundle)));
        Ok(Response::new(Box::pin(bundles)))
    }
}

impl Certificates {
    async fn sign_one(
        &self,
        request: Request<v1::SignRequest>,
    ) -> Result<Response<v1::SignResponse>, Status> {
        let now = clock::unix_ms();
        let peer = peer::of(&request)?;
        let asked = request.into_inner();
        // The key first: a bad request must not use up a token.
        let key = csr::verify(&asked.csr_der).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let (identity, host) = match (asked.join_token.as_str(), asked.proof) {
            ("", None) => {
                (peer::member(&peer, now)?.clone(), peer.host.as_ref().map(|host| host.mark.clone()))
            }
            ("", Some(proof)) => {
                let attested = self.attestor.verify(proof, &asked.csr_der).await;
                (attested.map_err(|error| refuse_proof(&error, &peer))?, None)
            }
            (token, None) => {
                let domain = &self.authority.settings().trust_domain;
                let joined = self.tokens.redeem(domain, token, now).await;
                let joined = joined.map_err(|error| refuse(&error, &peer))?;
                let still = joined
                    .host
                    .as_ref()
                    .is_none_or(|mark| self.hosts.mark(&mark.name).as_ref().ok() == Some(mark));
                if !still {
                    return Err(peer::revoked());
                }
                (joined.identity, joined.host)
            }
            (_, Some(_)) => return Err(Status::invalid_argument("join_token or proof, not both")),
        };
        let authority = Arc::clone(&self.authority);
        let signed =
            tokio::task::spawn_blocking(move || authority.sign(&identity, host.as_ref(), &key, now)).await;
        let svid = match signed {
            Ok(Ok(svid)) => svid,
            Ok(Err(error)) => {
                tracing::error!(%error, "certificate not signed");
                return Err(Status::internal("the certificate could not be signed"));
            }
            Err(error) => {
                tracing::error!(%error, "signing ended early");
                return Err(Status::internal("the certificate could not be signed"));
            }
        };
        tracing::info!(identity = %svid.identity, remote = %peer.remote, "certificate signed");
        let bundle = self.authority.trust_bundle().borrow().clone();
        Ok(Response::new(v1::SignResponse {
            certificate_chain_pem: svid.chain_pem,
            trust_bundle: Some(to_wire(&bundle)),
            expires_at_unix_ms: svid.expires_at,
            spiffe_id: svid.identity.to_string(),
        }))
    }
}

/// The caller learns that its token is no good, not why: that would help to guess.
fn refuse(error: &JoinError, peer: &crate::serve::Peer) -> Status {
    match error {
        JoinError::Unknown | JoinError::Expired | JoinError::UsedUp => {
            tracing::warn!(remote = %peer.remote, %error, "join token refused");
            Status::unauthenticated("the join token is not valid, has expired or has been used")
        }
        JoinError::Uses
        | JoinError::Grant(_)
        | JoinError::Identity(_)
        | JoinError::Random(_)
        | JoinError::Store(_) => {
            tracing::error!(%error, "join token not redeemed");
            Status::unavailable("the join token could not be checked")
        }
    }
}

/// As [`refuse`]: what a proof lacks is for the operator to know.
fn refuse_proof(error: &AttestError, peer: &crate::serve::Peer) -> Status {
    let mut reason = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(source) = next {
        reason = format!("{reason}: {source}");
        next = source.source();
    }
    tracing::warn!(remote = %peer.remote, reason, "proof refused");
    if error.is_passing() {
        Status::unavailable("the proof could not be verified")
    } else {
        Status::unauthenticated("the proof is not valid, or does not give this identity")
    }
}

fn to_wire(bundle: &TrustBundle) -> v1::TrustBundle {
    v1::TrustBundle { pem: bundle.pem.clone(), version: bundle.version, roots_pem: bundle.roots_pem.clone() }
}
