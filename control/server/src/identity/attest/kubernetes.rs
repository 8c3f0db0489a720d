//! The service account of a pod as a proof: a projected token, shown to the cluster it is from.
//!
//! The cluster itself says (TokenReview) whose token it is, that it was made for this mesh (its audience is the trust
//! domain), and that the pod it was made for still exists. Clusters are those of the discovery sources.
//!
//! Source: Kubernetes, `authentication.k8s.io/v1.TokenReview`; "Managing service accounts", bound tokens.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use outrigger_api::outrigger::v1;
use serde::Deserialize;
use serde_json::json;

use super::rule::KubernetesAccount;
use crate::identity::spiffe::is_label;
use crate::outward::CallError;
use crate::source::kubernetes::access::{Access, AccessError};
use crate::source::settings::{KubernetesSettings, SourcesFile};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16_384;

/// Largest answer, in bytes: it repeats the token.
const ANSWER_BYTES_MAX: usize = 256 << 10;

const PATH: &str = "/apis/authentication.k8s.io/v1/tokenreviews";

/// Why a service account is not proven.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No such source.
    #[error("no discovery source of kind kubernetes is called {0:?}")]
    Unknown(String),
    /// A value that cannot be.
    #[error("{0}")]
    Malformed(&'static str),
    /// How the cluster is reached.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// It did not answer.
    #[error(transparent)]
    Call(#[from] CallError),
    /// It did not let us ask.
    #[error("the cluster answered {0}")]
    Refused(StatusCode),
    /// The token is no good.
    #[error("the token is not accepted by its cluster: {0}")]
    NotAuthenticated(String),
    /// It was made for somebody else.
    #[error("the token is not for the audience {0:?}")]
    Audience(String),
    /// It is not a service account's.
    #[error("{0:?} is not a service account")]
    NotAnAccount(String),
}

impl ClusterError {
    /// Whether it may work later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Access(_) | Self::Call(_) | Self::Refused(_) => true,
            Self::Unknown(_)
            | Self::Malformed(_)
            | Self::NotAuthenticated(_)
            | Self::Audience(_)
            | Self::NotAnAccount(_) => false,
        }
    }
}

/// See the module.
#[derive(Default)]
pub struct Clusters {
    by_name: BTreeMap<String, KubernetesSettings>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Review {
    status: ReviewStatus,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ReviewStatus {
    authenticated: bool,
    user: User,
    audiences: Vec<String>,
    error: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct User {
    username: String,
}

impl Clusters {
    /// Those of the sources.
    pub fn of(sources: &SourcesFile) -> Self {
        let named = |source: &crate::source::settings::SourceSettings| {
            source.kubernetes.clone().map(|settings| (source.name.clone(), settings))
        };
        Self { by_name: sources.sources.iter().filter_map(named).collect() }
    }

    /// Whose token it is.
    ///
    /// *Errors*: [`ClusterError`].
    pub async fn verify(
        &self,
        proof: &v1::KubernetesProof,
        audience: &str,
    ) -> Result<KubernetesAccount, ClusterError> {
        let settings = self.by_name.get(&proof.cluster);
        let settings =
            settings.ok_or_else(|| ClusterError::Unknown(proof.cluster.chars().take(63).collect()))?;
        if proof.token.is_empty() || proof.token.len() > TOKEN_BYTES_MAX {
            return Err(ClusterError::Malformed("the token is empty or too long"));
        }
        let access = Access::of(settings)?;
        let asked = json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": proof.token, "audiences": [audience]},
        });
        let mut request =
            Request::post(format!("{}{PATH}", access.prefix)).header("content-type", "application/json");
        if let Some(value) = access.authorization().await? {
            request = request.header("authorization", value);
        }
        let request = request.body(Full::new(Bytes::from(asked.to_string())));
        let request = request.map_err(|_| ClusterError::Malformed("no request can be made of it"))?;
        let answer = access.origin.call(request, ANSWER_BYTES_MAX).await?;
        if !answer.status.is_success() {
            return Err(ClusterError::Refused(answer.status));
        }
        let review: Review = serde_json::from_slice(&answer.body).unwrap_or_default();
        account_of(review.status, audience, &proof.cluster)
    }
}

fn account_of(
    status: ReviewStatus,
    audience: &str,
    cluster: &str,
) -> Result<KubernetesAccount, ClusterError> {
    if !status.authenticated {
        return Err(ClusterError::NotAuthenticated(status.error.chars().take(256).collect()));
    }
    // A server that does not know of audiences answers without any, which is not ours.
    if !status.audiences.iter().any(|known| known == audience) {
        return Err(ClusterError::Audience(audience.to_owned()));
    }
    let name = status.user.username;
    let parts: Vec<&str> = name.split(':').collect();
    match parts.as_slice() {
        ["system", "serviceaccount", namespace, account] if is_label(namespace) && is_label(account) => {
            Ok(KubernetesAccount {
                cluster: cluster.to_owned(),
                namespace: (*namespace).to_owned(),
                service_account: (*account).to_owned(),
            })
        }
        _ => Err(ClusterError::NotAnAccount(name.chars().take(256).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_authenticated_service_account_with_our_audience_counts() {
        let status = |authenticated, username: &str, audiences: &[&str]| ReviewStatus {
            authenticated,
            user: User { username: username.into() },
            audiences: audiences.iter().map(|a| (*a).to_owned()).collect(),
            error: String::new(),
        };
        let cart = "system:serviceaccount:shop:cart";
        let account = account_of(status(true, cart, &["mesh"]), "mesh", "k8s").unwrap();
        assert_eq!((account.namespace.as_str(), account.service_account.as_str()), ("shop", "cart"));
        for (status, named) in [
            (status(false, cart, &["mesh"]), "not accepted"),
            (status(true, cart, &[]), "audience"),
            (status(true, cart, &["https://kubernetes.default"]), "audience"),
            (status(true, "system:node:a", &["mesh"]), "not a service account"),
            (status(true, "system:serviceaccount:shop:cart:x", &["mesh"]), "not a service account"),
            (status(true, "admin", &["mesh"]), "not a service account"),
        ] {
            let error = account_of(status, "mesh", "k8s").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
