//! The service account of a pod as a proof: a projected token, shown to the cluster it is from.
//!
//! The cluster itself says (TokenReview) whose token it is, that it was made for this mesh (its audience is the trust
//! domain), and that the pod it was made for still exists. Clusters are those of the discovery sources.
//!
//! Where the settings name the issuer of the tokens, they are verified here instead, with its keys ([`super::jwks`]).
//!
//! Source: Kubernetes, `authentication.k8s.io/v1.TokenReview`; "Managing service accounts", bound tokens.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use outrigger_api::outrigger::v1;
use serde::Deserialize;
use serde_json::json;

use super::jwks::{KeyCache, Keys, TokenError};
use super::rule::KubernetesAccount;
use crate::clock;
use crate::identity::spiffe::is_label;
use crate::outward::{self, CallError, Origin};
use crate::source::kubernetes::access::{Access, AccessError};
use crate::source::settings::{JwksSettings, KubernetesSettings, SourcesFile};

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16_384;

/// Largest answer, in bytes: it repeats the token.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// Where a cluster publishes the keys its tokens are signed with.
const JWKS_PATH: &str = "/openid/v1/jwks";

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
    /// Not verified with the issuer's keys.
    #[error("the token is not accepted: {0}")]
    Token(#[from] TokenError),
    /// No keys to verify it with.
    #[error("the issuer's keys cannot be used: {0}")]
    Keys(&'static str),
    /// It is not a service account's.
    #[error("{0:?} is not a service account")]
    NotAnAccount(String),
}

impl ClusterError {
    /// Whether it may work later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Access(_) | Self::Call(_) | Self::Refused(_) | Self::Keys(_) => true,
            Self::Unknown(_)
            | Self::Malformed(_)
            | Self::NotAuthenticated(_)
            | Self::Token(_)
            | Self::Audience(_)
            | Self::NotAnAccount(_) => false,
        }
    }
}

struct Cluster {
    settings: KubernetesSettings,
    keys: KeyCache,
}

/// See the module.
#[derive(Default)]
pub struct Clusters {
    by_name: BTreeMap<String, Cluster>,
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
            let settings = source.kubernetes.clone()?;
            Some((source.name.clone(), Cluster { settings, keys: KeyCache::default() }))
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
        let cluster = self.by_name.get(&proof.cluster);
        let cluster =
            cluster.ok_or_else(|| ClusterError::Unknown(proof.cluster.chars().take(63).collect()))?;
        if proof.token.is_empty() || proof.token.len() > TOKEN_BYTES_MAX {
            return Err(ClusterError::Malformed("the token is empty or too long"));
        }
        if let Some(jwks) = &cluster.settings.tokens {
            return cluster.verify_here(jwks, proof, audience).await;
        }
        let access = Access::of(&cluster.settings)?;
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

impl Cluster {
    /// Without a question to the cluster.
    async fn verify_here(
        &self,
        jwks: &JwksSettings,
        proof: &v1::KubernetesProof,
        audience: &str,
    ) -> Result<KubernetesAccount, ClusterError> {
        let now = clock::unix_ms().div_euclid(1_000);
        let look = |keys: &Keys| keys.subject(&proof.token, &jwks.issuer, audience, now);
        let subject = self.keys.with(self.fetch(jwks), look).await??;
        service_account(&subject, &proof.cluster)
    }

    /// The keys, from where the settings say, or from the cluster's own API.
    async fn fetch(&self, jwks: &JwksSettings) -> Result<Keys, ClusterError> {
        let (origin, path, authorization) = match &jwks.uri {
            Some(uri) => {
                let (origin, path) = Origin::parse(uri, || outward::tls_of_file(jwks.ca_file.as_deref()))?;
                (origin, path, None)
            }
            None => {
                let access = Access::of(&self.settings)?;
                let authorization = access.authorization().await?;
                (access.origin, format!("{}{JWKS_PATH}", access.prefix), authorization)
            }
        };
        let mut request = Request::get(if path.is_empty() { "/" } else { &path });
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let request = request.body(Full::default());
        let request = request.map_err(|_| ClusterError::Malformed("no request can be made of it"))?;
        let answer = origin.call(request, ANSWER_BYTES_MAX).await?;
        if !answer.status.is_success() {
            return Err(ClusterError::Refused(answer.status));
        }
        Keys::parse(&answer.body).map_err(ClusterError::Keys)
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
    service_account(&status.user.username, cluster)
}

/// Of a name like `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(name: &str, cluster: &str) -> Result<KubernetesAccount, ClusterError> {
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
