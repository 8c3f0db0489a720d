//! Attestation: a workload proves by something it has anyway who it is, instead of by a join token.
//!
//! ```text
//! proof ──► verified where it comes from (STS, the cluster's API) ──► who is it there ──► may that be this identity? ([`rule`])
//! ```
//! Reading order: [`rule`] (which proofs may become an identity) · [`aws`] (the role of a task) · [`kubernetes`] (the
//! service account of a pod, by [`jwks`] where the cluster itself is not asked) · here.
//!
//! A proof asks for one identity by name and gives that one or none. Nobody has an identity by default: without a rule a
//! proof is refused, however good it is.

pub mod aws;
pub mod jwks;
pub mod kubernetes;
pub mod rule;

use std::time::Duration;

use outrigger_api::outrigger::v1;
use outrigger_api::outrigger::v1::proof::Kind;
use tokio::sync::Semaphore;

use super::spiffe::{Identity, IdentityError};
use crate::store::{SharedStore, StoreError};
use aws::{AwsError, AwsVerifier};
use kubernetes::{ClusterError, Clusters};
use rule::Caller;

/// Most proofs that are verified at a time: each is a call to somebody else.
pub const AT_ONCE_MAX: usize = 32;

/// Longest time a proof may take, waiting for its turn included.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Why a proof was refused. The bearer is told only whether to try again; the reason goes to the log.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// It has no kind.
    #[error("the proof is empty")]
    Empty,
    /// The identity it asks for.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// A role.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// A service account.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Nobody with such a proof may be what it asks for, so it is not even looked at: who knows no identity that can be
    /// had this way makes us call nobody.
    #[error("proofs of this kind may not be {0}: no attestation rule says so")]
    NoRule(Identity),
    /// It is good, and may not be what it asks for.
    #[error("{caller} may not be {identity}: no attestation rule says so")]
    NotAllowed {
        /// Who it is.
        caller: Caller,
        /// Who it wants to be.
        identity: Identity,
    },
    /// Too long, or too many at once.
    #[error("the proof was not verified in time")]
    Timeout,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl AttestError {
    /// Whether the same proof may be good a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Empty | Self::Identity(_) | Self::NoRule(_) | Self::NotAllowed { .. } => false,
            Self::Aws(error) => error.is_passing(),
            Self::Cluster(error) => error.is_passing(),
            Self::Timeout | Self::Store(_) => true,
        }
    }
}

/// See the module.
pub struct Attestor {
    store: SharedStore,
    trust_domain: String,
    aws: Option<AwsVerifier>,
    clusters: Clusters,
    permits: Semaphore,
}

impl Attestor {
    /// With what can verify proofs. `None`: roles of AWS prove nothing here.
    pub fn new(store: SharedStore, trust_domain: &str, aws: Option<AwsVerifier>, clusters: Clusters) -> Self {
        let trust_domain = trust_domain.to_owned();
        Self { store, trust_domain, aws, clusters, permits: Semaphore::new(AT_ONCE_MAX) }
    }

    /// The identity a proof gives for the key of this certificate request.
    ///
    /// *Errors*: [`AttestError`].
    pub async fn verify(&self, proof: v1::Proof, csr_der: &[u8]) -> Result<Identity, AttestError> {
        let identity = Identity::new(&self.trust_domain, &proof.namespace, &proof.service_account)?;
        let rule = rule::read(&self.store, &proof.namespace, &proof.service_account).await?;
        let kind = proof.kind.ok_or(AttestError::Empty)?;
        let is_expected = match kind {
            Kind::Aws(_) => !rule.aws.is_empty(),
            Kind::Kubernetes(_) => !rule.kubernetes.is_empty(),
        };
        if !is_expected {
            return Err(AttestError::NoRule(identity));
        }
        let verify = async {
            // Closed never: the error stands for "too many".
            let _permit = self.permits.acquire().await.map_err(|_| AttestError::Timeout)?;
            Ok(match kind {
                Kind::Aws(proof) => {
                    let verifier = self.aws.as_ref().ok_or(AwsError::Off)?;
                    Caller::Aws(verifier.verify(&proof, &self.trust_domain, csr_der).await?)
                }
                Kind::Kubernetes(proof) => {
                    Caller::Kubernetes(self.clusters.verify(&proof, &self.trust_domain).await?)
                }
            })
        };
        let caller = tokio::time::timeout(TIMEOUT, verify).await.unwrap_or(Err(AttestError::Timeout))?;
        if !rule.allows(&caller) {
            return Err(AttestError::NotAllowed { caller, identity });
        }
        tracing::info!(%identity, %caller, "attested");
        Ok(identity)
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
