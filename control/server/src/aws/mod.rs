//! AWS: whose credentials this service has, and where AWS is.
//!
//! Credentials come from where every AWS program looks for them (environment, profile files, web identity, the task's
//! role, the instance's role), by AWS's own crate. Its HTTP calls go out through [`crate::outward`], so that one TLS
//! configuration is in use ([`http`]).

pub mod http;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::ProvideCredentials as _;

/// How long before their end credentials are replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(300);

/// How long credentials without an end are kept: who changed the environment's file is heard.
const KEPT_FOR: Duration = Duration::from_secs(300);

/// Time to find credentials.
const TIMEOUT: Duration = Duration::from_secs(20);

/// No credentials.
#[derive(Debug, thiserror::Error)]
#[error("no AWS credentials: {reason}")]
pub struct CredentialsError {
    /// Why.
    pub reason: String,
}

/// Credentials, found when they are needed and kept until they end.
pub struct Credentials {
    region: String,
    held: Mutex<Option<(Keys, SystemTime)>>,
}

impl Credentials {
    /// Those of the environment this service runs in.
    pub fn of_environment(region: &str) -> Self {
        Self { region: region.to_owned(), held: Mutex::new(None) }
    }

    /// These, for ever. For tests.
    #[cfg(test)]
    pub(crate) fn fixed(id: &str, secret: &str) -> Self {
        let keys = Keys::new(id, secret, None, None, "test");
        let far = SystemTime::now() + Duration::from_secs(86_400);
        Self { region: String::new(), held: Mutex::new(Some((keys, far))) }
    }

    /// Credentials that are good now.
    ///
    /// *Errors*: [`CredentialsError`].
    pub async fn current(&self) -> Result<Keys, CredentialsError> {
        let now = SystemTime::now();
        if let Some((keys, until)) = self.held.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
            && *until > now
        {
            return Ok(keys.clone());
        }
        let failed = |reason: String| CredentialsError { reason };
        let find = async {
            let client = http::Client::new().map_err(|error| failed(error.to_string()))?;
            let config = aws_config::defaults(BehaviorVersion::latest())
                .region(aws_config::Region::new(self.region.clone()))
                .http_client(client)
                .load()
                .await;
            let provider =
                config.credentials_provider().ok_or_else(|| failed("nobody provides them".into()))?;
            provider.provide_credentials().await.map_err(|error| failed(chain(&error)))
        };
        let keys =
            tokio::time::timeout(TIMEOUT, find).await.map_err(|_| failed("took too long".into()))??;
        let until = match keys.expiry() {
            Some(end) => end.checked_sub(RENEW_BEFORE).unwrap_or(now),
            None => now.checked_add(KEPT_FOR).unwrap_or(now),
        };
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some((keys.clone(), until));
        Ok(keys)
    }

    /// AWS does not take them any more: the next call looks again.
    pub fn forget(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// An error with what led to it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

/// Where a service of AWS is in a region (AWS: regional endpoints; China has a domain of its own).
pub fn endpoint(service: &str, region: &str) -> String {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    format!("https://{service}.{region}.{domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoint_is_that_of_the_region() {
        assert_eq!(endpoint("ecs", "eu-central-1"), "https://ecs.eu-central-1.amazonaws.com");
        assert_eq!(endpoint("sts", "cn-north-1"), "https://sts.cn-north-1.amazonaws.com.cn");
    }
}
