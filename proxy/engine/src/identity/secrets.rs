//! The named secrets of a configuration, parsed once for everything that refers to them.

use super::keypair::KeyPair;
use super::trust::Trust;
use outrigger_traffic::config::{
    CertificateSource, ConfigError, Secret, SecretValue, ValidationContext, ValidationSource,
};
use std::collections::HashMap;
use std::sync::Arc;

/// Parsed secrets by name.
#[derive(Debug, Default)]
pub struct Secrets(HashMap<String, Parsed>);

#[derive(Clone, Debug)]
enum Parsed {
    Certificate(Arc<KeyPair>),
    Validation(Arc<Trust>),
}

/// What a reference led to.
pub(super) enum Found<T> {
    /// It is there.
    Ready(Arc<T>),
    /// The secret of this name has not arrived.
    Missing(String),
}

/// A place in a resource, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<'a> {
    pub(super) resource: &'a str,
    pub(super) path: &'a str,
}

impl At<'_> {
    pub(super) fn error(&self, field: &str, reason: impl Into<String>) -> ConfigError {
        let path = match (self.path.is_empty(), field.is_empty()) {
            (true, _) => field.to_owned(),
            (false, true) => self.path.to_owned(),
            (false, false) => format!("{}.{field}", self.path),
        };
        ConfigError::new(self.resource, path, reason)
    }
}

impl Secrets {
    /// Parses all secrets; those that `previous` holds with the same content are taken over.
    ///
    /// *Errors*: every secret that cannot be used, as `secret/NAME`.
    pub fn parse(secrets: &[Secret], previous: Option<&Self>) -> Result<Self, Vec<ConfigError>> {
        let mut all = HashMap::with_capacity(secrets.len());
        let mut errors = Vec::new();
        for secret in secrets {
            let resource = format!("secret/{}", secret.name);
            let held = previous.and_then(|p| p.0.get(&secret.name)).filter(|held| held.is(&secret.value));
            let parsed = match held {
                Some(held) => Ok(held.clone()),
                None => Parsed::new(&secret.value),
            };
            match parsed {
                Ok(parsed) => {
                    if all.insert(secret.name.clone(), parsed).is_some() {
                        errors.push(ConfigError::new(resource, "name", "two secrets have this name"));
                    }
                }
                Err((path, reason)) => errors.push(ConfigError::new(resource, path, reason)),
            }
        }
        if errors.is_empty() { Ok(Self(all)) } else { Err(errors) }
    }

    /// Names of all secrets, and whether each is a certificate (else trust roots).
    pub fn names(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|(name, parsed)| (name.as_str(), matches!(parsed, Parsed::Certificate(_))))
    }

    pub(super) fn certificate(
        &self,
        source: &CertificateSource,
        at: At<'_>,
    ) -> Result<Found<KeyPair>, ConfigError> {
        match source {
            CertificateSource::Inline(certificate) => KeyPair::parse(certificate)
                .map(|pair| Found::Ready(Arc::new(pair)))
                .map_err(|reason| at.error("", reason)),
            CertificateSource::Sds(name) => match self.0.get(name) {
                Some(Parsed::Certificate(pair)) => Ok(Found::Ready(pair.clone())),
                Some(Parsed::Validation(_)) => {
                    Err(at.error("", format!("secret `{name}` holds trust roots, not a certificate")))
                }
                None => Ok(Found::Missing(name.clone())),
            },
        }
    }

    pub(super) fn validation(
        &self,
        source: &ValidationSource,
        at: At<'_>,
    ) -> Result<Found<Trust>, ConfigError> {
        match source {
            ValidationSource::Inline(context) => inline(context, at).map(Found::Ready),
            ValidationSource::Sds(name) => self.named_trust(name, at),
            ValidationSource::Combined { default, sds } => {
                let default = inline(default, at)?;
                match self.named_trust(sds, at)? {
                    Found::Ready(secret) => default
                        .combine(&secret)
                        .map(|trust| Found::Ready(Arc::new(trust)))
                        .map_err(|(field, reason)| at.error(&field, reason)),
                    Found::Missing(name) => Ok(Found::Missing(name)),
                }
            }
        }
    }

    fn named_trust(&self, name: &str, at: At<'_>) -> Result<Found<Trust>, ConfigError> {
        match self.0.get(name) {
            Some(Parsed::Validation(trust)) => Ok(Found::Ready(trust.clone())),
            Some(Parsed::Certificate(_)) => {
                Err(at.error("", format!("secret `{name}` holds a certificate, not trust roots")))
            }
            None => Ok(Found::Missing(name.to_owned())),
        }
    }
}

fn inline(context: &ValidationContext, at: At<'_>) -> Result<Arc<Trust>, ConfigError> {
    Trust::parse(context).map(Arc::new).map_err(|(field, reason)| at.error(&field, reason))
}

impl Parsed {
    fn new(value: &SecretValue) -> Result<Self, (String, String)> {
        match value {
            SecretValue::Certificate(certificate) => KeyPair::parse(certificate)
                .map(|pair| Self::Certificate(Arc::new(pair)))
                .map_err(|reason| ("tls_certificate".to_owned(), reason)),
            SecretValue::Validation(context) => Trust::parse(context)
                .map(|trust| Self::Validation(Arc::new(trust)))
                .map_err(|(field, reason)| (format!("validation_context.{field}"), reason)),
        }
    }

    fn is(&self, value: &SecretValue) -> bool {
        match (self, value) {
            (Self::Certificate(pair), SecretValue::Certificate(certificate)) => pair.source == *certificate,
            (Self::Validation(trust), SecretValue::Validation(context)) => trust.source == *context,
            _ => false,
        }
    }
}
